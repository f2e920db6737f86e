//! A process that is waited for by another than its caller.
//!
//! No init ends before all of its pid namespace has been waited for (`pid_namespaces(7)`). What comes in from outside is waited for by
//! its parent, or, once that was killed, by the one that takes its children over: PID 1 of the host, which in many a CI job waits for
//! nobody, so that the VPS would never end. So its parent is a process that nobody has a reason to kill: it holds nothing, is in no
//! session of others, and ends when, and as, the one does that it waits for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::Newborn;
use super::link::{self, Entering, Reporter};
use super::patience::Patience;
use crate::error::{During, Result};
use crate::sys;
use crate::sys::clone::{Clone, Side};

/// A process, and the child of ours that waits for it.
#[derive(Debug)]
pub struct Minded {
    /// The process's pidfd. It may have been waited for by now, and its pid be another's.
    pub process: OwnedFd,
    /// Ends with the exit status of the process, or 128 and the number of the signal that ended it.
    pub minder: Newborn,
}

/// Has a process made by one that then waits for it. `make` is given what can be read from when its caller is gone or has lost
/// patience; signals must be blocked by now, for it is to live through those that a terminal sends.
pub fn make(make: impl FnOnce(BorrowedFd<'_>) -> Result<Newborn>, patience: Patience) -> Result<Minded> {
    let (parent, link) = link::pair::<Entering>()?;
    match Clone::default()
        .spawn()
        .during(|| "make the process that waits for it")?
    {
        Side::Child => {
            drop((parent, patience));
            let done = link.reporter().is_ok_and(|reporter| {
                drop(link);
                mind(make, &reporter)
            });
            sys::clone::exit(i32::from(!done))
        }
        Side::Parent { pid, pidfd } => {
            drop(link);
            let minder = Newborn { pid, pidfd };
            let named = parent.with_patience(patience).proxied();
            match named {
                Ok(process) => Ok(Minded { process, minder }),
                // It hears of it by the socket, which is closed by now, and ends what it has begun.
                Err(e) => {
                    minder.reap_soon();
                    Err(e)
                }
            }
        }
    }
}

/// The other side of it. Returns only when there is nothing to wait for.
fn mind(make: impl FnOnce(BorrowedFd<'_>) -> Result<Newborn>, reporter: &Reporter) -> bool {
    // What kills a whole process group is not meant for it.
    let made = rustix::process::setsid()
        .during(|| "start a session")
        .and_then(|_| make(reporter.as_fd()));
    let process = match made {
        Ok(process) => process,
        Err(e) => {
            let told = reporter.fail(&e);
            wait_for_all();
            return told;
        }
    };
    if reporter.hand_over(process.pidfd.as_fd()).is_err() {
        process.give_up();
        wait_for_all();
        return false;
    }
    // Its working directory and files are of somebody who may want to unmount them, or to see the end of a pipe.
    let _ = rustix::process::chdir("/");
    let _ = sys::fd::close_others(0, &[process.pidfd.as_fd()]);
    sys::clone::exit(process.exit_code().map_or(255, i32::from))
}

/// Waits for what has been begun in vain: it may be in the VPS by now, and take its time to die there (frozen, or short of processor
/// time).
fn wait_for_all() {
    while !matches!(
        rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED),
        Err(Errno::CHILD)
    ) {}
}
