//! A container among mounts that are not its own: its tree is mounted at the root filesystem's place, where others see it.

use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::mount::UnmountFlags;

use super::options::{Propagation, Sharing};
use super::plan::RootfsPlan;
use super::sources::open_root_dir;
use super::{MountsOf, Sources, mount};
use crate::error::{During, Result};

impl RootfsPlan {
    /// Mounts the root filesystem at its place, where the container is among the caller's mounts, and gives back the mount's id for
    /// [`uncover`]. What is mounted in it later stays below it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cover(&self, sources: &Sources) -> Result<Option<u64>> {
        match self.mounts_of {
            MountsOf::Caller => self.cover_with(sources).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn cover_with(&self, sources: &Sources) -> Result<u64> {
        let work = || -> Result<u64> {
            mount::attach(&sources.root, open_root_dir(&self.root)?)?;
            let alone = Propagation {
                sharing: Sharing::Private,
                recursive: true,
            };
            mount::propagate(&sources.root, alone)?;
            let found = statx(&sources.root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
            Ok(found.stx_mnt_id)
        };
        work().during(|| format!("mount root filesystem `{}`", self.root.display()))
    }
}

/// Takes the tree away that was mounted at a root filesystem's place with this id. One that is gone, or below another, is left alone.
///
/// # Errors
/// The kernel's.
pub fn uncover(root: &Path, id: u64) -> Result<()> {
    let work = || -> Result<()> {
        let top = open_root_dir(root)?;
        if statx(&top, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id == id {
            rustix::mount::unmount(root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        Ok(())
    };
    match work() {
        Err(e) if e.is_gone() => Ok(()),
        other => other.during(|| format!("unmount root filesystem `{}`", root.display())),
    }
}
