//! Mounts that are attached nowhere, and attaching them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::error::{During, Error, Result};
use crate::sys::mount::{Attributes, attr, set_attributes};

/// A detached mount of `path` alone, without anything that is mounted below it.
pub(super) fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(CWD, path, flags).during(|| format!("open `{}`", path.display()))
}

/// Sends a detached mount's owners through the id map of `userns`, and gives it more `attributes`. `shown` names it in errors.
pub(super) fn map_owners(
    mount: &OwnedFd,
    userns: BorrowedFd<'_>,
    attributes: u64,
    shown: &Path,
) -> Result<()> {
    match set_private(mount, attributes | attr::IDMAP, Some(userns)) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Err(Error::unsupported(
            format!("a root disk on the filesystem of `{}`", shown.display()),
            "it cannot be idmapped; use ext4, xfs, btrfs or tmpfs (Linux 6.3), or set `storage.backend` to `copy` in condo.toml",
        )),
        other => other.during(|| format!("map the owners of `{}`", shown.display())),
    }
}

/// Gives a detached mount more `attributes`, and makes it private. `shown` names it in errors.
pub(super) fn attributed(mount: &OwnedFd, attributes: u64, shown: &Path) -> Result<()> {
    set_private(mount, attributes, None).during(|| format!("mount `{}`", shown.display()))
}

fn set_private(mount: &OwnedFd, set: u64, userns: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
    let change = Attributes {
        set,
        propagation: rustix::mount::MountPropagationFlags::PRIVATE.bits().into(),
        userns,
        ..Attributes::default()
    };
    set_attributes(mount.as_fd(), false, &change)
}

/// Whether the filesystem of `path`, and with `recursive` those below it, can send owners through the id map of `userns`.
pub fn can_map_owners(path: &Path, recursive: bool, userns: BorrowedFd<'_>) -> Result<bool> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, path, flags).during(|| format!("open `{}`", path.display()))?;
    let change = Attributes {
        set: attr::IDMAP,
        userns: Some(userns),
        ..Attributes::default()
    };
    match set_attributes(tree.as_fd(), recursive, &change) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(false),
        other => other
            .map(|()| true)
            .during(|| format!("map the owners of `{}`", path.display())),
    }
}

pub(super) fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, target, flags)?)
}
