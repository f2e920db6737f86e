//! What of the host shows in the tree: whoever saves a container's mounts to make them again elsewhere has to leave these out.

use std::path::Path;

use super::ops::{Action, Bind};
use super::plan::RootfsPlan;

impl RootfsPlan {
    /// The root filesystem on the host.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bind mounts: the place inside, and what appears there.
    pub fn binds(&self) -> impl Iterator<Item = (&Path, &Bind)> {
        self.mounts.iter().filter_map(|op| match &op.action {
            Action::Bind(bind) => Some((op.target.as_path(), bind)),
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
