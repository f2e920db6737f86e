//! A root disk out of layers: overlayfs over idmapped mounts.
//!
//! ```text
//! <lib>/images/…                    lower: one or several, shared, read-only
//! <lib>/vps/web/disk/               0700
//!   upper/                          what the VPS has changed
//!   work/                           overlayfs' own
//!   plain/docker/                   directories that are no overlay
//! ```
//! All layers are mounted through the VPS's id map, so what is on disk is owned by 0 and up, whatever range the VPS runs
//! with: an image serves all ranges unchanged, and a disk moves between ranges and hosts without a chown.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::usage;
use crate::error::{During, Error, Result};
use crate::files;
use crate::files::overlay::{self, UPPER, WORK};
use crate::sys::cred::FsIdentity;
use crate::sys::mount::{Attributes, attr, set_attributes};
use crate::undo::Undo;

const PLAIN: &str = "plain";

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
#[derive(Debug, Clone)]
pub struct RootDisk {
    /// The uppermost first.
    lowers: Vec<PathBuf>,
    dir: PathBuf,
}

impl RootDisk {
    /// The disk in `dir` on top of the layers of an image, the uppermost first.
    pub fn new(lowers: Vec<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            lowers,
            dir: dir.into(),
        }
    }

    /// Makes an empty disk. What a killed `create` left is taken up.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is a disk already.
    pub fn create(&self) -> Result<()> {
        let upper = self.dir.join(UPPER);
        if files::exists(&upper) {
            return Err(Error::Exists {
                kind: "disk",
                name: self.dir.display().to_string(),
            });
        }
        let top = self
            .lowers
            .first()
            .ok_or_else(|| Error::Corrupt("the image has no layer".into()))?;
        let lower =
            fs::symlink_metadata(top).during(|| format!("look at the image's root `{}`", top.display()))?;
        files::create_dir_all(&self.dir, 0o700)?;
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))
            .during(|| format!("close `{}` to others", self.dir.display()))?;
        files::create_dir_all(&self.dir.join(WORK), 0o700)?;
        // The upper root is the `/` of the VPS: its owner and mode are the image's. It comes into being in one step, last.
        let unfinished = self.dir.join("upper.tmp");
        files::remove_tree(&unfinished)?;
        let make = || -> Result<()> {
            fs::DirBuilder::new().mode(0o700).create(&unfinished)?;
            std::os::unix::fs::chown(&unfinished, Some(lower.uid()), Some(lower.gid()))?;
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(lower.mode() & 0o7777))?;
            fs::rename(&unfinished, &upper)?;
            Ok(())
        };
        make().during(|| format!("create `{}`", upper.display()))
    }

    /// Mounts the disk at `target`, owners translated by the user namespace `userns`.
    ///
    /// The caller has left the host's mount namespace (`unshare(CLONE_NEWNS)`) and made its mounts private: the layers are
    /// attached for a moment over the disk's folder, which nobody else shall see. The host's own mounts stay as they are.
    /// The caller also sees to it that a disk is mounted once: the kernel only logs it when two overlays share an upper layer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the filesystem of a layer cannot be idmapped or cannot be an overlay's upper layer.
    pub fn mount(&self, userns: BorrowedFd<'_>, target: &Path) -> Result<()> {
        let overlay = self.assemble(userns)?;
        attach(&overlay, target).during(|| format!("mount the root disk at `{}`", target.display()))
    }

    /// Mounts at `target` what the VPS stores beside its root: directories with these names, made when they are missing, in which
    /// another overlay may have its layers. Same conditions as [`RootDisk::mount`].
    pub fn mount_plain(&self, names: &[&str], userns: BorrowedFd<'_>, target: &Path) -> Result<()> {
        let plain = self.dir.join(PLAIN);
        for name in names {
            files::create_dir_all(&plain.join(name), 0o755)?;
        }
        let mount = layer(&plain, userns, attr::NODEV)?;
        attach(&mount, target).during(|| format!("mount `{}` at `{}`", plain.display(), target.display()))
    }

    /// The mounted disk as a descriptor, not attached anywhere yet. Same conditions as [`RootDisk::mount`].
    pub fn assemble(&self, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
        let lower = |dir: &PathBuf| layer(dir, userns, attr::RDONLY | attr::NODEV);
        let lowers = self.lowers.iter().map(lower).collect::<Result<Vec<_>>>()?;
        let disk = layer(&self.dir, userns, attr::NODEV)?;
        // Before Linux 6.15 overlayfs takes only layers that are mounted in this namespace. They are named by descriptor, so
        // that one place serves all and no path of the host shows in the tenant's mount table.
        let mut undo = Undo::new();
        for mount in lowers.iter().chain([&disk]) {
            attach(mount, &self.dir).during(|| format!("attach a layer at `{}`", self.dir.display()))?;
            undo.push(|| Ok(unmount(&self.dir, UnmountFlags::DETACH)?));
        }
        let overlay = self.join(&lowers, &disk)?;
        undo.run().during(|| "detach the layers")?;
        Ok(overlay)
    }

    fn join(&self, lowers: &[OwnedFd], disk: &OwnedFd) -> Result<OwnedFd> {
        // overlayfs works on its layers as whoever mounted it. Real root has no number in an idmapped layer (EOVERFLOW on the
        // first directory): be the VPS's root towards filesystems meanwhile, and keep all capabilities.
        let root = rustix::fs::fstat(disk)?;
        let _identity =
            FsIdentity::assume(root.st_uid, root.st_gid).during(|| "become the VPS's root for files")?;
        overlay::mount(lowers, Some(disk.as_fd()), &OPTIONS).during(|| {
            let lowers: Vec<_> = self.lowers.iter().map(|dir| dir.display().to_string()).collect();
            format!(
                "mount the disk `{}` over `{}`",
                self.dir.display(),
                lowers.join("`, `")
            )
        })
    }

    /// Removes what the VPS has stored. A disk that is gone already counts as removed.
    pub fn remove(&self) -> Result<()> {
        files::remove_tree(&self.dir)
    }

    /// Bytes on disk that the VPS takes up beyond its image.
    pub fn usage(&self) -> Result<u64> {
        let work = || -> Result<u64> {
            let plain = self.dir.join(PLAIN);
            let beside = if files::exists(&plain) {
                usage::of(&plain)?
            } else {
                0
            };
            Ok(usage::of(&self.dir.join(UPPER))? + beside)
        };
        work().during(|| format!("measure `{}`", self.dir.display()))
    }
}

/// A detached mount of `path` alone (nothing that is mounted below it), through the id map.
fn layer(path: &Path, userns: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, path, flags).during(|| format!("open `{}`", path.display()))?;
    let change = Attributes {
        set: attributes | attr::IDMAP,
        propagation: rustix::mount::MountPropagationFlags::PRIVATE.bits().into(),
        userns: Some(userns),
        ..Attributes::default()
    };
    match set_attributes(mount.as_fd(), false, &change) {
        Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Err(Error::unsupported(
            format!("a root disk on the filesystem of `{}`", path.display()),
            "it cannot be idmapped; use ext4, xfs, btrfs or tmpfs (Linux 6.3)",
        )),
        other => other.during(|| format!("map the owners of `{}`", path.display())),
    }?;
    Ok(mount)
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, target, flags)?)
}
