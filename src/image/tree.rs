//! The one writer into a root filesystem: archives and recipes alike end up here.
//!
//! Everything is relative to descriptors inside the root: the directory of an entry is found with `openat2(RESOLVE_IN_ROOT)`,
//! the entry itself is made with the `*at` calls and never followed. A symbolic link that came earlier can therefore only
//! lead to another place of the same root (the class of CVE-2019-16884 and of the Incus image imports).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind};
use super::room::Room;
use super::tarball::Tarball;
use crate::error::{During, Error, Result};
use crate::files::{self, Root};

/// How a directory is opened to work in it.
const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// How it is opened itself.
const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What has been put into a tree.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Contents {
    /// Files of every kind.
    pub(super) files: u64,
    /// Content of regular files.
    pub(super) bytes: u64,
    /// The highest user or group number in use.
    pub(super) highest_id: u32,
    /// Device nodes that were left out.
    pub(super) devices: u64,
}

impl Contents {
    /// Adds what another layer has.
    pub(super) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.highest_id = self.highest_id.max(other.highest_id);
        self.devices += other.devices;
    }
}

/// A root filesystem being filled.
pub(super) struct Tree<'r> {
    root: &'r Root,
    contents: Contents,
    /// The directory of the last entry: archives go through a tree in order.
    last: Option<Last>,
    room: Room<'r>,
    /// Whether a file may take the place of a directory that is not empty.
    over: bool,
}

/// A directory that files are being put into.
struct Last {
    /// Nothing once a file on the way to it has been replaced.
    path: Option<PathBuf>,
    fd: Rc<OwnedFd>,
    /// Its time of writing before, which changes with every file.
    mtime: i64,
}

impl<'r> Tree<'r> {
    pub(super) fn new(root: &'r Root) -> Self {
        Self {
            root,
            contents: Contents::default(),
            last: None,
            room: Room::new(root.as_fd()),
            over: false,
        }
    }

    /// A tree that has something already, which is replaced.
    pub(super) fn over(root: &'r Root) -> Self {
        Self {
            over: true,
            ..Self::new(root)
        }
    }

    /// Puts everything an archive has.
    pub(super) fn fill(&mut self, tarball: &mut Tarball<impl Read>) -> Result<()> {
        while let Some(entry) = tarball.next()? {
            self.put(&entry, tarball)?;
        }
        Ok(())
    }

