//! One file, folder or link of a VPS at a time, for those who ask for each by itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use super::file::{Content, Ids, Meta, Sink};
use super::guest::Guest;
use super::place::{Folder, Owners, copy};
use super::rooted;
use super::side::Side;
use super::walk::READ;
use crate::error::{Error, Result};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// Names of a folder that are told: a tenant can make millions.
const NAMES: usize = 100_000;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// A file, folder or link that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which of them.
    pub kind: Kind,
    /// What is known of it.
    pub meta: Meta,
    /// The names in a folder, sorted. What is no text is shown as well as it can be.
    pub names: Vec<String>,
    /// What the text of a link is.
    pub target: String,
}

/// A file, folder or link to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Which of them.
    pub kind: Kind,
    /// Its owner inside; root, if not given.
    pub uid: Option<u32>,
    /// Its group inside; root's, if not given.
    pub gid: Option<u32>,
    /// Its permission bits; 0644 or 0755, if not given.
    pub mode: Option<u32>,
    /// Written to the end of a file that is there.
    pub append: bool,
    /// The text of a link.
    pub target: String,
}

impl Condo {
    /// Looks at what is at a path inside; the content of a file is written to `to`. A link at its end is not followed.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is, [`Error::Invalid`] for what is neither file, folder nor link.
    pub fn file_read(&self, name: &Name, path: &Path, to: &mut File) -> Result<Seen> {
        let guest = self.guest(name)?;
        read(&guest, path, to).map_err(|e| explained(e, path))
    }

    /// Makes a file of `content`, a folder, or a link. What is there keeps its owner and mode: a file gets the new content, a folder
    /// stays. A link at the end of a file's path is followed; one that is there makes place for another.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the folder it shall be in is not there.
    pub fn file_write(&self, name: &Name, path: &Path, given: &Given, content: &mut File) -> Result<()> {
        let guest = self.guest(name)?;
        write(&guest, path, given, content).map_err(|e| explained(e, path))
    }

    /// Removes a file, a link, or a folder that is empty.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is.
    pub fn file_remove(&self, name: &Name, path: &Path) -> Result<()> {
        let guest = self.guest(name)?;
        remove(&guest, path).map_err(|e| explained(e, path))
    }
}

/// What the tree of a tenant makes of a path is no failure of ours.
fn explained(e: Error, path: &Path) -> Error {
    let Some(errno) = e.errno().map(Errno::from_raw_os_error) else {
        return e;
    };
    let shown = path.display();
    match errno {
        Errno::NOENT => Error::NotFound {
            kind: "file",
            name: shown.to_string(),
        },
        Errno::NOTEMPTY => Error::invalid(
            "path",
            shown,
            "is a folder that is not empty; remove what is in it first",
        ),
        Errno::NOTDIR => Error::invalid("path", shown, "leads through something that is no folder"),
        Errno::LOOP => Error::invalid("path", shown, "leads over too many links"),
        Errno::NAMETOOLONG => Error::invalid("path", shown, "is longer than a path may be"),
        Errno::NOSPC | Errno::DQUOT => {
            Error::invalid("path", shown, "has no room for this: the disk is full")
        }
        Errno::EXIST
        | Errno::ISDIR
        | Errno::ROFS
        | Errno::ACCESS
        | Errno::PERM
        | Errno::BUSY
        | Errno::INVAL
        | Errno::TXTBSY => Error::invalid("path", shown, format!("cannot be used so: {e}")),
        _ => e,
    }
}

/// The folder that the last part of a path is in, and that part; nothing for the root. Links before the last part are followed.
fn split(guest: &Guest, path: &Path) -> Result<Option<(OwnedFd, OsString)>> {
    let path = rooted(path);
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) || bytes.ends_with(b"..") {
        return Err(Error::invalid("path", path.display(), "does not end in a name"));
    }
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Ok(None);
    };
    Ok(Some((Side::Guest(guest).dir(parent)?, name.to_owned())))
}

