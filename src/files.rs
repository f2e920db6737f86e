//! Files condo owns (state, locks) and files below a root that is not trusted.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};

use crate::error::{During, Error, Result};

/// Reads a whole file, naming it in the error.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).during(|| format!("read `{}`", path.display()))
}

/// Reads a whole file as text, naming it in the error.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).during(|| format!("read `{}`", path.display()))
}

/// Replaces `path` in one step: readers see the old content or the new, never a part.
///
/// The temporary file beside it carries our pid, so that two writers do not share one.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::from_raw_mode(mode))?);
        file.write_all(content)?;
        fs::rename(&temporary, path)?;
        Ok(())
    };
    write()
        .during(|| format!("write `{}`", path.display()))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
}

/// Writes to an existing file (a cgroup, sysctl or proc file) below a directory handle in a single `write(2)`.
pub fn write_at(dir: BorrowedFd<'_>, name: &str, value: &str) -> Result<()> {
    let write = || -> Result<()> {
        let fd = rustix::fs::openat(
            dir,
            name,
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        rustix::io::write(&fd, value.as_bytes())?;
        Ok(())
    };
    write().during(|| format!("write `{value}` to `{name}`"))
}

/// Reads a small file below a directory handle as text.
pub fn read_at(dir: BorrowedFd<'_>, name: &str) -> Result<String> {
    let read = || -> Result<String> {
        let fd = rustix::fs::openat(
            dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        // Files of the kernel have no size to ask for (which `read_to_string` would): most fit into one read.
        let mut text = Vec::with_capacity(4096);
        while rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut text))? > 0 {
            text.reserve(4096);
        }
        Ok(String::from_utf8(text).map_err(std::io::Error::other)?)
    };
    read().during(|| format!("read `{name}`"))
}

/// Opens a directory as a handle for the `*at` calls.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(|| format!("open `{}`", path.display()))
}

/// Creates a directory and its parents; one that is there already is left as it is.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .during(|| format!("create directory `{}`", path.display()))
}

/// Removes a file; one that is gone already counts as removed.
pub fn remove_file(path: &Path) -> Result<()> {
    forgive_gone(fs::remove_file(path)).during(|| format!("remove `{}`", path.display()))
}

/// Removes a tree without following symbolic links; one that is gone already counts as removed.
///
/// It works at any depth (a tenant can nest directories deeper than a path can say, than a process has descriptors and than a
/// recursion has stack): directories are moved up to the top before they are emptied.
pub fn remove_tree(path: &Path) -> Result<()> {
    let work = || -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Ok(forgive_gone(fs::remove_file(path))?);
            }
            other => empty(&other?)?,
        }
        Ok(forgive_gone(fs::remove_dir(path))?)
    };
    work().during(|| format!("remove `{}`", path.display()))
}

/// Empties a directory. Every pass takes away what is directly in it and brings up what was one level below.
fn empty(top: &OwnedFd) -> Result<()> {
    let mut moved = 0_u64;
    loop {
        let dirs = remove_files(top)?;
        if dirs.is_empty() {
            return Ok(());
        }
        for dir in dirs {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(top, &dir, flags, Mode::empty())?;
            for name in remove_files(&below)? {
                loop {
                    moved += 1;
                    let flags = RenameFlags::NOREPLACE;
                    match rustix::fs::renameat_with(&below, &name, top, format!(".removed-{moved}"), flags) {
                        Err(rustix::io::Errno::EXIST) => {}
                        other => break other?,
                    }
                }
            }
            rustix::fs::unlinkat(top, &dir, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes the files of a directory and returns the names of its directories.
fn remove_files(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut dirs = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => dirs.push(name.to_owned()),
            Err(rustix::io::Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(dirs)
}

fn forgive_gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An exclusive `flock(2)` on a file, released on drop and by the kernel when the process dies.
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

/// A directory tree that may be hostile: a root filesystem. No path below it is ever resolved outside of it.
///
/// Every lookup is one `openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, so absolute and `..` symbolic links stay
/// inside, also when somebody swaps them while we look (CVE-2021-30465, CVE-2024-45310).
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl Root {
    /// Opens a root by path; the last component must be a directory itself, not a symbolic link to one.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .during(|| format!("open root `{}`", path.display()))?;
        Ok(Self { fd })
    }

    /// Opens `path` as seen from inside the root.
    pub fn get(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.open_at(path, flags, Mode::empty())
            .during(|| format!("open `{}` in the root", path.display()))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
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
            for part in normal_parts(path)? {
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
            let mode = Mode::from_raw_mode(mode);
            let (temporary, mut file) = new_file(parent.as_fd(), mode)?;
            rustix::fs::fchmod(&file, mode)?;
            file.write_all(content)?;
            rustix::fs::renameat(&parent, &temporary, &parent, name)?;
            Ok(())
        };
        work().during(|| format!("write `{}` in the root", path.display()))
    }

    /// The content of a regular file, up to `limit` bytes (what is in a tenant's root is not trusted to be small).
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
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
        let mut content = Vec::new();
        file.take(limit)
            .read_to_end(&mut content)
            .during(|| format!("read `{}` in the root", path.display()))?;
        Ok(content)
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

/// Names tried for a temporary file before a directory full of them is taken for malice.
const TEMPORARIES: u32 = 1000;

/// A file of our own in a tenant's directory: what is there already under the name, a fifo perhaps, is never opened.
fn new_file(dir: BorrowedFd<'_>, mode: Mode) -> Result<(String, File)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for n in 0..TEMPORARIES {
        let name = format!(".condo.{}.{n}.tmp", std::process::id());
        match rustix::fs::openat(dir, &name, flags, mode) {
            Err(rustix::io::Errno::EXIST) => {}
            other => return Ok((name, File::from(other?))),
        }
    }
    Err(rustix::io::Errno::EXIST.into())
}

/// The components of a path inside a root; `..` is refused, because a text cannot say where it leads behind a link.
fn normal_parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>> {
    path.components()
        .filter(|c| !matches!(c, Component::RootDir | Component::CurDir))
        .map(|c| match c {
            Component::Normal(part) => Ok(part),
            _ => Err(Error::invalid("path", path.display(), "must not contain `..`")),
        })
        .collect()
}

/// Whether `path` is there, without following a symbolic link in its last component.
pub fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
