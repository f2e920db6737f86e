//! A root disk out of layers: overlayfs over idmapped mounts.
//!
//! ```text
//! <lib>/images/…                    lower: one or several, shared, read-only
//! the VPS's volume                  its own layer: a directory wherever its back end keeps it
//!   upper/                          what the VPS has changed
//!   work/                           overlayfs' own
//!   plain/docker/                   directories that are no overlay
//! ```
//! All layers are mounted through the VPS's id map, so what is on disk is owned by 0 and up, whatever range the VPS runs
//! with: an image serves all ranges unchanged, and a disk moves between ranges and hosts without a chown.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::mount::{attach, detached, map_owners};
use super::volume::Volume;
use super::{IdRange, Owners, copied, reserve};
use crate::error::{During, Error, Result};
use crate::files;
use crate::files::overlay::{self, UPPER, Upper, WORK};
use crate::sys::cred::FsIdentity;
use crate::sys::mount::attr;
use crate::undo::Undo;

pub(super) const PLAIN: &str = "plain";
/// Where files of a copy come into being.
const STAGE: &str = "stage";

/// How the layers are joined.
/// - `redirect_dir=on`: a tenant renames directories of the image like any other; without it `rename(2)` says `EXDEV`, which
///   only some programs cope with. The `trusted.overlay.*` attributes behind it are out of reach for a user namespace, and an
///   image cannot bring them (see `image`).
/// - `metacopy=off`: the upper layer holds whole files, so what a tenant owns does not depend on a file of the image.
/// - `index=off`: no origin file handles, so a disk may be copied to another filesystem and go on.
/// - `xino=auto`: inode numbers stay the same after a change, also when the layers are on two filesystems.
/// - not `volatile`: `fsync(2)` of a tenant means it. Not `userxattr`: the mount belongs to real root.
const OPTIONS: [(&str, &str); 4] = [
    ("redirect_dir", "on"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "auto"),
];

/// The disk a VPS has as its `/`.
#[derive(Debug)]
pub struct RootDisk {
    /// The uppermost first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) volume: Box<dyn Volume>,
}

impl RootDisk {
    /// The disk in a volume on top of the layers of an image, the uppermost first.
    pub fn new(lowers: Vec<PathBuf>, volume: Box<dyn Volume>) -> Self {
        Self { lowers, volume }
    }

