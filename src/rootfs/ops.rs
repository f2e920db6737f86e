//! The steps a plan consists of.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIdMapping;
use serde::Serialize;

use super::options::{Change, Propagation};

/// One step at one place of the tree; `mounts` of the spec become one each, a v1 cgroup mount several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MountOp {
    /// The entry of the spec it comes from: `mounts[3]`.
    pub field: String,
    /// Where, as seen from inside.
    pub target: PathBuf,
    /// What.
    pub action: Action,
}

/// What happens at the place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Action {
    /// Something of the host appears.
    Bind(Bind),
    /// A new instance of a filesystem appears.
    New(Filesystem),
    /// What is mounted there changes.
    Remount(Remount),
    /// A symbolic link (the second name of a v1 controller).
    Link(PathBuf),
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bind {
    /// The host's path, absolute; for one that lies in the container's root filesystem the path inside.
    pub source: PathBuf,
    /// With the mounts below it.
    pub recursive: bool,
    /// A source that is not there is left out rather than an error.
    pub optional: bool,
    /// Attributes of the mount.
    pub top: Change,
    /// Attributes of the mount and those below.
    pub tree: Change,
    /// Propagation, in order.
    pub propagation: Vec<Propagation>,
    /// Translation of owners.
    pub idmap: Option<IdMap>,
    /// Attributes that nobody asked for and that go if they can.
    pub unwanted: u64,
    /// The source is found when its turn comes, in the tree as it is then: earlier mounts may hold it.
    pub inside: bool,
}

/// Translation of a bind mount's owners.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdMap {
    /// Also for the mounts below.
    pub recursive: bool,
    /// User and group maps; without them those of the container's user namespace.
    pub maps: Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>,
}

/// A new filesystem instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filesystem {
    /// Its type: `tmpfs`.
    pub fstype: String,
    /// What it is made of: a block device, or any word.
    pub source: String,
    /// Options for the filesystem, `key` or `key=value`.
    pub data: Vec<String>,
    /// Attributes of the mount.
    pub attributes: u64,
    /// Becomes read-only when everything is in place, so that later mounts can be placed in it.
    pub seal: bool,
    /// What the image has at the place is copied into it.
    pub copy_up: bool,
    /// Propagation, in order.
    pub propagation: Vec<Propagation>,
    /// SELinux's label of its root, where it takes no option for one: there is one instance in an IPC namespace, made with it.
    pub label: Option<String>,
}

/// A change of what is mounted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remount {
    /// Options for the filesystem; `None` for `remount,bind`, which changes only this mount.
    pub superblock: Option<Vec<String>>,
    /// Attributes of the mount.
    pub top: Change,
    /// Attributes of the mount and those below.
    pub tree: Change,
    /// Propagation, in order.
    pub propagation: Vec<Propagation>,
}

impl MountOp {
    /// Whether `/dev` is the host's.
    pub(super) fn binds_dev(&self) -> bool {
        self.is_bind_at(Path::new("/dev"))
    }

    /// Whether something of the host's is put at `place`.
    pub(super) fn is_bind_at(&self, place: &Path) -> bool {
        self.target == place && matches!(self.action, Action::Bind(_))
    }
}
