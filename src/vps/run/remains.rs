//! What is left where something went wrong: VPSs whose record was lost, and runs whose end nobody saw.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::monitor;
use super::power::{MONITOR, wait_for_end};
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::files;
use crate::storage::Backend;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::{ExitReason, LastExit, Record};
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::network;

/// How long a monitor may take to end that has cleared up.
const LAST_STEP: Duration = Duration::from_secs(1);

impl Condo {
    /// VPSs that have a disk or a container, and no record.
    pub fn remains(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for dir in [self.folders.all(), self.folders.runtime()] {
            let entries = match std::fs::read_dir(&dir) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.during(|| format!("read `{}`", dir.display()))?,
            };
            let found = entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<Name>().ok());
            names.extend(found);
        }
        names.sort();
        names.dedup();
        names.retain(|name| self.has_remains(name) && self.store.get(name).is_err_and(|e| e.is_gone()));
        Ok(names)
    }

    /// Whether there is a disk or a container of this name.
    pub(super) fn has_remains(&self, name: &Name) -> bool {
        files::exists(&self.folders.disk(name)) || self.container(name).is_ok_and(|c| c.is_some())
    }

    /// A new VPS must not come into the disk or the container of one whose record was lost.
    pub(super) fn refuse_remains(&self, name: &Name) -> Result<()> {
        match self.store.get(name) {
            Err(e) if e.is_gone() && self.has_remains(name) => Err(Error::Status(format!(
                "there are remains of a VPS `{name}` that has no record any more; remove them: `condo delete --force {name}`"
            ))),
            _ => Ok(()),
        }
    }

    /// Removes what is there of a VPS whose record was lost. Its network goes with its processes.
    pub(super) fn delete_remains(&self, name: &Name) -> Result<()> {
        let _lock = self.lock(name)?;
        let monitor = self.monitor(name).and_then(|monitor| monitor.open());
        self.free_container(name, None)?;
        if let Some(monitor) = monitor {
            // It finds no record either, and ends; its cgroup is the last to go.
            wait_for_end(&monitor, MONITOR)?;
            self.tidy_cgroups();
        }
        files::remove_tree(&self.folders.run_of(name))?;
        let place = self.folders.disk(name);
        Backend::found_at(&place).volume(place).remove()?;
        self.remove_snapshots(name)?;
        files::remove_tree(&self.folders.vps(name))?;
        self.release_all_uids(name)?;
        self.forget(name)
    }

    /// What VPSs share goes with the last one. A monitor that takes down its VPS is still there itself: then the command that waits for
    /// it does it, or the next.
    pub(super) fn tidy_cgroups(&self) {
        if let Ok(monitors) = Cgroup::open(&self.host.cgroups, &monitor::cgroup(self)) {
            if !monitors.is_ours() && !network::any_runs(self) {
                // A monitor's last step is to remove its run directory. Then it ends.
                let _ = monitors.wait_empty(LAST_STEP);
            }
            monitors.remove_if_empty();
        }
        if let Ok(all) = Cgroup::open(&self.host.cgroups, &self.folders.cgroup_parent()) {
            all.remove_if_empty();
        }
    }

    /// Says that whoever works with condo kills the VPS, for the record of its end. That is worth no failure.
    pub(super) fn set_killed(&self, name: &Name) {
        if let Err(e) = files::write_atomic(&self.killed(name), b"", 0o600) {
            log::debug!("{e}");
        }
    }

    fn killed(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("killed")
    }

    /// Whether condo itself killed the VPS, or was about to.
    pub(super) fn is_killed(&self, name: &Name) -> bool {
        self.is_stopping(name) || files::exists(&self.killed(name))
    }

    /// Says that a VPS runs, in a place that outlives the host's power.
    pub(super) fn set_running(&self, name: &Name) -> Result<()> {
        files::write_atomic(&self.folders.running(name), b"", 0o600)
    }

    /// Takes that back.
    pub(super) fn clear_running(&self, name: &Name) -> Result<()> {
        files::remove_file(&self.folders.running(name))
    }

    /// Whether the monitor of a VPS is there.
    pub(in crate::vps) fn is_watched(&self, name: &Name) -> bool {
        self.monitor(name).is_some_and(|monitor| monitor.is_alive())
    }

    /// Whether a run of a VPS has left something and nobody clears it away. The caller holds the lock.
    pub(in crate::vps) fn is_left_running(&self, record: &Record) -> Result<bool> {
        let name = &record.name;
        let is_there = files::exists(&self.folders.run_of(name))
            || files::exists(&self.folders.running(name))
            || self.container(name)?.is_some();
        Ok(is_there && !self.is_watched(name) && self.status(name)? == VpsStatus::Stopped)
    }

    /// The end of a run that nobody saw: the host lost its power, or VPS and monitor went away together.
    pub(in crate::vps) fn unseen_end(&self, record: &Record, status: VpsStatus) -> Option<LastExit> {
        let started = std::fs::symlink_metadata(self.folders.running(&record.name))
            .and_then(|status| status.modified())
            .ok()?;
        if status != VpsStatus::Stopped || self.is_watched(&record.name) {
            return None;
        }
        // Not before its start, and when the host went away not after that came back.
        let at = boot_time().unwrap_or(started).max(started);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(LastExit {
            reason: ExitReason::Unknown,
            status: None,
            signal: None,
            at: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        })
    }
}

/// When this host came up (`btime` of `proc_stat(5)`).
fn boot_time() -> Option<SystemTime> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds.trim().parse().ok()?))
}