    /// Puts one file, replacing what has its name. `content` is read to its end for a regular file.
    pub(super) fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let done = if entry.path.as_os_str().is_empty() {
            self.put_root(entry)
        } else {
            self.put_below(entry, content)
        };
        done.during(|| format!("unpack `{}`", entry.path.display()))
    }

    /// Finishes the tree.
    pub(super) fn finish(mut self) -> Result<Contents> {
        self.leave()?;
        Ok(self.contents)
    }

    /// Goes out of the last directory, which gets its time back. At once, so that there is nothing to remember of an archive
    /// with millions of them.
    pub(super) fn leave(&mut self) -> Result<()> {
        match self.last.take() {
            None => Ok(()),
            Some(last) => set_mtime(&last.fd, last.mtime),
        }
    }

    fn put_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(Error::invalid(
                "archive entry",
                "/",
                "is the root and must be a directory",
            ));
        }
        self.leave()?;
        let root = self
            .root
            .get(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
        dress(root.as_fd(), entry)?;
        self.count(entry);
        Ok(())
    }

    fn put_below(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let attributes: usize = entry.xattrs.iter().map(|(_, value)| value.len()).sum();
        self.room.take(entry.stored + attributes as u64)?;
        let dir = self.dir_of(&entry.path)?;
        let name = entry.path.file_name().unwrap_or_default();
        match &entry.kind {
            Kind::Device => {
                self.contents.devices += 1;
                return Ok(());
            }
            Kind::File(None) => {
                let mut file = self.new_file(&dir, name)?;
                self.contents.bytes += io::copy(content, &mut file)?;
                dress(file.as_fd(), entry)?;
            }
            Kind::File(Some(sparse)) => {
                let mut file = self.new_file(&dir, name)?;
                self.contents.bytes += sparse.write(&mut file, content)?;
                dress(file.as_fd(), entry)?;
            }
            Kind::Dir => self.put_dir(&dir, name, entry)?,
            Kind::Hardlink(target) => self.put_hardlink(&dir, name, target)?,
            Kind::Symlink(target) => {
                self.make(&dir, name, || rustix::fs::symlinkat(target, &dir, name))?;
                dress_link(&dir, name, entry)?;
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode);
                self.make(&dir, name, || {
                    rustix::fs::mknodat(&dir, name, FileType::Fifo, mode, 0)
                })?;
                let fifo = rustix::fs::openat(
                    &dir,
                    name,
                    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                dress(fifo.as_fd(), entry)?;
            }
        }
        self.count(entry);
        Ok(())
    }

    fn count(&mut self, entry: &Entry) {
        self.contents.files += 1;
        self.contents.highest_id = self.contents.highest_id.max(entry.uid).max(entry.gid);
    }

    fn new_file(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o600);
        let file = self.make(dir, name, || rustix::fs::openat(dir, name, flags, private))?;
        Ok(File::from(file))
    }

    fn put_dir(&mut self, dir: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let open = || rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty());
        let made = match open() {
            Ok(there) => there,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.make(dir, name, || {
                    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))
                })?;
                open()?
            }
            Err(e) => return Err(e.into()),
        };
        dress(made.as_fd(), entry)
    }

    fn put_hardlink(&mut self, dir: &OwnedFd, name: &OsStr, target: &Path) -> Result<()> {
        let there = target.parent().unwrap_or(Path::new(""));
        let there = self
            .root
            .get(&Path::new(".").join(there), OFlags::PATH | OFlags::DIRECTORY)?;
        let target = target
            .file_name()
            .ok_or_else(|| Error::invalid("hard link", target.display(), "does not name a file"))?;
        // Without AT_SYMLINK_FOLLOW: a symbolic link is linked itself.
        self.make(dir, name, || {
            rustix::fs::linkat(&there, target, dir, name, AtFlags::empty())
        })
    }

    /// The directory of an entry, made when the archive did not.
    fn dir_of(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some(last) = &self.last
            && last.path.as_deref() == Some(parent)
        {
            return Ok(Rc::clone(&last.fd));
        }
        self.leave()?;
        let fd = match self.root.get(&Path::new(".").join(parent), DIR) {
            Err(e) if e.is_gone() => self.make_parents(parent)?,
            other => other?,
        };
        let fd = Rc::new(fd);
        self.last = Some(Last {
            path: Some(parent.to_owned()),
            mtime: rustix::fs::fstat(&*fd)?.st_mtime,
            fd: Rc::clone(&fd),
        });
        Ok(fd)
    }

    /// Makes a directory that the archive put files into without naming it, and those above it. New directories are no links, so
    /// from the first one on there is nothing to resolve.
    fn make_parents(&mut self, path: &Path) -> Result<OwnedFd> {
        for there in path.ancestors().skip(1) {
            let mut here = match self.root.get(&Path::new(".").join(there), DIR) {
                Err(e) if e.is_gone() => continue,
                other => other?,
            };
            let mtime = rustix::fs::fstat(&here)?.st_mtime;
            let top = rustix::fs::openat(&here, ".", OPEN_DIR, Mode::empty())?;
            for part in path.strip_prefix(there).unwrap_or(path) {
                self.room.take(0)?;
                rustix::fs::mkdirat(&here, part, Mode::RWXU)?;
                here = rustix::fs::openat(&here, part, OPEN_DIR, Mode::empty())?;
                // Whatever the umask is.
                rustix::fs::fchmod(&here, Mode::from_raw_mode(0o755))?;
            }
            rustix::fs::futimens(&top, &files::written_at(mtime))?;
            return Ok(here);
        }
        Err(Error::Corrupt("the root is gone".into()))
    }

    /// Makes a file; what had its name (archives may name a file twice) makes room.
    fn make<T>(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        // The old file may have been a directory, or a link to one, that `last` went through.
        if let Some(last) = &mut self.last {
            last.path = None;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) if self.over => files::remove_tree(&name_in(dir, name))?,
            Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?,
            other => other?,
        }
        Ok(make()?)
    }
}

/// Gives an open file its owner, mode, attributes and time; in this order, for a change of owner clears set-user-ID bits and
/// file capabilities.
fn dress(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    rustix::fs::fchown(
        file,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())
            .during(|| format!("set attribute `{name}`"))?;
    }
    if let Some(mtime) = entry.mtime {
        rustix::fs::futimens(file, &files::written_at(mtime))?;
    }
    Ok(())
}

fn dress_link(dir: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(
        dir,
        name,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
        flags,
    )?;
    if let Some(mtime) = entry.mtime {
        rustix::fs::utimensat(dir, name, &files::written_at(mtime), flags)?;
    }
    Ok(())
}

/// Which extended attributes an image may bring. Not `trusted.*`: `trusted.overlay.redirect` and its like would steer the
/// overlay mount of which the image is a layer. Not the labels of this host's security modules either.
pub(super) fn is_kept(name: &str) -> bool {
    let overlay = name.starts_with("user.overlay.");
    name == "security.capability"
        || name == "system.posix_acl_access"
        || name == "system.posix_acl_default"
        || (name.starts_with("user.") && !overlay)
}

/// Sets a directory's time of writing.
pub(super) fn set_mtime(dir: &OwnedFd, mtime: i64) -> Result<()> {
    // O_PATH does not do for futimens.
    let dir = rustix::fs::openat(dir, ".", OPEN_DIR, Mode::empty())?;
    Ok(rustix::fs::futimens(&dir, &files::written_at(mtime))?)
}

/// A path to a name in an open directory, for what takes paths; its last component is not followed there.
pub(super) fn name_in(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_steer_the_host_are_left_out() {
        for bad in [
            "trusted.overlay.redirect",
            "user.overlay.opaque",
            "security.selinux",
            "security.ima",
        ] {
            assert!(!is_kept(bad), "{bad}");
        }
        for good in ["security.capability", "user.mime", "system.posix_acl_default"] {
            assert!(is_kept(good), "{good}");
        }
    }
}
