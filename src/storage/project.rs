//! A layer in a directory of an ext4 or XFS with quotas: its files belong to a project, and the file system holds that to its limits.
//!
//! What is made in the directory belongs to the project, and only the host's root can take it out of there (`ioctl_xfs_fsgetxattr(2)`: not
//! from a user namespace). `statfs(2)` in it tells of the project, so that `df` shows the VPS its own disk.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::mount;
use super::volume::{self, Quota, Usage, Volume};
use crate::error::{During, Error, Result};
use crate::files;
use crate::sys::quota;

/// Projects of volumes are numbered from here on: what people number by hand is small.
const FIRST: u32 = 0x4000_0000;
/// How many numbers are tried.
const TRIES: u32 = 1024;

/// A directory that is a project.
#[derive(Debug)]
pub(super) struct Project {
    place: PathBuf,
}

/// Whether the file system at `dir` holds projects to their quotas.
pub(super) fn is_offered(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| quota::is_enforced(dir.as_fd()))
}

impl Project {
    pub(super) fn new(place: PathBuf) -> Self {
        Self { place }
    }

    pub(super) fn is_at(place: &Path) -> bool {
        Self::new(place.into())
            .found()
            .is_ok_and(|(_, number)| number.is_some())
    }

    fn open(&self) -> Result<File> {
        File::open(&self.place).during(|| format!("open `{}`", self.place.display()))
    }

    /// The directory and the number of its project, if it is one of ours.
    fn found(&self) -> Result<(File, Option<u32>)> {
        let dir = self.open()?;
        let number = quota::project_of(dir.as_fd())
            .during(|| format!("look up the project of `{}`", self.place.display()))?;
        Ok((dir, number.filter(|number| *number >= FIRST)))
    }

    fn number(&self) -> Result<(File, u32)> {
        let (dir, number) = self.found()?;
        let none = || Error::Corrupt(format!("`{}` belongs to no project", self.place.display()));
        Ok((dir, number.ok_or_else(none)?))
    }

    /// A number that nothing on the file system has. The first one tried depends on the place, so that two volumes that are made at
    /// the same time do not try the same.
    fn free(&self, dir: &File) -> Result<u32> {
        let digest = Sha256::digest(self.place.as_os_str().as_bytes());
        let start = digest
            .iter()
            .take(4)
            .fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
        for step in 0..TRIES {
            let number = FIRST | start.wrapping_add(step) & (FIRST - 1);
            let account = quota::account(dir.as_fd(), number)?;
            if (account.bytes, account.inodes) == (0, 0) {
                return Ok(number);
            }
        }
        Err(Error::Busy("every project number tried".into()))
    }

    fn limit(dir: &File, number: u32, quota: &Quota) -> Result<()> {
        let (bytes, inodes) = (quota.size.unwrap_or(0), quota.inodes.unwrap_or(0));
        Ok(quota::limit(dir.as_fd(), number, bytes, inodes)?)
    }
}

impl Volume for Project {
    fn place(&self) -> &Path {
        &self.place
    }

    fn create(&self, quota: &Quota) -> Result<()> {
        files::create_private(&self.place)?;
        let make = || -> Result<()> {
            let (dir, number) = self.found()?;
            let number = match number {
                Some(number) => number,
                None => {
                    let number = self.free(&dir)?;
                    quota::set_project(dir.as_fd(), number)?;
                    number
                }
            };
            Self::limit(&dir, number, quota)
        };
        make().during(|| format!("set the quota of `{}`", self.place.display()))
    }

    fn layer(&self) -> Result<OwnedFd> {
        mount::detached(&self.place)
    }

    fn resize(&self, quota: &Quota) -> Result<()> {
        let quota = volume::next_quota(quota, &self.usage()?)?;
        let (dir, number) = self.number()?;
        Self::limit(&dir, number, &quota).during(|| format!("set the quota of `{}`", self.place.display()))
    }

    fn usage(&self) -> Result<Usage> {
        let (dir, number) = self.number()?;
        let account = quota::account(dir.as_fd(), number)
            .during(|| format!("ask for the quota of `{}`", self.place.display()))?;
        let limit = |value| Some(value).filter(|value| *value > 0);
        Ok(Usage {
            used: account.bytes,
            free: limit(account.bytes_limit).map(|most| most.saturating_sub(account.bytes)),
            inodes: Some(account.inodes),
            quota: Quota {
                size: limit(account.bytes_limit),
                inodes: limit(account.inodes_limit),
            },
        })
    }

    fn is_counted(&self) -> bool {
        true
    }

    fn remove(&self) -> Result<()> {
        let found = match self.found() {
            Err(e) if e.is_gone() => return Ok(()),
            other => other?,
        };
        files::remove_tree(&self.place)?;
        match found {
            // The file system forgets a project without limits and files.
            (dir, Some(number)) => quota::limit(dir.as_fd(), number, 0, 0)
                .during(|| format!("lift the quota of project {number}")),
            (_, None) => Ok(()),
        }
    }
}
