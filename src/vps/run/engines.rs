//! Where container engines inside of a VPS keep their layers: directories that lie beside its root disk and not on it, because
//! the root is an overlay, and no kernel takes an overlay for the upper layer of another.

use std::path::Path;

use rustix::fs::OFlags;

use crate::error::Result;
use crate::files::Root;

/// Of containerd, Podman and Docker. Their last parts differ: they name the directories.
const PLACES: [&str; 3] = ["/var/lib/containerd", "/var/lib/containers", "/var/lib/docker"];

/// The places that have nothing in them on the mounted root disk. What an image brings is not to be hidden.
pub(super) fn free(mounted: &Path) -> Result<Vec<&'static str>> {
    let root = Root::open(mounted)?;
    Ok(PLACES.into_iter().filter(|place| is_free(&root, place)).collect())
}

fn is_free(root: &Root, place: &str) -> bool {
    match root.get(Path::new(place), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(dir) => is_empty(&dir).unwrap_or(false),
        Err(e) => e.is_gone(),
    }
}

fn is_empty(dir: &std::os::fd::OwnedFd) -> Result<bool> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        if ![c".", c".."].contains(&entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directory's name for a place.
pub(super) fn name(place: &str) -> &str {
    place.rsplit('/').next().unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_brings_stays() {
        let top = std::env::temp_dir().join(format!("condo-engines-{}", std::process::id()));
        std::fs::create_dir_all(top.join("var/lib/docker/overlay2")).unwrap();
        std::fs::create_dir_all(top.join("var/lib/containers")).unwrap();
        let places = free(&top).unwrap();
        std::fs::remove_dir_all(&top).unwrap();
        assert_eq!(places, ["/var/lib/containerd", "/var/lib/containers"]);
    }
}
