//! Where paths lead: on the host, where they are the operator's, and in a VPS, where the tenant makes what they lead over.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::file::Ids;
use super::guest::{Guest, is_ordinary};
use super::rooted;
use crate::error::{During, Error, Result};
use crate::files::Root;
use crate::sys::cred::FsIdentity;

const DIR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// One side of a copy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side<'g> {
    Host,
    Guest(&'g Guest),
}

/// What is to be copied.
#[derive(Debug)]
pub(super) struct Source<'g> {
    pub(super) side: Side<'g>,
    /// The folder it is in and its name there; the folder itself without.
    pub(super) dir: OwnedFd,
    pub(super) name: Option<OsString>,
    /// What it is called where it arrives.
    called: PathBuf,
    /// Whether it is a folder of which only the content is copied.
    contents: bool,
    is_dir: bool,
    /// As it was named.
    shown: PathBuf,
}

/// Where a copy goes.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) dir: OwnedFd,
    /// The path of the first thing there; empty when it is the content of a folder.
    pub(super) first: PathBuf,
}

impl<'g> Side<'g> {
    /// The path as this side resolves it.
    fn path(self, path: &Path) -> PathBuf {
        match self {
            Side::Host => path.to_owned(),
            Side::Guest(_) => rooted(path),
        }
    }

    fn open(self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        match self {
            Side::Host => rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .during(|| format!("open `{}`", path.display())),
            Side::Guest(guest) => guest.get(path, flags),
        }
    }

    /// A folder, links followed.
    pub(super) fn dir(self, path: &Path) -> Result<OwnedFd> {
        let dir = self.open(&self.path(path), DIR)?;
        self.admit(dir.as_fd(), path)?;
        Ok(dir)
    }

    /// Follows a path to its end: folder, and name in it.
    fn follow(self, path: &Path) -> Result<(OwnedFd, OsString)> {
        match self {
            Side::Host => {
                let host = Root::open(Path::new("/"))?;
                let cwd = std::env::current_dir().during(|| "find the working directory")?;
                host.follow(&cwd.join(path))
            }
            Side::Guest(guest) => guest.follow(path),
        }
    }

    /// What is there, links followed; nothing where nothing is.
    fn look(self, path: &Path) -> Result<Option<Stat>> {
        match self.open(path, OFlags::PATH) {
            Err(e) if e.is_gone() => Ok(None),
            other => Ok(Some(rustix::fs::fstat(other?)?)),
        }
    }

    /// Refuses what is on a filesystem of the kernel's, where files are not what they seem.
    pub(super) fn admit(self, file: BorrowedFd<'_>, path: &Path) -> Result<()> {
        if self.is_open_to(file)? {
            return Ok(());
        }
        Err(Error::invalid(
            "path",
            path.display(),
            "is on a filesystem of the kernel's in the VPS, such as /proc; only files can be copied",
        ))
    }

    /// Whether files are copied from and to where this is.
    pub(super) fn is_open_to(self, file: BorrowedFd<'_>) -> Result<bool> {
        match self {
            Side::Host => Ok(true),
            Side::Guest(guest) => {
                guest.check()?;
                is_ordinary(file)
            }
        }
    }

    /// Who makes files here.
    pub(super) fn identity(self) -> Result<Option<FsIdentity>> {
        match self {
            Side::Host => Ok(None),
            Side::Guest(guest) => guest.identity().map(Some),
        }
    }

    /// The user ids here.
    pub(super) fn ids(self) -> Ids {
        match self {
            Side::Host => Ids::HOST,
            Side::Guest(guest) => guest.ids(),
        }
    }

    /// Finds what is to be copied.
    pub(super) fn source(self, named: &Path, follow: bool) -> Result<Source<'g>> {
        let path = self.path(named);
        let text = path.as_os_str().as_bytes();
        let contents = text.ends_with(b"/.") || text == b"." || text.ends_with(b"..");
        let called = path.file_name().map(PathBuf::from).unwrap_or_default();
        let source = |dir, name, is_dir| Source {
            side: self,
            dir,
            name,
            called,
            contents: contents && is_dir,
            is_dir,
            shown: named.to_owned(),
        };
        if contents || path.file_name().is_none() || text.ends_with(b"/") {
            return Ok(source(self.dir(&path)?, None, true));
        }
        let (dir, name) = match follow {
            true => self.follow(&path)?,
            false => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                let dir = self.open(parent.unwrap_or(Path::new(".")), DIR)?;
                (dir, path.file_name().unwrap_or_default().to_owned())
            }
        };
        self.admit(dir.as_fd(), named)?;
        let found = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            .during(|| format!("look at `{}`", named.display()))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile | FileType::Symlink => Ok(source(dir, Some(name), false)),
            FileType::Directory => Ok(source(dir, Some(name), true)),
            other => Err(Error::invalid(
                "path",
                named.display(),
                format!("is {}; only files, folders and links can be copied", kind(other)),
            )),
        }
    }

    /// Finds where a copy goes.
    pub(super) fn destination(self, named: &Path, source: &Source<'_>) -> Result<Destination> {
        let path = self.path(named);
        let is_dir = |found: &Stat| FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let (dir, first) = match self.look(&path)? {
            Some(found) if is_dir(&found) => {
                let first = if source.contents {
                    PathBuf::new()
                } else {
                    source.called.clone()
                };
                (self.dir(&path)?, first)
            }
            Some(_) if source.is_dir => {
                return Err(Error::invalid(
                    "destination",
                    named.display(),
                    "is no folder, and a folder is to be copied to it",
                ));
            }
            Some(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
                let what = kind(FileType::from_raw_mode(found.st_mode));
                let problem =
                    format!("is {what} and would be replaced; use `-` for a tar archive on standard output");
                return Err(Error::invalid("destination", named.display(), problem));
            }
            None if !source.is_dir && path.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(missing(&path));
            }
            _ => match self.follow(&path) {
                Err(e) if e.is_gone() => return Err(missing(path.parent().unwrap_or(&path))),
                other => {
                    let (dir, name) = other?;
                    (dir, PathBuf::from(name))
                }
            },
        };
        self.admit(dir.as_fd(), named)?;
        Ok(Destination { dir, first })
    }
}

impl Source<'_> {
    /// What it is called in an archive.
    pub(super) fn archived(&self) -> PathBuf {
        if self.contents {
            PathBuf::new()
        } else {
            self.called.clone()
        }
    }

    /// As it was named.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }
}

fn missing(path: &Path) -> Error {
    Error::NotFound {
        kind: "folder",
        name: path.display().to_string(),
    }
}

/// What a file is that is not copied.
pub(super) fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a named pipe",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "of an unknown kind",
    }
}
