//! A root disk that is a copy of its image, whose files belong to the VPS's own ids: where no file system can be mounted through an id
//! map (in a VPS, on NFS or ZFS), and where nothing is an overlay.
//!
//! ```text
//! the VPS's volume
//!   upper/      all of its root
//!   plain/      as other disks have it; the directory's own owner tells whose ids all of both belongs to
//! ```
//! A copy of such a disk is as good: it is given to other ids when it is next mounted.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;

use super::disk::{PLAIN, RootDisk};
use super::mount::{attach, attributed, detached};
use super::tree::{Direction, Heirs, Sync, hand_over, open_dir};
use super::{IdRange, Owners};
use crate::error::{During, Error, Result};
use crate::files;
use crate::files::overlay::{self, UPPER};
use crate::sys::mount::attr;

impl RootDisk {
    /// Copies the image to the new directory `to`, by way of an empty directory beside it, for the VPS with these ids.
    pub(super) fn copy_image(&self, to: &Path, stage: &Path, ids: IdRange) -> Result<()> {
        let lowers = self.lowers.iter().map(|dir| files::open_dir(dir));
        let lowers = lowers.collect::<Result<Vec<_>>>()?;
        let image = match lowers.as_slice() {
            [only] => open_dir(only, ".")?,
            several => open_dir(overlay::mount(several, None, &[])?, ".")?,
        };
        files::remove_tree(stage)?;
        files::create_dir_all(stage, 0o700)?;
        let heirs = Heirs { from: 0, to: ids };
        let mut copying = Sync::new(Direction::Copy, open_dir(CWD, stage)?).owned_by(heirs);
        copying.run(image, open_dir(CWD, to)?, None)?;
        files::remove_tree(stage)
    }

    /// The root as a mount that is attached nowhere.
    pub(super) fn copied(&self, owners: Owners<'_>) -> Result<OwnedFd> {
        let place = self.volume.place();
        give(place, owners.range).during(|| format!("give the files in `{}` to the VPS", place.display()))?;
        let root = detached(&place.join(UPPER))?;
        attributed(&root, attr::NODEV, place)?;
        Ok(root)
    }

    /// Does [`RootDisk::mount_plain`], after the disk was mounted.
    pub(super) fn mount_copied_plain(&self, names: &[&str], owners: Owners<'_>, target: &Path) -> Result<()> {
        let plain = self.volume.place().join(PLAIN);
        let root = owners.range.base;
        for name in names {
            let dir = plain.join(name);
            files::create_dir_all(&dir, 0o755)?;
            // Ours: just made, or by a start that was killed. Its tenant may have given it to somebody.
            if fs::symlink_metadata(&dir)?.uid() == 0 {
                std::os::unix::fs::lchown(&dir, Some(root), Some(root))?;
            }
        }
        let mount = detached(&plain)?;
        attributed(&mount, attr::NODEV, &plain)?;
        attach(&mount, target).during(|| format!("mount `{}` at `{}`", plain.display(), target.display()))
    }
}

/// Makes the other part of a disk that is a copy, for the VPS with these ids.
pub(super) fn make_plain(layer: &Path, ids: IdRange) -> Result<()> {
    let plain = layer.join(PLAIN);
    files::create_dir_all(&plain, 0o755)?;
    let root = Some(ids.base);
    std::os::unix::fs::lchown(&plain, root, root).during(|| format!("give `{}` to the VPS", plain.display()))
}

/// Sees to it that both parts of a layer belong to these ids.
fn give(layer: &Path, to: IdRange) -> Result<()> {
    let plain = layer.join(PLAIN);
    files::create_dir_all(&plain, 0o755)?;
    let from = fs::symlink_metadata(&plain)?.uid();
    if from == to.base {
        return Ok(());
    }
    if from.abs_diff(to.base) < to.size {
        let why = format!(
            "they belong to the ids from {from} on, which overlap those from {} on that are free; delete another VPS, and try again",
            to.base
        );
        return Err(Error::unsupported("other owners for these files", why));
    }
    // In this order: the last is the one that tells.
    for part in [UPPER, PLAIN] {
        hand_over(open_dir(CWD, layer.join(part))?, from, to)?;
    }
    Ok(())
}
