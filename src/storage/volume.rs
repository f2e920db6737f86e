//! Where a VPS's own layer lies, and how much fits into it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::device;
use super::folder::Folder;
use crate::error::Result;

/// The ways there are to keep a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A directory of the host's file system, as large as that has room.
    #[default]
    Folder,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Folder];

    /// The word it is stored, set and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
        }
    }

    /// The volume at `place`, a directory that is the volume's alone. Touches nothing.
    pub fn volume(self, place: impl Into<PathBuf>) -> Box<dyn Volume> {
        match self {
            Self::Folder => Box::new(Folder::new(place.into())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a volume may hold; what is absent has no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes.
    pub size: Option<u64>,
    /// Files, directories and whatever else has an inode.
    pub inodes: Option<u64>,
}

/// How much a volume holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Inodes in use, where they are counted.
    pub inodes: Option<u64>,
    /// What holds now.
    pub quota: Quota,
}

/// A VPS's own layer: a directory with `upper/`, `work/` and `plain/` (see [`RootDisk`](super::RootDisk)), kept by a back end.
///
/// Whoever makes, changes or removes one holds the VPS's lock. Each of these functions may be killed at any point and called again:
/// it takes up what is half done.
pub trait Volume: fmt::Debug + Send {
    /// The directory that is the volume's alone: it holds the layer, or what the layer is made of.
    fn place(&self) -> &Path;

    /// Makes an empty volume. One that is there already is left as it is.
    fn create(&self, quota: &Quota) -> Result<()>;

    /// The layer as a mount that is attached nowhere, whether the VPS runs or not: any process may have it, for `openat(2)` below
    /// it or to attach it. What it takes to keep it (a loop device) goes when the last such mount is closed.
    ///
    /// # Errors
    /// One with [`Error::is_gone`](crate::error::Error::is_gone) where there is no volume.
    fn layer(&self) -> Result<OwnedFd>;

    /// Gives a volume another quota, while its VPS runs as well. One that would be smaller than what it holds is refused.
    fn resize(&self, quota: &Quota) -> Result<()>;

    /// What it holds. With [`Volume::is_counted`] this takes no longer when it holds more.
    fn usage(&self) -> Result<Usage>;

    /// Whether the back end counts, instead of going through all files.
    fn is_counted(&self) -> bool;

    /// Removes the volume with all that it holds. One that is gone already counts as removed.
    fn remove(&self) -> Result<()>;

    /// The device number (major, minor) for which limits of input and output hold.
    fn device(&self) -> Result<(u32, u32)> {
        let there = self.place().ancestors().find(|dir| dir.exists());
        device::whole_disk_of(there.unwrap_or(self.place()))
    }
}
