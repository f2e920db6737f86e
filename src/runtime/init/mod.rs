//! Making processes in containers: the conversation ([`link`]), init's side ([`child`]), the runtime's side ([`parent`]),
//! and further processes ([`exec`]).

pub mod child;
pub mod exec;
pub mod link;
pub mod parent;

use std::os::fd::{AsFd, OwnedFd};

use link::Reporter;
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::{During, Result};
use crate::sys;
use crate::sys::clone::{Clone, PARENT, Side};

/// A process of ours that has been born and not been waited for.
#[derive(Debug)]
pub struct Newborn {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl Newborn {
    /// Ends it and takes its exit status, so that it is gone when this returns.
    pub fn kill(&self) -> Result<()> {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        self.reap()
    }

    /// Waits for its end.
    pub fn reap(&self) -> Result<()> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                // Waited for already, or not our child any more.
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                other => return other.map(drop).during(|| "wait for a process"),
            }
        }
    }
}

/// The part of a stand-in: makes the process that goes on in its place as its sibling, names it to the parent, and ends.
///
/// The new process returns from here only after it has been named, so that the parent hears of it before it speaks.
fn step_aside(flags: u64, reporter: &Reporter) -> Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match (Clone {
        flags: flags | PARENT,
        cgroup: None,
    })
    .spawn()?
    {
        Side::Child => {
            drop(write);
            let _ = rustix::io::read(&read, &mut [0u8; 1]);
            Ok(())
        }
        Side::Parent { pid, .. } => {
            let told = reporter.hand_over(pid);
            sys::clone::exit(i32::from(told.is_err()))
        }
    }
}
