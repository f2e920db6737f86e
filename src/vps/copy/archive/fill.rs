//! One tree of an archive, being filled: only with what it may have, and only below its top.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::SPECIAL;
use super::unpack::{Policy, io_error, refused};
use crate::error::{Error, Result};
use crate::image::{Entry, Kind, Sparse};
use crate::storage::tree::{Node, open_dir};

/// What stays free of the disk that is unpacked to: a twentieth, but no more than this many bytes.
const RESERVED: u64 = 1 << 30;
/// Bytes between two looks at what is free.
const LOOK: u64 = 64 << 20;

/// Extended attributes that mean the same on another host: what a tenant can have set, and how overlayfs marks a directory that
/// covers or was renamed. Not its file handles, and no labels of a host's security modules.
pub(super) fn is_portable(name: &str) -> bool {
    let overlay = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.impure",
    ];
    name == "security.capability"
        || name == "system.posix_acl_access"
        || name == "system.posix_acl_default"
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
        || overlay.contains(&name)
}

/// Whether an attribute of an archive may be set: a redirect leads to a place of the image, by names alone.
fn is_allowed(name: &str, value: &[u8], policy: Policy) -> bool {
    let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    let names = |path: &[u8]| path.split(|b| *b == b'/').all(plain);
    let path = value.strip_prefix(b"/");
    match name {
        "trusted.overlay.opaque" => policy == Policy::Layer && matches!(value, b"y" | b"x"),
        "trusted.overlay.impure" => policy == Policy::Layer && value == b"y",
        "trusted.overlay.redirect" => {
            let inside = path.map_or(!value.contains(&b'/') && plain(value), names);
            policy == Policy::Layer && inside && value.len() <= 4096 && !value.contains(&0)
        }
        other => is_portable(other),
    }
}

/// A tree being filled. It stands in one directory, and goes up and down by names.
pub(super) struct Tree<'t> {
    policy: Policy,
    here: OwnedFd,
    /// The names that led here, each with the time that its directory is to have at the end.
    names: Vec<(Vec<u8>, Option<Timestamps>)>,
    /// The time of the top.
    top: Option<Timestamps>,
    top_fd: &'t OwnedFd,
    base: Option<&'t OwnedFd>,
    /// Bytes until the next look at the disk.
    unseen: u64,
}

impl<'t> Tree<'t> {
    pub(super) fn new(policy: Policy, top: &'t OwnedFd, base: Option<&'t OwnedFd>) -> Result<Self> {
        Ok(Self {
            policy,
            here: top.try_clone()?,
            names: Vec::new(),
            top: None,
            top_fd: top,
            base,
            unseen: 0,
        })
    }

    pub(super) fn put(&mut self, entry: &Entry, content: &mut impl Read) -> Result<()> {
        let special = Special::of(entry)?;
        let mut written = entry.stored;
        for (name, value) in attributes(entry) {
            written += value.len() as u64;
            if !is_allowed(name, value, self.policy) {
                let problem = format!(
                    "has the attribute `{}`, which cannot be taken from elsewhere",
                    name.escape_debug()
                );
                return Err(refused(&entry.path, &problem));
            }
        }
        self.take_room(written)?;
        let Some(name) = entry.path.file_name() else {
            return self.put_top(entry, &special);
        };
        self.go(entry.path.parent().unwrap_or(Path::new("")))?;
        let name =
            CString::new(name.as_bytes()).map_err(|_| refused(&entry.path, "has a NUL in its name"))?;
        if entry.kind == Kind::Dir {
            self.make(|here| rustix::fs::mkdirat(here, &name, Mode::RWXU), entry)?;
            self.dress(&name, entry)?;
            self.down(name.to_bytes())?;
            let times = times(entry, &special);
            if let Some((_, time)) = self.names.last_mut() {
                *time = Some(times);
            }
            return Ok(());
        }
        self.put_file(&name, entry, &special, content)
    }

