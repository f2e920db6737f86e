//! The container's mount tree: a pure [`RootfsPlan`], and its execution shared between the parent, which opens everything
//! that lies on the host ([`Sources`]), and init, which assembles and enters the tree ([`assemble()`], [`Assembled::enter`]).
//!
//! Nothing below the container's root is ever reached by path: places are opened with `openat2(RESOLVE_IN_ROOT)` or walked
//! one component at a time, and mounts are descriptors (`open_tree`, `fsopen`) moved onto descriptors, so a symbolic link in
//! the image, or one swapped in while we look, cannot lead to the host (CVE-2021-30465, CVE-2024-45310, CVE-2025-31133).
//!
//! # Order
//! 1. parent: [`RootfsPlan::open_sources`], before the clone. The container's cgroup must exist if it is shown without a
//!    cgroup namespace. A caller without `CAP_SYS_ADMIN` lets init do it right before step 3, as root of its user namespace.
//! 2. parent: [`Sources::idmap`], when the id maps of the container's user namespace are written.
//! 3. init: [`assemble()`], root in its user namespace and inside all its namespaces, the cgroup namespace included, because
//!    procfs, sysfs, mqueue and cgroup filesystems show the namespaces of whoever creates them.
//! 4. init: [`Assembled::open_ptmx`], [`Assembled::attach_console`].
//! 5. init: [`Assembled::enter`].

mod assemble;
mod cgroup;
mod checks;
mod console;
mod copyup;
mod cover;
mod devices;
mod entry;
mod foreign;
mod magic;
mod masks;
mod mount;
mod ops;
pub mod options;
mod parameters;
mod pivot;
mod place;
mod plan;
mod sources;
mod strip;

use crate::host::Host;

pub use assemble::{Assembled, Translate, assemble};
pub use console::{open_container_ptmx, open_peer};
pub use cover::uncover;
pub use devices::Device;
pub use ops::{Action, Bind, Filesystem, IdMap, MountOp, Remount};
pub use plan::RootfsPlan;
pub use sources::{Sources, UsernsFor};

/// Whose mounts the container's are among.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub enum MountsOf {
    /// Its own namespace's, made with it.
    #[default]
    Container,
    /// Those of a namespace that it joins. They end with that namespace.
    Joined,
    /// The caller's: until [`uncover`].
    Caller,
}

/// What besides the spec decides the shape of the tree.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The container has a user namespace of its own.
    pub userns: bool,
    /// The container has a cgroup namespace of its own.
    pub cgroupns: bool,
    /// The container's network namespace is not the caller's.
    pub netns: bool,
    /// The container's cgroup, the same in every hierarchy, as a path from the hierarchy's root. Without one the container
    /// is in its caller's, which it may see in a cgroup namespace but never change.
    pub cgroup_path: Option<&'a str>,
    /// Whose mount namespace the tree is put together in.
    pub mounts: MountsOf,
    /// Enter by `chroot` because the host's root cannot be pivoted (an initramfs).
    pub no_pivot: bool,
}

impl Facts<'_> {
    /// Whether init works inside a user namespace, its own or the caller's: no `mknod`, no new sysfs of the host's network, and
    /// mounts never propagate to the host.
    fn confined(&self) -> bool {
        self.userns || !self.host.caller.privileged
    }
}