fn look(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn read(guest: &Guest, path: &Path, to: &mut File) -> Result<Seen> {
    let Some((dir, name)) = split(guest, path)? else {
        return folder(guest, &Side::Guest(guest).dir(Path::new("/"))?, OsStr::new("."));
    };
    let found = look(dir.as_fd(), &name)?.ok_or(Errno::NOENT)?;
    let meta = Meta::of(&found, guest.ids());
    let mut seen = Seen {
        kind: Kind::File,
        meta,
        names: Vec::new(),
        target: String::new(),
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => return folder(guest, &dir, &name),
        FileType::Symlink => {
            seen.kind = Kind::Symlink;
            let target = rustix::fs::readlinkat(&dir, &name, Vec::new())?;
            seen.target = target.to_string_lossy().into_owned();
        }
        FileType::RegularFile => {
            let file = regular(guest, &dir, &name, READ, path)?;
            seen.meta = Meta::of(&rustix::fs::fstat(&file)?, guest.ids());
            copy(&file, to)?;
        }
        other => {
            let problem = format!(
                "is {}; only files, folders and links can be read",
                super::side::kind(other)
            );
            return Err(Error::invalid("path", path.display(), problem));
        }
    }
    Ok(seen)
}

fn folder(guest: &Guest, parent: &OwnedFd, called: &OsStr) -> Result<Seen> {
    let dir = rustix::fs::openat(parent, called, READ | OFlags::DIRECTORY, Mode::empty())?;
    Side::Guest(guest).admit(dir.as_fd(), Path::new(called))?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            names.push(name.to_string_lossy().into_owned());
        }
        if names.len() > NAMES {
            let problem = format!("holds more than {NAMES} files; list it inside");
            return Err(Error::invalid("path", called.display(), problem));
        }
    }
    names.sort_unstable();
    Ok(Seen {
        kind: Kind::Directory,
        meta: Meta::of(&rustix::fs::fstat(&dir)?, guest.ids()),
        names,
        target: String::new(),
    })
}

/// Opens what has to be a regular file of the VPS's. It may be something else by now.
fn regular(guest: &Guest, dir: &OwnedFd, name: &OsStr, flags: OFlags, path: &Path) -> Result<File> {
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let found = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Error::invalid("path", path.display(), "is no regular file"));
    }
    Side::Guest(guest).admit(file.as_fd(), path)?;
    Ok(file)
}

fn write(guest: &Guest, path: &Path, given: &Given, content: &mut File) -> Result<()> {
    let side = Side::Guest(guest);
    let Some((mut dir, mut name)) = split(guest, path)? else {
        // The root is there.
        return match given.kind {
            Kind::Directory => Ok(()),
            _ => Err(Error::invalid("path", path.display(), "is a folder")),
        };
    };
    if given.kind == Kind::File {
        (dir, name) = guest.follow(&rooted(path))?;
        side.admit(dir.as_fd(), path)?;
    }
    let there = look(dir.as_fd(), &name)?;
    let meta = given.meta(there.as_ref().filter(|_| given.kind == Kind::File), guest.ids());
    let inside = Path::new(&name);
    if given.append {
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let mut file = regular(guest, &dir, &name, flags, path)?;
        std::io::copy(content, &mut file)?;
        return Ok(());
    }
    refuse_other(there.as_ref(), given.kind, path)?;
    let mut folder = Folder::new(side, dir, Owners::Shifted(guest.ids()));
    match given.kind {
        Kind::File => folder.file(inside, &meta, Content::File(content)).map(drop),
        Kind::Directory => match folder.make_dir(inside)? {
            true => folder.leave(inside, &meta),
            false => Ok(()),
        },
        Kind::Symlink => folder.link(inside, &meta, Path::new(&given.target)),
    }
}

/// What is there and of another kind is not replaced.
fn refuse_other(there: Option<&Stat>, kind: Kind, path: &Path) -> Result<()> {
    let Some(there) = there else { return Ok(()) };
    let wanted = match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    };
    if FileType::from_raw_mode(there.st_mode) == wanted {
        return Ok(());
    }
    Err(Error::invalid(
        "path",
        path.display(),
        "is there and of another kind; remove it first",
    ))
}

impl Given {
    /// What it gets; of a file that is there, what that has.
    fn meta(&self, there: Option<&Stat>, ids: Ids) -> Meta {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mtime = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
        let usual = if self.kind == Kind::Directory {
            0o755
        } else {
            0o644
        };
        match there {
            Some(there) => Meta {
                mtime,
                ..Meta::of(there, ids)
            },
            None => Meta {
                mode: self.mode.unwrap_or(usual) & 0o7777,
                uid: self.uid.unwrap_or(0),
                gid: self.gid.unwrap_or(0),
                mtime,
                size: 0,
                attributes: Attributes::default(),
            },
        }
    }
}

fn remove(guest: &Guest, path: &Path) -> Result<()> {
    let Some((dir, name)) = split(guest, path)? else {
        return Err(Error::invalid("path", path.display(), "is the root of the VPS"));
    };
    let found = look(dir.as_fd(), &name)?.ok_or(Errno::NOENT)?;
    let flags = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    let _identity = Side::Guest(guest).identity()?;
    Ok(rustix::fs::unlinkat(&dir, &name, flags)?)
}
