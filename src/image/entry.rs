//! One file of a root filesystem, from whatever source.

use std::path::PathBuf;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows, of a sparse one the parts that are no holes.
    File(Option<Sparse>),
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

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// Its size in bytes, with the holes.
    pub size: u64,
    /// Offset and length of what lies between the holes, in order.
    pub parts: Vec<(u64, u64)>,
}

/// A file and its metadata.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the root, without `.` and `..`; empty for the root itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-user-ID and friends.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970; nothing keeps the time of writing.
    pub mtime: Option<i64>,
    /// Extended attributes, as they were found.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Bytes of content that follow.
    pub stored: u64,
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
            stored: 0,
        }
    }
}
