//! The host's mounts go where its root has to stay, below a root entered by `chroot(2)`.
//!
//! A procfs or sysfs that stays mounted without covers, anywhere in the mount namespace, lets a process in a user namespace of its
//! own mount another without covers (`mnt_already_visible` of the kernel): so none may be left, also not one below another.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::mount::UnmountFlags;

use super::{masks, mount};
use crate::error::{During, Result};
use crate::files::mountinfo::{self, Mounted};

/// Detaches all mounts below the process's root but the tree of `keep`, which is mounted there too. Those that a user namespace
/// has locked cannot go one by one: the procfs and sysfs among them are covered instead.
pub(super) fn strip(keep: impl AsFd) -> Result<()> {
    let mut table = Table::open()?;
    let (root, keep) = (id(CWD, "/")?, id(keep, "")?);
    loop {
        let mounts = table.read()?;
        // With each goes all that is mounted below it.
        let below = mounts.iter().filter(|m| m.parent == root && m.id != keep);
        let mut gone = 0;
        let mut left = 0;
        for mount in below.rev() {
            match rustix::mount::unmount(&mount.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => gone += 1,
                // Locked, or below another one that has to go first.
                Err(_) => left += 1,
            }
        }
        match (left, gone) {
            (0, 0) => return Ok(()),
            (_, 0) => return cover(&mounts, keep),
            _ => {}
        }
    }
}

/// The mount's id.
fn id(at: impl AsFd, path: &str) -> Result<u64> {
    let found = statx(at, path, AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

/// Covers what shows the kernel. The place of one that is below another mount is out of reach for everybody.
fn cover(mounts: &[Mounted], keep: u64) -> Result<()> {
    let bare = |m: &&Mounted| matches!(m.kind.as_str(), "proc" | "sysfs") && m.root == Path::new("/");
    for mount in mounts.iter().filter(bare).filter(|m| !is_within(m, keep, mounts)) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(place) = rustix::fs::open(&mount.point, flags, Mode::empty()) else {
            continue;
        };
        mount::attach(mount::create(&masks::nothing(None))?, place)
            .during(|| format!("cover the host's `{}`", mount.point.display()))?;
    }
    Ok(())
}

/// Whether a mount is part of the tree that begins at the mount `top`.
fn is_within(mount: &Mounted, top: u64, mounts: &[Mounted]) -> bool {
    let mut id = mount.id;
    while id != top {
        match mounts.iter().find(|m| m.id == id) {
            // The root of all may name itself or one that is not shown.
            Some(m) if m.parent != id => id = m.parent,
            _ => return false,
        }
    }
    true
}

/// The mount table, which can still be read when `/proc` is gone.
struct Table(File);

impl Table {
    fn open() -> Result<Self> {
        File::open("/proc/self/mountinfo")
            .map(Self)
            .during(|| "open `/proc/self/mountinfo`")
    }

    fn read(&mut self) -> Result<Vec<Mounted>> {
        let mut text = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut text)?;
        Ok(mountinfo::parse(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_told_from_what_is_beside_it() {
        let mounts = mountinfo::parse(
            b"1 1 0:1 / / rw - rootfs none rw\n\
            2 1 0:2 / /proc rw - proc proc rw\n\
            3 1 0:3 / / rw - overlay overlay rw\n\
            4 3 0:4 / /proc rw - proc proc rw\n\
            5 4 0:5 / /proc/x rw - tmpfs tmpfs rw\n\
            6 99 0:6 / /y rw - sysfs sysfs rw\n",
        );
        let within: Vec<u64> = mounts
            .iter()
            .filter(|m| is_within(m, 3, &mounts))
            .map(|m| m.id)
            .collect();
        assert_eq!(within, [3, 4, 5]);
    }
}
