//! What both shapes of host, cgroup v2 and v1 with cgroup2 beside it, can do with a cgroup.

use std::fmt::Debug;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::below::Below;
use super::dir::Dir;
use super::stats::Stats;
use crate::error::{During, Error, Result};

/// How often the processes of a cgroup are counted and killed where the kernel cannot do it in one step, 10 ms apart.
const KILL_ROUNDS: u32 = 500;

/// One cgroup, in however many directories the host wants it.
pub(super) trait Hierarchy: Debug + Send + Sync {
    /// The directories by name: that of the controller, `unified` for cgroup2 beside v1, empty for cgroup2 alone.
    fn dirs(&self) -> Vec<(&str, &Dir)>;
    /// The directory with the files of a controller (v1: `blkio`, v2: `io`), enabled there.
    fn place(&self, controller: &str) -> Result<&Dir>;
    /// The cgroup2 directory.
    fn cgroup2(&self) -> Option<&Dir>;
    /// The directory that lists the processes.
    fn processes(&self) -> &Dir;
    /// The same cgroup's sub-cgroup, which must be there.
    fn below(&self, paths: &Below) -> Result<Box<dyn Hierarchy>>;
    /// Moves a process into every directory it was not born into.
    fn join(&self, pid: i32) -> Result<()>;
    /// Moves the calling process, which has one thread, into every directory it was not born into.
    fn enter(&self) -> Result<()>;
    /// Lets a user make sub-cgroups.
    fn delegate(&self, uid: u32, gid: u32) -> Result<()>;
    /// Stops (true) or continues (false) all processes, and waits until it is so.
    fn set_frozen(&self, frozen: bool) -> Result<()>;
    /// Whether all processes are stopped.
    fn is_frozen(&self) -> Result<bool>;
    /// Sends `SIGKILL` to all processes.
    fn kill(&self) -> Result<()>;
    /// Whether there are processes here or below.
    fn is_populated(&self) -> Result<bool>;
    /// Waits until there are none; `false` when there still are after `limit`.
    fn wait_empty(&self, limit: Duration) -> Result<bool>;
    /// How often the kernel ended a process because memory ran out.
    fn oom_kills(&self) -> Result<u64>;
    /// What has been used.
    fn stats(&self) -> Result<Stats>;
}

/// Kills the processes one by one, each round with all of them frozen, so that none forks away or hands its pid on.
pub(super) fn kill_each(cgroup: &dyn Hierarchy) -> Result<()> {
    for _ in 0..KILL_ROUNDS {
        // Nothing is born in an empty cgroup, and so there is nothing to stop first.
        if cgroup.processes().pids()?.is_empty() {
            return Ok(());
        }
        // A kernel without freezer is served by repetition.
        let _ = cgroup.set_frozen(true);
        let killed = kill_listed(cgroup.processes());
        let _ = cgroup.set_frozen(false);
        if killed? == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Busy(format!(
        "cgroup `{}` (its processes survive SIGKILL)",
        cgroup.processes().path.display()
    )))
}

fn kill_listed(dir: &Dir) -> Result<usize> {
    let pids = dir.pids()?;
    for pid in &pids {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Err(nix::errno::Errno::ESRCH) => {}
            other => other.during(|| format!("kill process `{pid}`"))?,
        }
    }
    Ok(pids.len())
}

/// The value of `key` in lines of `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}
