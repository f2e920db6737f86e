//! One file on its way from one side to the other.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Group and other numbers of a VPS: what has none inside is nobody's.
const NOBODY: u32 = 65_534;

/// What is known of a file beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Meta {
    /// Of what is on a side whose user 0 has this number on the host.
    pub(super) fn of(found: &Stat, base: u32, ids: u32) -> Self {
        let inside = |id: u32| {
            id.checked_sub(base)
                .filter(|id| base == 0 || *id < ids)
                .unwrap_or(NOBODY)
        };
        Self {
            mode: found.st_mode & 0o7777,
            uid: inside(found.st_uid),
            gid: inside(found.st_gid),
            mtime: found.st_mtime,
            size: u64::try_from(found.st_size).unwrap_or(0),
        }
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
