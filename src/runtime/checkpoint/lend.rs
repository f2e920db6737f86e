//! Images for a container with a user namespace.
//!
//! The files belong to the host's root and are nobody else's to read. But CRIU reads some of them in processes that are root of the
//! container's user namespace only, first still by the host's user id and then by the container's. So their group may read them as
//! well, which is root's, and CRIU sees them through a mount of its own, on which that group is the container's root's.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{During, Error, Result};
use crate::namespaces::user::IdMap;
use crate::sys::mount::{Attributes, attr, set_attributes};

/// Lets the group `gid`, that of the container's root, read the images. Call it in CRIU's mount namespace.
///
/// On a filesystem that cannot translate owners nothing changes: the files may be readable by other means.
pub(super) fn to_group(images: &Path, gid: u32) -> Result<()> {
    if gid == 0 {
        return Ok(());
    }
    let work = || -> Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let cover = open_tree(CWD, images, flags)?;
        let same = [mapping(0, 0, u32::MAX)?];
        let swapped = [mapping(0, gid, 1)?, mapping(gid, 0, 1)?];
        let users = IdMap::from_mappings(&same, &swapped, "images")?.into_namespace()?;
        let attributes = Attributes {
            set: attr::IDMAP,
            userns: Some(users.as_fd()),
            ..Attributes::default()
        };
        match set_attributes(cover.as_fd(), false, &attributes) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                log::debug!(
                    "`{}` is on a filesystem that cannot translate owners",
                    images.display()
                );
                Ok(())
            }
            other => {
                other?;
                open_to_group(images)?;
                Ok(move_mount(
                    &cover,
                    "",
                    CWD,
                    images,
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )?)
            }
        }
    };
    work().during(|| format!("lend `{}` to the container's root", images.display()))
}

/// The directory and the files in it, as far as they are root's group's.
fn open_to_group(images: &Path) -> Result<()> {
    let allow = |path: &Path, more: u32| -> Result<()> {
        let found = fs::symlink_metadata(path)?;
        let mode = found.mode() & 0o7777;
        let plain = found.is_dir() || found.is_file();
        if plain && found.gid() == 0 && mode & more != more {
            fs::set_permissions(path, fs::Permissions::from_mode(mode | more))?;
        }
        Ok(())
    };
    allow(images, 0o050)?;
    for entry in fs::read_dir(images)? {
        allow(&entry?.path(), 0o040)?;
    }
    Ok(())
}

fn mapping(inside: u32, outside: u32, size: u32) -> Result<LinuxIdMapping> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(inside)
        .host_id(outside)
        .size(size);
    mapping.build().map_err(|e| Error::Corrupt(e.to_string()))
}
