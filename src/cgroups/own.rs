//! The cgroup2 hierarchy where the host has not mounted it: it is there all the same, and the only one that takes a program which
//! guards a cgroup's kernel parameters and that can be delegated safely.
//!
//! Mounted beside the host's tree and not in it: what looks at `/sys/fs/cgroup` for the kind of host finds what it found before.

use std::path::Path;

use rustix::mount::MountFlags;

use crate::error::{During, Result};
use crate::files::{self, Lock};
use crate::host::{CgroupLayout, OWN_CGROUP2};

/// Mounts it on a host with v1 controllers alone. Returns whether the host is to be looked at again.
pub fn mount_cgroup2(layout: &CgroupLayout) -> Result<bool> {
    let dir = Path::new(OWN_CGROUP2);
    let is_known =
        || files::read_text(Path::new("/proc/filesystems")).is_ok_and(|all| all.contains("cgroup2"));
    if layout.unified().is_some() || !is_known() {
        return Ok(false);
    }
    files::create_dir_all(dir, 0o700)?;
    let _lock = Lock::wait(&dir.with_extension("lock"))?;
    // Another command was faster.
    if CgroupLayout::probe()?.unified().is_none() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("cgroup2", dir, "cgroup2", flags, None)
            .during(|| format!("mount cgroup2 at `{OWN_CGROUP2}`"))?;
    }
    Ok(true)
}
