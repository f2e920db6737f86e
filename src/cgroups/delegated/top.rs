//! The top of a cgroup2 tree that is not the machine's own, but that of a cgroup namespace: in a VPS.

use std::path::Path;

use rustix::io::Errno;

use super::super::dir::Dir;
use crate::error::{Error, Result};
use crate::files;
use crate::host::CgroupLayout;

/// Where the processes go that were at the top. systemd has a place for its own and leaves nobody there.
const LEAF: &str = "init";
/// How often is looked for more: a process that is born meanwhile is where its parent was.
const ROUNDS: usize = 100;

/// Moves the processes at the top into a cgroup of their own: only a cgroup without processes divides what it has among those below
/// (`cgroups(7)`, the rule of no internal processes). Inits that know nothing of cgroups leave all of theirs there.
///
/// # Errors
/// [`Error::Busy`] when there are always others.
pub fn clear(layout: &CgroupLayout) -> Result<()> {
    let CgroupLayout::Unified(mount) = layout else {
        return Ok(());
    };
    let top = Dir::open(mount.clone())?;
    // The machine's own top has no type, and may have processes.
    if !top.has("cgroup.type") || top.read("cgroup.controllers")?.trim().is_empty() {
        return Ok(());
    }
    for _ in 0..ROUNDS {
        let processes = top.read("cgroup.procs")?;
        if processes.trim().is_empty() {
            return Ok(());
        }
        move_all(&processes, &mount.join(LEAF))?;
    }
    Err(Error::Busy(format!("the cgroup `{}`", mount.display())))
}

fn move_all(processes: &str, to: &Path) -> Result<()> {
    files::create_dir_all(to, 0o755)?;
    let leaf = Dir::open(to.to_owned())?;
    for process in processes.lines() {
        match leaf.write("cgroup.procs", process) {
            // It has ended.
            Err(e) if e.errno() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}
