//! A layer in a directory of the host's file system, without a limit of its own, or all of a disk.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::disk::PLAIN;
use super::volume::{Quota, Usage, Volume};
use super::{mount, usage};
use crate::error::{During, Error, Result};
use crate::files::{self, overlay::UPPER};

/// A directory.
#[derive(Debug)]
pub(super) struct Folder {
    place: PathBuf,
    is_whole: bool,
}

impl Folder {
    pub(super) fn new(place: PathBuf) -> Self {
        Self {
            place,
            is_whole: false,
        }
    }

    /// One for all of a disk.
    pub(super) fn whole(place: PathBuf) -> Self {
        Self {
            place,
            is_whole: true,
        }
    }
}

impl Volume for Folder {
    fn place(&self) -> &Path {
        &self.place
    }

    fn create(&self, quota: &Quota) -> Result<()> {
        refuse(quota)?;
        files::create_private(&self.place)
    }

    fn layer(&self) -> Result<OwnedFd> {
        mount::detached(&self.place)
    }

    fn resize(&self, quota: &Quota) -> Result<()> {
        refuse(quota)
    }

    fn usage(&self) -> Result<Usage> {
        let work = || -> Result<u64> {
            let mut bytes = 0;
            for part in [UPPER, PLAIN].map(|name| self.place.join(name)) {
                bytes += if files::exists(&part) {
                    usage::of(&part)?
                } else {
                    0
                };
            }
            Ok(bytes)
        };
        Ok(Usage {
            used: work().during(|| format!("measure `{}`", self.place.display()))?,
            ..Usage::default()
        })
    }

    fn is_counted(&self) -> bool {
        false
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn remove(&self) -> Result<()> {
        files::remove_tree(&self.place)
    }
}

fn refuse(quota: &Quota) -> Result<()> {
    if *quota == Quota::default() {
        return Ok(());
    }
    Err(Error::unsupported(
        "a limit of the disk's size",
        "this disk is a folder of the host's; the size is chosen when the VPS is created, by --disk",
    ))
}