    /// Makes an empty disk in the volume, which is there, for the VPS with these ids. What a killed `create` left is taken up.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is a disk already.
    pub fn create(&self, ids: IdRange) -> Result<()> {
        let layer = self.volume.layer()?;
        let dir = directory(&layer);
        let upper = dir.join(UPPER);
        if files::exists(&upper) {
            return Err(Error::Exists {
                kind: "disk",
                name: self.volume.place().display().to_string(),
            });
        }
        let top = self
            .lowers
            .first()
            .ok_or_else(|| Error::Corrupt("the image has no layer".into()))?;
        let lower =
            fs::symlink_metadata(top).during(|| format!("look at the image's root `{}`", top.display()))?;
        // The upper root is the `/` of the VPS: its owner and mode are the image's. It comes into being in one step, last.
        let unfinished = dir.join("upper.tmp");
        let make = || -> Result<()> {
            files::create_dir_all(&dir.join(WORK), 0o700)?;
            files::remove_tree(&unfinished)?;
            fs::DirBuilder::new().mode(0o700).create(&unfinished)?;
            std::os::unix::fs::chown(&unfinished, Some(lower.uid()), Some(lower.gid()))?;
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(lower.mode() & 0o7777))?;
            if self.volume.is_whole() {
                copied::make_plain(&dir, ids)?;
                self.copy_image(&unfinished, &dir.join(STAGE), ids)?;
            }
            fs::rename(&unfinished, &upper)?;
            Ok(())
        };
        make().during(|| format!("make a disk in `{}`", self.volume.place().display()))?;
        reserve::keep(&dir);
        Ok(())
    }

    /// Mounts the disk at `target`, with these owners.
    ///
    /// The caller has left the host's mount namespace (`unshare(CLONE_NEWNS)`) and made its mounts private: the layers are
    /// attached for a moment over the disk's folder, which nobody else shall see. The host's own mounts stay as they are.
    /// The caller also sees to it that a disk is mounted once: the kernel only logs it when two overlays share an upper layer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the filesystem of a layer cannot be idmapped or cannot be an overlay's upper layer.
    pub fn mount(&self, owners: Owners<'_>, target: &Path) -> Result<()> {
        let root = self.assemble(owners)?;
        attach(&root, target).during(|| format!("mount the root disk at `{}`", target.display()))
    }

    /// Mounts at `target` what the VPS stores beside its root: directories with these names, made when they are missing, in which
    /// another overlay may have its layers. Same conditions as [`RootDisk::mount`], which comes first.
    pub fn mount_plain(&self, names: &[&str], owners: Owners<'_>, target: &Path) -> Result<()> {
        if self.volume.is_whole() {
            return self.mount_copied_plain(names, owners, target);
        }
        let place = self.volume.place();
        let undo = attach_at(place, [&self.volume.layer()?])?;
        let plain = place.join(PLAIN);
        files::create_dir_all(&plain, 0o755)?;
        for name in names {
            files::create_dir_all(&plain.join(name), 0o755)?;
        }
        let mount = detached(&plain)?;
        undo.run().during(|| "detach the layer")?;
        map_owners(&mount, owners.userns, attr::NODEV, &plain)?;
        attach(&mount, target).during(|| format!("mount `{}` at `{}`", plain.display(), target.display()))
    }

    /// The mounted disk as a descriptor, not attached anywhere yet. Same conditions as [`RootDisk::mount`].
    pub fn assemble(&self, owners: Owners<'_>) -> Result<OwnedFd> {
        if self.volume.is_whole() {
            return self.copied(owners);
        }
        match self.put_together(owners.userns) {
            Err(e) if e.is_full() => {
                let layer = self.volume.layer()?;
                let dir = directory(&layer);
                reserve::give_up(&dir).during(|| "make room on a full disk")?;
                let again = self.put_together(owners.userns);
                reserve::keep(&dir);
                again
            }
            other => other,
        }
    }

    fn put_together(&self, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
        let lower = |dir: &PathBuf| -> Result<OwnedFd> {
            let mount = detached(dir)?;
            map_owners(&mount, userns, attr::RDONLY | attr::NODEV, dir)?;
            Ok(mount)
        };
        let lowers = self.lowers.iter().map(lower).collect::<Result<Vec<_>>>()?;
        let layer = self.volume.layer()?;
        map_owners(&layer, userns, attr::NODEV, self.volume.place())?;
        // Before Linux 6.15 overlayfs takes only layers that are mounted in this namespace. They are named by descriptor, so
        // that one place serves all and no path of the host shows in the tenant's mount table.
        let undo = attach_at(self.volume.place(), lowers.iter().chain([&layer]))?;
        let overlay = self.join(&lowers, &layer)?;
        undo.run().during(|| "detach the layers")?;
        // Where there is no room for its own directory, overlayfs says nothing and is read-only.
        let flags = rustix::fs::fstatvfs(&overlay)?.f_flag;
        if flags.contains(StatVfsMountFlags::RDONLY) {
            return Err(Errno::NOSPC)
                .during(|| format!("mount the disk `{}`", self.volume.place().display()));
        }
        Ok(overlay)
    }

    fn join(&self, lowers: &[OwnedFd], layer: &OwnedFd) -> Result<OwnedFd> {
        // overlayfs works on its layers as whoever mounted it. Real root has no number in an idmapped layer (EOVERFLOW on the
        // first directory): be the VPS's root towards filesystems meanwhile, and keep all capabilities.
        let root = rustix::fs::fstat(layer)?;
        let _identity =
            FsIdentity::assume(root.st_uid, root.st_gid).during(|| "become the VPS's root for files")?;
        overlay::mount(lowers, Some(Upper::of(layer.as_fd())), &OPTIONS).during(|| {
            let lowers: Vec<_> = self.lowers.iter().map(|dir| dir.display().to_string()).collect();
            format!(
                "mount the disk `{}` over `{}`",
                self.volume.place().display(),
                lowers.join("`, `")
            )
        })
    }
}

/// A path to what is mounted nowhere.
fn directory(layer: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", layer.as_raw_fd()))
}

/// Attaches mounts at one place, one over the other. What is returned takes them away again.
pub(super) fn attach_at<'a, 'm>(
    place: &'a Path,
    mounts: impl IntoIterator<Item = &'m OwnedFd>,
) -> Result<Undo<'a>> {
    let mut undo = Undo::new();
    for mount in mounts {
        attach(mount, place).during(|| format!("attach a layer at `{}`", place.display()))?;
        undo.push(move || Ok(unmount(place, UnmountFlags::DETACH)?));
    }
    Ok(undo)
}
