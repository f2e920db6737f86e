//! One file of a root filesystem, from whatever source.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::error::Result;

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

impl Sparse {
    /// Writes the parts where they belong, and holes between them. The number of bytes written.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn write(&self, file: &mut File, content: &mut dyn Read) -> Result<u64> {
        let mut written = 0;
        for (offset, length) in &self.parts {
            file.seek(SeekFrom::Start(*offset))?;
            written += io::copy(&mut content.take(*length), file)?;
        }
        file.set_len(self.size)?;
        Ok(written)
    }
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
