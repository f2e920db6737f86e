//! One file of a root filesystem, from whatever source.

use std::path::PathBuf;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file; its content follows.
    File,
    /// A directory.
    Dir,
    /// A symbolic link and its text, which is never looked at.
    Symlink(PathBuf),
    /// Another name of a file that came earlier.
    Hardlink(PathBuf),
    /// A named pipe.
    Fifo,
    /// A block or character device.
    Device,
}

/// A file and its metadata.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Relative to the root, without `.` and `..`; empty for the root itself.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// Permission bits with set-user-ID and friends.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970; nothing keeps the time of writing.
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// A file of root's, written now.
    pub(super) fn new(path: impl Into<PathBuf>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: None,
            xattrs: Vec::new(),
        }
    }
}
