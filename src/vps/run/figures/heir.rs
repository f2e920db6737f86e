//! Who goes on telling a container's figures when the process that does is killed: another one, which waits for that.
//!
//! Both have one table of descriptors. So the heir holds all that the first ever gets, without a word between the two: the connection by
//! which the kernel asks for files, and the listeners of system call filters, each of which it gives out once. Whoever asks inside notices
//! nothing. (For the manager's VPSs one `keeper` holds the listeners of all of them, which takes less memory.)

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::tend::Telling;
use crate::error::{During, Result};
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
        match bear()? {
            Some(heir) => {
                let tellers: Vec<_> = [Identity::own().ok(), Identity::of(heir.pid)]
                    .into_iter()
                    .flatten()
                    .collect();
                note(&tellers)?;
                let over = telling.until_end(init, Some(&heir.pidfd))?;
                heir.kill()?;
                if over {
                    break;
                }
            }
            None => {
                let outlives = outlives(init, &own)?;
                // As long as the number is its own: inheriting closes what is not known.
                drop(own);
                if !outlives {
                    break;
                }
                telling.inherit(init.as_fd())?;
            }
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

/// Waits until the other or the init has ended; whether there is still something to tell.
fn outlives(init: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let mut fds = [
        PollFd::new(init, PollFlags::IN),
        PollFd::new(other, PollFlags::IN),
    ];
    loop {
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            other => {
                other.during(|| "wait for an inheritance")?;
                return Ok(fds[0].revents().is_empty());
            }
        }
    }
}
