//! How much a tree takes up on disk.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Size of the blocks that `st_blocks` counts.
const BLOCK: u64 = 512;
/// How often a tree that its tenant rearranges meanwhile is measured again.
const TRIES: u32 = 5;

/// Bytes on disk of the tree at `path`, which a tenant may be changing and may have made arbitrarily deep.
pub(super) fn of(path: &Path) -> Result<u64> {
    for _ in 0..TRIES {
        if let Some(bytes) = Walk::new(path)?.run()? {
            return Ok(bytes);
        }
    }
    Err(Error::Busy(format!("`{}`", path.display())))
}

/// Goes through a tree with a single descriptor: down by name, up by `..`. A path would become too long, and a descriptor for
/// each level too many.
struct Walk {
    here: OwnedFd,
    levels: Vec<Level>,
    /// Files with several names that have been counted.
    linked: HashSet<(u64, u64)>,
    bytes: u64,
}

/// A directory on the way down.
struct Level {
    identity: (u64, u64),
    /// Directories in it that have not been visited.
    left: Vec<CString>,
}

impl Walk {
    fn new(path: &Path) -> Result<Self> {
        Ok(Self {
            here: rustix::fs::openat(CWD, path, flags(), Mode::empty())?,
            levels: Vec::new(),
            linked: HashSet::new(),
            bytes: 0,
        })
    }

    /// The sum, or nothing when a directory on the way was moved elsewhere.
    fn run(mut self) -> Result<Option<u64>> {
        self.enter()?;
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.left.pop() else {
                self.levels.pop();
                let Some(parent) = self.levels.last() else { break };
                let up = rustix::fs::openat(&self.here, "..", flags(), Mode::empty())?;
                if identity(&rustix::fs::fstat(&up)?) != parent.identity {
                    return Ok(None);
                }
                self.here = up;
                continue;
            };
            match rustix::fs::openat(&self.here, &name, flags(), Mode::empty()) {
                // Removed, or replaced by something else, since it was listed.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                other => {
                    self.here = other?;
                    self.enter()?;
                }
            }
        }
        Ok(Some(self.bytes))
    }

    /// Counts the directory we are in and its files.
    fn enter(&mut self) -> Result<()> {
        let status = rustix::fs::fstat(&self.here)?;
        self.count(&status);
        let mut left = Vec::new();
        for entry in Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
                Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::Directory => {
                    left.push(name.to_owned());
                }
                Ok(s) => self.count(&s),
            }
        }
        self.levels.push(Level {
            identity: identity(&status),
            left,
        });
        Ok(())
    }

    fn count(&mut self, status: &Stat) {
        let directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        if directory || status.st_nlink == 1 || self.linked.insert(identity(status)) {
            self.bytes += u64::try_from(status.st_blocks).unwrap_or(0) * BLOCK;
        }
    }
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_count_once_and_depth_does_not_matter() {
        let top = std::env::temp_dir().join(format!("condo-usage-{}", std::process::id()));
        fs::create_dir(&top).unwrap();
        let empty = of(&top).unwrap();
        fs::write(top.join("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(top.join("a"), top.join("b")).unwrap();
        let one = of(&top).unwrap();
        assert!((100_000..200_000).contains(&(one - empty)), "{}", one - empty);

        // Deeper than a path can say and than there are descriptors.
        let mut here = rustix::fs::openat(CWD, &top, flags(), Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, "d", flags(), Mode::empty()).unwrap();
        }
        let deep = of(&top).unwrap();
        crate::files::remove_tree(&top).unwrap();
        assert!(deep >= one);
        assert!(!top.exists());
    }
}
