//! One file on its way from one side to the other.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use crate::error::Result;

/// What has no number inside is nobody's.
pub(super) const NOBODY: u32 = 65_534;

/// The user and group ids of a side: those of the host that are 0 and up there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    /// The host's number of its user 0.
    pub(super) base: u32,
    /// How many there are.
    pub(super) count: u32,
}

impl Ids {
    /// Those of the host itself.
    pub(super) const HOST: Self = Self {
        base: 0,
        count: u32::MAX,
    };

    /// The number inside of one of the host's.
    pub(super) fn inside(self, id: u32) -> u32 {
        let inside = id.checked_sub(self.base).filter(|id| *id < self.count);
        inside.unwrap_or(NOBODY)
    }

    /// The other way around.
    pub(super) fn outside(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.base + id)
    }
}

/// What is known of a file beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, with set-user-ID and friends.
    pub mode: u32,
    /// Its owner: of a VPS's file the number inside.
    pub uid: u32,
    /// Its group, likewise.
    pub gid: u32,
    /// Seconds since 1970 of its last change.
    pub mtime: i64,
    /// Bytes, of a regular file.
    pub size: u64,
    /// Extended attributes, of a regular file or a folder.
    #[serde(skip)]
    pub attributes: Attributes,
}

impl Meta {
    /// Of what is on a side.
    pub(super) fn of(found: &Stat, ids: Ids) -> Self {
        Self {
            mode: found.st_mode & 0o7777,
            uid: ids.inside(found.st_uid),
            gid: ids.inside(found.st_gid),
            mtime: found.st_mtime,
            size: u64::try_from(found.st_size).unwrap_or(0),
            attributes: Attributes::default(),
        }
    }

    /// The same with the attributes of the file, which is open.
    pub(super) fn with_attributes(self, file: BorrowedFd<'_>, ids: Ids) -> Result<Self> {
        let attributes = Attributes::of(file, ids)?;
        Ok(Self { attributes, ..self })
    }
}

/// The content of a regular file.
pub(super) enum Content<'a> {
    /// One that is open, and may have holes.
    File(&'a File),
    /// One that comes out of a stream.
    Stream(&'a mut dyn Read),
}

/// What takes files in, one after the other, every folder before what is in it.
pub(super) trait Sink {
    /// A folder.
    fn dir(&mut self, path: &Path, meta: &Meta) -> Result<()>;
    /// A folder whose content is complete.
    fn leave(&mut self, path: &Path, meta: &Meta) -> Result<()>;
    /// A regular file; returns its bytes.
    fn file(&mut self, path: &Path, meta: &Meta, content: Content<'_>) -> Result<u64>;
    /// A symbolic link with its text.
    fn link(&mut self, path: &Path, meta: &Meta, target: &Path) -> Result<()>;
}