    fn put_top(&mut self, entry: &Entry, special: &Special) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(refused(&entry.path, "is the top and must be a directory"));
        }
        self.go(Path::new(""))?;
        self.top = Some(times(entry, special));
        self.dress(c".", entry)
    }

    fn put_file(
        &mut self,
        name: &CString,
        entry: &Entry,
        special: &Special,
        content: &mut impl Read,
    ) -> Result<()> {
        let private = Mode::RUSR | Mode::WUSR;
        match (&entry.kind, special.is) {
            (Kind::File(None), Is::Same) if entry.stored == 0 => return self.same(name, entry),
            (Kind::File(None), Is::Socket) if entry.stored == 0 => {
                self.make(
                    |here| rustix::fs::mknodat(here, name, FileType::Socket, private, 0),
                    entry,
                )?;
            }
            (Kind::File(sparse), Is::Plain) => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = self.make(|here| rustix::fs::openat(here, name, flags, private), entry)?;
                fill(File::from(file), entry, sparse.as_ref(), content)?;
            }
            (Kind::Symlink(target), Is::Plain) => {
                self.make(|here| rustix::fs::symlinkat(target, here, name), entry)?;
            }
            (Kind::Fifo, Is::Plain) => {
                self.make(
                    |here| rustix::fs::mknodat(here, name, FileType::Fifo, private, 0),
                    entry,
                )?;
            }
            (Kind::Device, Is::Whiteout) if self.policy == Policy::Layer => {
                let kind = FileType::CharacterDevice;
                self.make(|here| rustix::fs::mknodat(here, name, kind, private, 0), entry)?;
            }
            (Kind::Hardlink(target), Is::Plain) => return self.link(name, entry, target),
            _ => {
                return Err(refused(
                    &entry.path,
                    "is of a kind that cannot be taken from elsewhere",
                ));
            }
        }
        self.dress(name, entry)?;
        Ok(rustix::fs::utimensat(
            &self.here,
            name,
            &times(entry, special),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Another name of a file that came earlier.
    fn link(&mut self, name: &CString, entry: &Entry, target: &Path) -> Result<()> {
        let there = find(self.top_fd, target)?;
        let last = target.file_name().unwrap_or_default();
        if !is_file(&there, last)? {
            return Err(refused(&entry.path, "is a link to something that is no file"));
        }
        self.make(
            |here| rustix::fs::linkat(&there, last, here, name, AtFlags::empty()),
            entry,
        )
    }

    /// A file that is as it was in the older state.
    fn same(&mut self, name: &CString, entry: &Entry) -> Result<()> {
        let Some(base) = self.base else {
            return Err(refused(
                &entry.path,
                "is said to be as before, and there is nothing before",
            ));
        };
        let there = find(base, &entry.path)?;
        let last = entry.path.file_name().unwrap_or_default();
        if !is_file(&there, last)? {
            return Err(refused(&entry.path, "is said to be as before, and was no file"));
        }
        self.make(
            |here| rustix::fs::linkat(&there, last, here, name, AtFlags::empty()),
            entry,
        )
    }

    /// No archive of ours names a file twice.
    fn make<T>(&self, make: impl FnOnce(&OwnedFd) -> rustix::io::Result<T>, entry: &Entry) -> Result<T> {
        match make(&self.here) {
            Err(Errno::EXIST) => Err(refused(&entry.path, "comes twice")),
            other => Ok(other?),
        }
    }

    /// Owner, mode and attributes, in this order: a change of owner clears set-user-ID bits and file capabilities.
    fn dress(&self, name: &std::ffi::CStr, entry: &Entry) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&self.here, name, Some(uid), Some(gid), flags)?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            rustix::fs::chmodat(&self.here, name, mode, AtFlags::empty())?;
        }
        let node = Node::new(&self.here, name);
        attributes(entry).try_for_each(|(name, value)| {
            let key = CString::new(name).map_err(|_| refused(&entry.path, "has an attribute with a NUL"))?;
            node.set_attribute(&key, value)
        })
    }

    /// Goes to a directory, which an entry has made.
    fn go(&mut self, path: &Path) -> Result<()> {
        let wanted: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        let common = self
            .names
            .iter()
            .zip(&wanted)
            .take_while(|((name, _), wanted)| name == *wanted)
            .count();
        while self.names.len() > common {
            self.up()?;
        }
        for name in &wanted[common..] {
            self.down(name)?;
        }
        Ok(())
    }

    fn down(&mut self, name: &[u8]) -> Result<()> {
        self.here = open_dir(&self.here, OsStr::from_bytes(name))?;
        self.names.push((name.to_vec(), None));
        Ok(())
    }

    /// What is left has its time from then on.
    fn up(&mut self) -> Result<()> {
        if let Some((_, Some(times))) = self.names.pop() {
            rustix::fs::futimens(&self.here, &times)?;
        }
        self.here = open_dir(&self.here, "..")?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.go(Path::new(""))?;
        match &self.top {
            Some(times) => Ok(rustix::fs::futimens(&self.here, times)?),
            None => Ok(()),
        }
    }

    /// Some of the disk stays free: the host and its VPSs live on the same one.
    fn take_room(&mut self, bytes: u64) -> Result<()> {
        let bytes = bytes.saturating_add(4096);
        if self.unseen < bytes {
            let disk = rustix::fs::fstatvfs(&self.here)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let all = disk.f_blocks.saturating_mul(disk.f_frsize);
            let usable = free.saturating_sub((all / 20).min(RESERVED));
            if usable < bytes {
                return Err(Error::unsupported(
                    "an archive of this size",
                    "the disk has no room for it; remove snapshots, VPSs or images",
                ));
            }
            self.unseen = usable.min(LOOK.max(bytes));
        }
        self.unseen -= bytes;
        Ok(())
    }
}

