//! Locks between processes.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{During, Error, Result};

/// A `flock(2)` on a file, released on drop and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: OwnedFd,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process cloned meanwhile shares the open file, and with it the lock.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

impl Lock {
    /// Waits for the lock; the file is created when missing.
    pub fn wait(path: &Path) -> Result<Self> {
        Self::take(path, rustix::fs::FlockOperation::LockExclusive)
    }

    /// Takes the lock now, or fails with [`Error::Busy`].
    pub fn now(path: &Path) -> Result<Self> {
        Self::take(path, rustix::fs::FlockOperation::NonBlockingLockExclusive)
    }

    /// Waits for the lock as one of several that hold it together; whoever wants it alone waits for all of them.
    pub fn shared(path: &Path) -> Result<Self> {
        Self::take(path, rustix::fs::FlockOperation::LockShared)
    }

    /// A second holder, for another process: the lock lasts until both have let go, unless one drops its [`Lock`].
    pub fn share(&self) -> Result<OwnedFd> {
        self.file.try_clone().during(|| "share a lock")
    }

    fn take(path: &Path, operation: rustix::fs::FlockOperation) -> Result<Self> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
                .during(|| format!("open lock `{}`", path.display()))?;
            match rustix::fs::flock(&file, operation) {
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::Busy(format!("`{}`", path.display())));
                }
                Err(rustix::io::Errno::INTR) => continue,
                other => other.during(|| format!("lock `{}`", path.display()))?,
            }
            if same_file(&file, path) {
                return Ok(Self { file });
            }
        }
    }
}

/// Whether the path still names the locked file: a `delete` may have unlinked it while we waited.
fn same_file(file: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (rustix::fs::fstat(file), rustix::fs::stat(path)) else {
        return false;
    };
    (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
}
