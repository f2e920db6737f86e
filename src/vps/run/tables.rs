//! Tables of the network, which no limit counts as memory.

use crate::cgroups::Cgroup;

/// Bounds what a VPS may make the kernel keep in them, in bytes. Where the kernel cannot, VPSs are started all the same, and
/// `condo doctor` says so.
pub(super) fn bound(cgroup: &Cgroup, bytes: u64) {
    if let Err(e) = cgroup.bound_tables(bytes) {
        log::info!("a VPS can make tables of the network as long as it likes: {e}");
    }
}
