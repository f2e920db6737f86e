//! What of the host shows in the tree: whoever saves a container's mounts to make them again elsewhere has to leave these out.

use std::path::Path;

use nix::mount::MsFlags;
use rustix::mount::{MoveMountFlags, move_mount};

use super::ops::{Action, Bind};
use super::plan::RootfsPlan;
use super::sources::{open_root, open_root_dir};
use crate::error::{During, Result};

impl RootfsPlan {
    /// The root filesystem on the host.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Mounts the root filesystem on its own place, which makes it the top of a mount, as CRIU wants it. To be called in a mount
    /// namespace of the caller's own, from which nothing gets back to the host.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid) for a path that has come to pass a symbolic link.
    pub fn cover_root(&self) -> Result<()> {
        let none = None::<&str>;
        nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .during(|| "cut mounts off from the host's")?;
        let shown = || format!("mount root filesystem `{}`", self.root.display());
        let tree = open_root(&self.root, self.inherited).during(shown)?;
        let place = open_root_dir(&self.root).during(shown)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &place, "", flags).during(shown)
    }

    /// Bind mounts of the host's: the place inside, and what appears there.
    pub fn binds(&self) -> impl Iterator<Item = (&Path, &Bind)> {
        self.mounts.iter().filter_map(|op| match &op.action {
            Action::Bind(bind) if !bind.inside => Some((op.target.as_path(), bind)),
            _ => None,
        })
    }

    /// Device nodes, which in a user namespace are the host's; the path inside is also that on the host.
    pub fn device_paths(&self) -> impl Iterator<Item = &Path> {
        self.devices.iter().map(|device| device.path.as_path())
    }

    /// Paths that are hidden: files behind the host's `/dev/null`.
    pub fn masked(&self) -> impl Iterator<Item = &Path> {
        self.masked.iter().map(|path| path.as_path())
    }
}
