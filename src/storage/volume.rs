//! Where a VPS's own layer lies, and how much fits into it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::btrfs::{self, Subvolume};
use super::device;
use super::disk_file::DiskFile;
use super::folder::Folder;
use super::project::{self, Project};
use crate::error::{Error, Result};

/// The ways there are to keep a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A directory of the host's file system, as large as that has room.
    #[default]
    Folder,
    /// A file system of its own in a sparse file; anywhere.
    File,
    /// A directory with a project quota: ext4 and XFS that are mounted with `prjquota`.
    Project,
    /// A subvolume of btrfs with a quota group.
    Btrfs,
    /// A directory with a copy of the image, whose files belong to the VPS's own ids; also where owners cannot be translated.
    Copy,
}

impl Backend {
    /// The word it is stored, set and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File => "file",
            Self::Project => "project",
            Self::Btrfs => "btrfs",
            Self::Copy => "copy",
        }
    }

    /// Whether a disk has all of its image in itself.
    pub fn is_whole(self) -> bool {
        self == Self::Copy
    }

    /// The best of those that hold a disk to a size and that `dir` offers.
    pub fn offered_at(dir: &Path) -> Self {
        if project::is_offered(dir) {
            Self::Project
        } else if btrfs::is_offered(dir) {
            Self::Btrfs
        } else {
            Self::File
        }
    }

    /// Refuses what the file system of `dir` does not offer.
    pub fn check_at(self, dir: &Path) -> Result<()> {
        let (offered, remedy) = match self {
            Self::Folder | Self::File | Self::Copy => return Ok(()),
            Self::Project => (
                project::is_offered(dir),
                "is not mounted with project quotas; for ext4: tune2fs -O project,quota, for both: mount with prjquota",
            ),
            Self::Btrfs => (btrfs::is_offered(dir), "is no btrfs"),
        };
        match offered {
            true => Ok(()),
            false => Err(Error::unsupported(
                format!("the storage back end `{self}`"),
                format!("the file system of `{}` {remedy}", dir.display()),
            )),
        }
    }

    /// The volume at `place`, a directory that is the volume's alone. Touches nothing.
    pub fn volume(self, place: impl Into<PathBuf>) -> Box<dyn Volume> {
        let place = place.into();
        match self {
            Self::Folder => Box::new(Folder::new(place)),
            Self::File => Box::new(DiskFile::new(place)),
            Self::Project => Box::new(Project::new(place)),
            Self::Btrfs => Box::new(Subvolume::new(place)),
            Self::Copy => Box::new(Folder::whole(place)),
        }
    }

    /// What keeps the volume at `place`, of which nothing else is known any more.
    pub fn found_at(place: &Path) -> Self {
        if DiskFile::is_at(place) {
            Self::File
        } else if Subvolume::is_at(place) {
            Self::Btrfs
        } else if Project::is_at(place) {
            Self::Project
        } else {
            Self::Folder
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
    /// Bytes that still fit, where that is less than the host's disk has, and known.
    pub free: Option<u64>,
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

    /// Makes an empty volume. One that is there already keeps what it holds, and is held to `quota` where that costs nothing.
    fn create(&self, quota: &Quota) -> Result<()>;

    /// The layer as a mount that is attached nowhere, whether the VPS runs or not: any process may have it, for `openat(2)` below
    /// it or to attach it. What it takes to keep it (a loop device) goes when the last such mount is closed.
    ///
    /// # Errors
    /// One with [`Error::is_gone`] where there is no volume.
    fn layer(&self) -> Result<OwnedFd>;

    /// Gives a volume another quota, while its VPS runs as well; what it does not name stays. One that is smaller than what it holds
    /// is refused.
    fn resize(&self, quota: &Quota) -> Result<()>;

    /// What it holds. With [`Volume::is_counted`] this takes no longer when it holds more.
    fn usage(&self) -> Result<Usage>;

    /// Whether the back end counts, instead of going through all files.
    fn is_counted(&self) -> bool;

    /// Whether it holds all of a disk, and not only what differs from an image (see [`Backend::Copy`]).
    fn is_whole(&self) -> bool {
        false
    }

    /// Whether a tenant may be given directories of it that are no overlay: nothing they can do there gets around the quota.
    fn is_safe_without_overlay(&self) -> bool {
        true
    }

    /// Whether it is copied in one step, which takes no longer when it holds more.
    fn is_copied_at_once(&self) -> bool {
        false
    }

    /// Makes a directory on the same file system that is what the layer is now; with [`Volume::is_copied_at_once`] alone.
    /// [`remove_copy`] removes it.
    fn copy_to(&self, to: &Path) -> Result<()> {
        Err(Error::unsupported(
            format!("a copy at once to `{}`", to.display()),
            "this back end copies files",
        ))
    }

    /// Makes the volume what `from` is, such a copy or the place of such a volume, and holds it to `quota`. Whether it is one.
    fn copy_from(&self, from: &Path, quota: &Quota) -> Result<bool> {
        let _ = (from, quota);
        Ok(false)
    }

    /// Removes the volume with all that it holds. One that is gone already counts as removed.
    fn remove(&self) -> Result<()>;

    /// The device number (major, minor) for which limits of input and output hold: the disk that the image is on as well. What goes
    /// through a loop device is charged there to whom it belongs (Linux 5.14).
    fn device(&self) -> Result<(u32, u32)> {
        let there = self.place().ancestors().find(|dir| dir.exists());
        device::whole_disk_of(there.unwrap_or(self.place()))
    }
}

/// Removes a copy of a layer, whatever it was made by, or what else is there.
pub fn remove_copy(place: &Path) -> Result<()> {
    Backend::found_at(place).volume(place).remove()
}

/// The quota that holds after `change`; one that is smaller than what is used already is refused.
pub(super) fn next_quota(change: &Quota, usage: &Usage) -> Result<Quota> {
    let refuse = |option, value: u64, used: u64| {
        let problem = format!("is less than the {used} in use: delete files inside first");
        Err(Error::invalid(option, value, problem))
    };
    match (change.size, change.inodes, usage.inodes) {
        (Some(size), ..) if size < usage.used => refuse("--disk", size, usage.used),
        (_, Some(inodes), Some(used)) if inodes < used => refuse("--inodes", inodes, used),
        _ => Ok(Quota {
            size: change.size.or(usage.quota.size),
            inodes: change.inodes.or(usage.quota.inodes),
        }),
    }
}
