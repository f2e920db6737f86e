//! Who goes on telling a container's figures when the process that does is killed: another one, which waits for that.
//!
//! Both have one table of descriptors. So the heir holds all that the first ever gets, without a word between the two: the connection by
//! which the kernel asks for files, and the listeners of system call filters, each of which it gives out once. Whoever asks inside notices
//! nothing. (For the manager's VPSs one `keeper` holds the listeners of all of them, which takes less memory.)

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::tend::Telling;
use crate::error::{During, Error, Result};
use crate::runtime::init::Newborn;
use crate::runtime::status::Identity;
use crate::sys::clone::{self, Clone, Side};

/// Tells until the container's init has ended, whoever of the two is killed. `note` is told who they are, the one who tells first.
pub(in super::super) fn tell(
    mut telling: Telling,
    init: &OwnedFd,
    note: &dyn Fn(&[Identity]) -> Result<()>,
) -> Result<()> {
    let first = getpid();
    telling.have_heir()?;
    loop {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        let over = match bear() {
            Ok(Some(heir)) => {
                note(&[Identity::own()?, named(&heir)?])?;
                let over = telling.until_end(init, Some(&heir.pidfd))?;
                heir.kill()?;
                over
            }
            Ok(None) => {
                let over = is_over_before(init, &own)?;
                // As long as the number is its own: inheriting closes what is not known.
                drop(own);
                if !over {
                    telling.inherit(init.as_fd())?;
                }
                over
            }
            Err(e) => {
                log::debug!("nobody goes on where this process is killed: {e}");
                note(&[Identity::own()?])?;
                telling.until_end(init, None)?
            }
        };
        if over {
            break;
        }
    }
    if getpid() == first {
        return Ok(());
    }
    // The frames above are those of the process that it was cloned from.
    clone::exit(0)
}

/// The heir; `None` in the heir itself.
fn bear() -> Result<Option<Newborn>> {
    let flags = clone::SHARED_FILES;
    match (Clone { flags, cgroup: None })
        .spawn()
        .during(|| "make an heir")?
    {
        Side::Child => Ok(None),
        Side::Parent { pid, pidfd } => Ok(Some(Newborn { pid, pidfd })),
    }
}

fn named(heir: &Newborn) -> Result<Identity> {
    Identity::of(heir.pid).ok_or_else(|| Error::Corrupt("the heir is not in /proc".into()))
}

/// Waits until the init or the other has ended; whether it is the init.
fn is_over_before(init: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let mut fds = [
        PollFd::new(init, PollFlags::IN),
        PollFd::new(other, PollFlags::IN),
    ];
    loop {
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            other => {
                other.during(|| "wait for an inheritance")?;
                return Ok(!fds[0].revents().is_empty());
            }
        }
    }
}