fn is_file(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    let status = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::RegularFile)
}

/// The directory of a path, name by name: no link is followed.
fn find(top: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let mut here = top.as_fd().try_clone_to_owned()?;
    for name in path.parent().unwrap_or(Path::new("")) {
        here = open_dir(&here, name)?;
    }
    Ok(here)
}

fn attributes(entry: &Entry) -> impl Iterator<Item = (&str, &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .filter(|(name, _)| *name != SPECIAL)
}

/// What tar has no field for.
struct Special {
    nanoseconds: i64,
    is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Plain,
    Same,
    Socket,
    Whiteout,
}

impl Special {
    fn of(entry: &Entry) -> Result<Self> {
        let value = entry.xattrs.iter().find(|(name, _)| name == SPECIAL);
        let text = value
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
            .unwrap_or("0");
        let (number, word) = text.split_once(' ').unwrap_or((text, ""));
        let is = match word {
            "" => Is::Plain,
            "same" => Is::Same,
            "socket" => Is::Socket,
            "whiteout" => Is::Whiteout,
            _ => return Err(refused(&entry.path, "is of a kind that this condo does not know")),
        };
        let nanoseconds = number.parse().ok().filter(|n| (0..1_000_000_000).contains(n));
        Ok(Self {
            nanoseconds: nanoseconds.ok_or_else(|| refused(&entry.path, "has an impossible time"))?,
            is,
        })
    }
}

fn times(entry: &Entry, special: &Special) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.unwrap_or(0),
        tv_nsec: special.nanoseconds,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn fill(mut file: File, entry: &Entry, sparse: Option<&Sparse>, content: &mut impl Read) -> Result<()> {
    let whole = [(0, entry.stored)];
    let (size, parts) = sparse.map_or((entry.stored, whole.as_slice()), |s| (s.size, s.parts.as_slice()));
    for (offset, length) in parts {
        file.seek(SeekFrom::Start(*offset))?;
        io::copy(&mut content.take(*length), &mut file).map_err(io_error)?;
    }
    Ok(file.set_len(size)?)
}
