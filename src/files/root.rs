//! Files below a root that is not trusted.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::NewFile;
use crate::error::{During, Error, Result};

/// Symbolic links that one path may lead over, as for the kernel (`path_resolution(7)`).
const LINKS: u32 = 40;

/// A directory tree that may be hostile: a root filesystem. No path below it is ever resolved outside of it.
///
/// Every lookup is one `openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, so absolute and `..` symbolic links stay
/// inside, also when somebody swaps them while we look (CVE-2021-30465, CVE-2024-45310).
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// What lookups refuse beyond links that lead outside.
    refused: ResolveFlags,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            refused: ResolveFlags::empty(),
        }
    }
}

impl Root {
    /// Opens a root by path; the last component must be a directory itself, not a symbolic link to one.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .during(|| format!("open root `{}`", path.display()))?;
        Ok(fd.into())
    }

    /// A root of which nothing that is mounted below it is a part: file systems of a tenant's own making, for one, may never answer.
    pub fn of_one_mount(fd: OwnedFd) -> Self {
        Self {
            fd,
            refused: ResolveFlags::NO_XDEV,
        }
    }

    /// Opens `path` as seen from inside the root.
    pub fn get(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.open_at(path, flags, Mode::empty())
            .during(|| format!("open `{}` in the root", path.display()))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | self.refused;
        // A terminal of the tenant's must not become the controlling one of a host process. O_PATH opens nothing.
        let flags = if flags.contains(OFlags::PATH) {
            flags
        } else {
            flags | OFlags::NOCTTY
        };
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                // A rename anywhere on the system while `..` is resolved: openat2(2) asks to try again.
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Opens a directory, creating it and its parents as needed; symbolic links on the way are resolved inside the root.
    pub fn create_dir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let work = || -> Result<OwnedFd> {
            let mut seen = PathBuf::new();
            let mut here = self.open_at(Path::new("."), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            for part in inside(path)?.iter() {
                seen.push(part);
                here = match self.open_at(&seen, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                    Err(e) if e.is_gone() => {
                        match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(mode)) {
                            Err(rustix::io::Errno::EXIST) => {}
                            other => other?,
                        }
                        self.open_at(&seen, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
                    }
                    other => other?,
                };
            }
            Ok(here)
        };
        work().during(|| format!("create directory `{}` in the root", path.display()))
    }

    /// Opens a file for the place of a bind mount, creating an empty one (and its parents) when nothing is there.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let work = || -> Result<OwnedFd> {
            match self.open_at(path, OFlags::PATH, Mode::empty()) {
                Err(e) if e.is_gone() => {}
                other => return other,
            }
            let (parent, name) = self.parent(path)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode)) {
                Err(rustix::io::Errno::EXIST) => {}
                other => drop(other?),
            }
            self.open_at(path, OFlags::PATH, Mode::empty())
        };
        work().during(|| format!("create file `{}` in the root", path.display()))
    }

    /// Replaces the file at `path` by a regular file with this content; a symbolic link there is replaced, not followed.
    pub fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let work = || -> Result<()> {
            let (parent, name) = self.parent(path)?;
            let mut new = NewFile::begin(parent.as_fd())?;
            rustix::fs::fchmod(&new, Mode::from_raw_mode(mode))?;
            new.file.write_all(content)?;
            new.finish(name)
        };
        work().during(|| format!("write `{}` in the root", path.display()))
    }

    /// Opens a regular file to be read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        // Looked at before it is opened: opening a device or a fifo has effects of its own.
        let refuse = || Error::invalid("file", path.display(), "is not a regular file");
        let seen = rustix::fs::fstat(self.get(path, OFlags::PATH)?)?;
        if rustix::fs::FileType::from_raw_mode(seen.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(refuse());
        }
        let file = File::from(self.get(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let opened = rustix::fs::fstat(&file)?;
        if (seen.st_dev, seen.st_ino) != (opened.st_dev, opened.st_ino) {
            return Err(refuse());
        }
        Ok(file)
    }

    /// The content of a regular file, up to `limit` bytes (what is in a tenant's root is not trusted to be small).
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_file(path)?
            .take(limit)
            .read_to_end(&mut content)
            .during(|| format!("read `{}` in the root", path.display()))?;
        Ok(content)
    }

    /// Opens a directory below the root without following any link, not even inside: where a link is in the way, there is no
    /// directory.
    pub fn get_dir(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = || loop {
            match rustix::fs::openat2(&self.fd, Path::new(".").join(path), flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                other => return other,
            }
        };
        open().during(|| format!("open directory `{}`", path.display()))
    }

    /// Where `path` leads, followed to its end inside of the root: the directory and the name in it, whether or not there is
    /// anything of that name.
    pub fn follow(&self, path: &Path) -> Result<(OwnedFd, std::ffi::OsString)> {
        let mut path = Path::new("/").join(path);
        for _ in 0..LINKS {
            let name = path
                .file_name()
                .ok_or_else(|| Error::invalid("path", path.display(), "has no file name"))?;
            let dir = path.parent().unwrap_or(Path::new("/"));
            let parent = self.get(dir, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                Ok(target) => {
                    let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
                    path = dir.join(target);
                }
                Err(_) => return Ok((parent, name.to_owned())),
            }
        }
        Err(rustix::io::Errno::LOOP).during(|| format!("follow `{}`", path.display()))
    }

    /// Whether something (also a dangling symbolic link's target: no) is at `path`.
    pub fn has(&self, path: &Path) -> bool {
        self.open_at(path, OFlags::PATH, Mode::empty()).is_ok()
    }

    /// The directory that holds `path`'s last component, and that component.
    pub fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p std::ffi::OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::invalid("path", path.display(), "has no file name"))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.create_dir_all(parent, 0o755)?, name))
    }
}

/// A path as one below a root. Absolute paths are the root's own; `..` is refused, because a text cannot say where it leads
/// behind a symbolic link.
pub fn inside(path: &Path) -> Result<PathBuf> {
    path.components()
        .filter(|c| !matches!(c, Component::RootDir | Component::CurDir))
        .map(|c| match c {
            Component::Normal(part) => Ok(part),
            _ => Err(Error::invalid("path", path.display(), "must not contain `..`")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(
            inside(Path::new("/etc//./passwd")).unwrap(),
            Path::new("etc/passwd")
        );
        assert_eq!(inside(Path::new("./")).unwrap(), Path::new(""));
        assert!(inside(Path::new("a/../../etc")).is_err());
    }

    /// CVE-2021-30465, CVE-2024-45310: the path is looked at while somebody swaps a directory on it for a link to the outside.
    #[test]
    fn links_swapped_while_we_look_do_not_lead_outside() {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let top = std::env::temp_dir().join(format!("condo-swap-{}", std::process::id()));
        let (tree, outside) = (top.join("tree"), top.join("outside"));
        std::fs::create_dir_all(tree.join("a")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("b")).unwrap();
        let root = Root::open(&tree).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let _ = renameat_with(CWD, tree.join("a"), CWD, tree.join("b"), RenameFlags::EXCHANGE);
                }
            });
            for n in 0..2000 {
                // Fails while `a` is the link, whose way out is no way inside.
                let _ = root.create_dir_all(Path::new(&format!("a/dir-{n}/below")), 0o755);
                let _ = root.write(Path::new(&format!("a/file-{n}")), b"x", 0o644);
            }
            over.store(true, Relaxed);
        });
        let escaped = std::fs::read_dir(&outside).unwrap().count();
        std::fs::remove_dir_all(&top).unwrap();
        assert_eq!(escaped, 0, "entries appeared outside of the root");
    }
}
