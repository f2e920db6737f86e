//! The container's terminal: a pty of its own devpts.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

use super::{Assembled, magic, mount, place};
use crate::error::{During, Error, Result};
use crate::files::Root;

impl Assembled {
    /// Opens a new pty master of the container's devpts and unlocks it. [`open_peer`] gives the other side.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the spec asks for a terminal but mounts no devpts; [`Error::Corrupt`] for a fake one.
    pub fn open_ptmx(&self) -> Result<OwnedFd> {
        ptmx(&self.root)
    }

    /// Puts the terminal at `/dev/console`.
    pub fn attach_console(&self, slave: BorrowedFd<'_>) -> Result<()> {
        let work = || -> Result<()> {
            magic::require(slave, magic::DEVPTS, "the terminal")?;
            let place = place::of_mount(&self.root, Path::new("/dev/console"), false)?;
            mount::attach(&mount::clone(slave, false)?, &place)
        };
        work().during(|| "mount `/dev/console`")
    }
}

/// Opens the other side of a master by `TIOCGPTPEER`: no path, so no devpts that somebody mounted over (CVE-2025-52565).
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(master, flags).during(|| "open the terminal")
}

/// As [`Assembled::open_ptmx`], for a process that has joined the container and has its root as its own.
pub fn open_container_ptmx() -> Result<OwnedFd> {
    ptmx(&Root::open(Path::new("/"))?)
}

fn ptmx(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("/dev/pts/ptmx");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // Looked at before it is opened for real: opening a device of the image's choice can have effects.
    let node = root.get(path, OFlags::PATH | OFlags::NOFOLLOW).map_err(|e| {
        if e.is_gone() {
            Error::invalid(
                "process.terminal",
                "true",
                "needs a `devpts` mounted at `/dev/pts`",
            )
        } else {
            e
        }
    })?;
    magic::require(&node, magic::DEVPTS, "the `devpts` at `/dev/pts`")?;
    let master = root.get(path, flags)?;
    magic::require(&master, magic::DEVPTS, "the `devpts` at `/dev/pts`")?;
    rustix::pty::unlockpt(&master).during(|| "unlock the pty")?;
    let blocking = rustix::fs::fcntl_getfl(&master)? - OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&master, blocking)?;
    Ok(master)
}
