//! A little room in a layer that its tenant cannot take, for the next mount: a VPS that has filled its disk is to start again, so that
//! somebody can delete files in it.
//!
//! overlayfs makes some files beside the layer when it is mounted. The reserve is given up for that, and made again afterwards, before
//! anything of the tenant's runs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files;

/// Files it consists of: as many inodes.
const FILES: usize = 16;
/// Bytes of each.
const SIZE: usize = 16 << 10;

fn place(layer: &Path) -> PathBuf {
    layer.join("reserve")
}

/// Makes what is missing of it, as far as there is room.
pub(super) fn keep(layer: &Path) {
    let fill = || -> Result<()> {
        let place = place(layer);
        files::create_dir_all(&place, 0o700)?;
        for n in 0..FILES {
            let file = place.join(n.to_string());
            if !files::exists(&file) {
                fs::write(&file, [1; SIZE]).inspect_err(|_| {
                    let _ = fs::remove_file(&file);
                })?;
            }
        }
        Ok(())
    };
    if let Err(e) = fill() {
        log::debug!("the reserve in `{}` is not whole: {e}", layer.display());
    }
}

/// Gives it up. Freed blocks can be had once they are free on the disk as well.
pub(super) fn give_up(layer: &Path) -> Result<()> {
    files::remove_tree(&place(layer))?;
    rustix::fs::syncfs(fs::File::open(layer)?)?;
    Ok(())
}
