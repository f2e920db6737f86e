//! Places in a root that is not trusted: opened, and created where they are missing.
//!
//! `openat2(RESOLVE_IN_ROOT)` finds what exists. What does not, also behind a dangling symbolic link (`/etc/resolv.conf` of
//! many images), is walked one component at a time: every step is one name below a directory handle, never followed by the
//! kernel, and `..` goes back to a handle we already hold, so no step leaves the root whatever others swap meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::checks::is_proc_file;
use super::magic;
use crate::error::{During, Error, Result};
use crate::files::Root;

/// As many symbolic links as the kernel follows in one lookup.
const MAX_LINKS: usize = 40;

/// The place of a mount, created if missing. A link of the image must not turn it into a place inside procfs
/// (CVE-2019-19921, CVE-2023-28642, CVE-2025-52565) or into the root itself, nor `/proc` or `/sys` into something else.
pub(super) fn of_mount(root: &Root, target: &Path, is_directory: bool) -> Result<OwnedFd> {
    if [Path::new("/proc"), Path::new("/sys")].contains(&target) {
        return plain_directory(root, target);
    }
    let place = if is_directory {
        directory(root, target)?
    } else {
        file(root, target)?
    };
    if magic::is(&place, magic::PROC)? && !is_proc_file(target) {
        return Err(Error::Corrupt(format!(
            "`{}` leads into procfs, where nothing may be covered",
            target.display()
        )));
    }
    if same(&place, root)? {
        return Err(Error::Corrupt(format!(
            "`{}` of the image leads to the root itself",
            target.display()
        )));
    }
    Ok(place)
}

fn same(one: impl AsFd, other: impl AsFd) -> Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Opens a directory, creating what is missing.
fn directory(root: &Root, path: &Path) -> Result<OwnedFd> {
    open_or_walk(root, path, Missing::Directory)
}

/// Opens whatever is at `path`, creating an empty file when nothing is.
fn file(root: &Root, path: &Path) -> Result<OwnedFd> {
    open_or_walk(root, path, Missing::File)
}

/// The directory that holds the last component (created if missing), and that component, which is not resolved.
pub(super) fn parent<'p>(root: &Root, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid("path", path.display(), "has no file name"))?;
    Ok((directory(root, path.parent().unwrap_or(Path::new("/")))?, name))
}

/// Opens a directory none of whose components may be a symbolic link, creating what is missing.
pub(super) fn plain_directory(root: &Root, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let open = || loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    };
    match open() {
        Err(Errno::NOENT) => {
            directory(root, path)?;
            Ok(open()?)
        }
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::Corrupt(format!(
            "`{}` of the image is a symbolic link or a file: it must be mounted on ordinary directory",
            path.display()
        ))),
        other => Ok(other?),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Missing {
    Directory,
    File,
}

fn open_or_walk(root: &Root, path: &Path, missing: Missing) -> Result<OwnedFd> {
    match root.get(path, OFlags::PATH) {
        Err(e) if e.is_gone() => create_last(root, path, missing)
            .and_then(|place| place.map_or_else(|| walk(root, path, missing), Ok))
            .during(|| format!("create `{}`", path.display())),
        other => other,
    }
}

/// The common case, without a walk: only the last component is missing. `None` when it is not so simple.
fn create_last(root: &Root, path: &Path, missing: Missing) -> Result<Option<OwnedFd>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let above = match root.get(parent, OFlags::PATH | OFlags::DIRECTORY) {
        Err(e) if e.is_gone() => return Ok(None),
        other => other?,
    };
    create(&above, name, missing == Missing::File)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(&above, name, flags, Mode::empty())?;
    let followed = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Symlink;
    Ok(Some(place).filter(|_| !followed))
}

/// A walk in progress.
struct Walk<'r> {
    root: &'r Root,
    /// Directories on the way down, without the root.
    above: Vec<OwnedFd>,
    /// Components still to go.
    rest: VecDeque<OsString>,
    links: usize,
}

fn walk(root: &Root, path: &Path, missing: Missing) -> Result<OwnedFd> {
    let mut walk = Walk {
        root,
        above: Vec::new(),
        rest: parts(path).collect(),
        links: 0,
    };
    while let Some(name) = walk.rest.pop_front() {
        if name == ".." {
            walk.above.pop();
            continue;
        }
        if let Some(file) = walk.step(&name, missing)? {
            return Ok(file);
        }
    }
    match walk.above.pop() {
        Some(here) => Ok(here),
        None => root.get(Path::new("/"), OFlags::PATH),
    }
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_os_string())
}

impl Walk<'_> {
    /// Goes down one name; gives back the file when the walk ends at one.
    fn step(&mut self, name: &OsStr, missing: Missing) -> Result<Option<OwnedFd>> {
        let here = self.above.last().map_or(self.root.as_fd(), AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let last = self.rest.is_empty();
        let found = match rustix::fs::openat(here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                create(here, name, last && missing == Missing::File)?;
                rustix::fs::openat(here, name, flags, Mode::empty())?
            }
            other => other?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
            FileType::Directory => self.above.push(found),
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(&found, "", Vec::new())?;
                self.follow(&PathBuf::from(OsString::from_vec(to.into_bytes())))?;
            }
            _ if last => return Ok(Some(found)),
            _ => return Err(Errno::NOTDIR.into()),
        }
        Ok(None)
    }

    fn follow(&mut self, to: &Path) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if to.is_absolute() {
            self.above.clear();
        }
        for part in parts(to).rev() {
            self.rest.push_front(part);
        }
        Ok(())
    }
}

fn create(here: impl AsFd, name: &OsStr, file: bool) -> Result<()> {
    let made = if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(here, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755))
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}
