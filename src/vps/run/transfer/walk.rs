//! Reading a file, or a folder with all that is in it: by descriptors, and no link followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::Copied;
use super::file::{Content, Meta, Sink};
use super::side::{Side, Source, kind};
use crate::error::{During, Error, Result};

/// Folders in folders: each level has two files of ours open, of which there may be 1024.
const DEEPEST: u32 = 250;

/// How a file is opened that may be something else by now: without waiting for a pipe's other end or taking a terminal.
pub(super) const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// One copy.
pub(super) struct Walk<'g> {
    side: Side<'g>,
    sink: &'g mut dyn Sink,
    copied: Copied,
}

impl<'g> Walk<'g> {
    pub(super) fn new(side: Side<'g>, sink: &'g mut dyn Sink) -> Self {
        Self {
            side,
            sink,
            copied: Copied::default(),
        }
    }

    /// Copies what was found; `first` is its path where it arrives.
    pub(super) fn copy(mut self, source: &Source<'_>, first: &Path) -> Result<Copied> {
        let work = match &source.name {
            Some(name) => self.entry(&source.dir, name, first, DEEPEST),
            None => self.reopened(&source.dir, first),
        };
        work.during(|| format!("copy `{}`", source.shown().display()))?;
        Ok(self.copied)
    }

    /// A folder by a handle that does not do for reading.
    fn reopened(&mut self, dir: &OwnedFd, path: &Path) -> Result<()> {
        let dir = rustix::fs::openat(dir, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
        self.dir(&dir, path, DEEPEST)
    }

    fn entry(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path, deep: u32) -> Result<()> {
        let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = READ | OFlags::DIRECTORY;
                let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
                self.dir(&dir, path, deep)
            }
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let meta = Meta::of(&found, self.side.ids());
                self.sink
                    .link(path, &meta, Path::new(OsStr::from_bytes(target.as_bytes())))?;
                self.copied.files += 1;
                Ok(())
            }
            other => {
                self.copied.leave_out(path, &format!("is {}", kind(other)));
                Ok(())
            }
        }
    }

    fn dir(&mut self, dir: &OwnedFd, path: &Path, deep: u32) -> Result<()> {
        if !self.side.is_open_to(dir.as_fd())? {
            self.copied.leave_out(path, "is a filesystem of the kernel's");
            return Ok(());
        }
        let deeper = deep.checked_sub(1).ok_or_else(|| {
            let problem = format!("is more than {DEEPEST} folders deep; copy it as an archive made inside");
            Error::invalid("folder", path.display(), problem)
        })?;
        let ids = self.side.ids();
        let meta = Meta::of(&rustix::fs::fstat(dir)?, ids).with_attributes(dir.as_fd(), ids)?;
        self.sink.dir(path, &meta)?;
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let below = path.join(OsString::from_vec(name.to_vec()));
                let result = self.entry(dir, OsStr::from_bytes(name), &below, deeper);
                match result {
                    // Gone while we looked.
                    Err(e) if e.is_gone() && matches!(e, Error::Io(_)) => {}
                    other => other?,
                }
            }
        }
        self.sink.leave(path, &meta)?;
        self.copied.files += 1;
        Ok(())
    }

    fn file(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        let file = File::from(rustix::fs::openat(parent, name, READ, Mode::empty())?);
        let found = rustix::fs::fstat(&file)?;
        let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if !regular || !self.side.is_open_to(file.as_fd())? {
            self.copied.leave_out(path, "is no file");
            return Ok(());
        }
        let ids = self.side.ids();
        let meta = Meta::of(&found, ids).with_attributes(file.as_fd(), ids)?;
        self.copied.bytes += self
            .sink
            .file(path, &meta, Content::File(&file))
            .during(|| format!("copy `{}`", path.display()))?;
        self.copied.files += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::TOLD;
    use super::*;

    #[test]
    fn only_the_first_that_are_left_out_are_told() {
        let mut copied = Copied::default();
        for n in 0..TOLD + 5 {
            copied.leave_out(Path::new(&n.to_string()), "is a socket");
        }
        assert_eq!(copied.omitted, TOLD + 5);
        assert_eq!(copied.left_out.len() as u64, TOLD);
        assert_eq!(copied.left_out[0], "`0` is a socket");
    }
}
