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

    /// Whether a process above this one holds the lock: it may be waiting for us, as who runs a hook does.
    pub fn is_held_above(path: &Path) -> bool {
        // Not by our number: a hook in the container's namespaces has another one than the `/proc` it sees, which is the host's.
        is_held_above(path, "self")
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

fn is_held_above(path: &Path, process: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(file), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else {
        return false;
    };
    let holders = holders(&locks, file.ino());
    std::iter::successors(parent(process), |pid| parent(&pid.to_string()))
        .any(|above| holders.contains(&above))
}

/// Who holds locks on files of this number, whatever their device: some filesystems have another here than `stat(2)` tells.
fn holders(locks: &str, inode: u64) -> Vec<i32> {
    let held = |line: &str| {
        // `1: FLOCK  ADVISORY  WRITE 123 fe:01:456 0 EOF`; `->` in place of the kind for who waits.
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next()? == "FLOCK";
        let pid = fields.nth(2)?.parse().ok()?;
        let number: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        (ours && number == inode).then_some(pid)
    };
    locks.lines().filter_map(held).collect()
}

fn parent(process: &str) -> Option<i32> {
    let fields = super::stat_fields(process)?;
    // Behind the state.
    fields
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_those_of_the_file_and_not_who_waits() {
        let locks = "1: FLOCK  ADVISORY  WRITE 7 fe:01:42 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 8 fe:01:42 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 9 fe:01:42 0 EOF\n3: FLOCK  ADVISORY  READ 10 00:1a:420 0 EOF\nodd\n";
        assert_eq!(holders(locks, 42), [7]);
        assert_eq!(holders(locks, 420), [10]);
        assert!(holders(locks, 1).is_empty());
    }

    #[test]
    fn a_child_finds_that_its_parent_holds_the_lock() {
        let path = std::env::temp_dir().join(format!("condo-lock-{}", std::process::id()));
        let lock = Lock::now(&path).unwrap();
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let child_name = child.id().to_string();
        let below = is_held_above(&path, &child_name);
        let itself = Lock::is_held_above(&path);
        drop(lock);
        let after = is_held_above(&path, &child_name);
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((below, itself, after), (true, false, false));
    }
}
