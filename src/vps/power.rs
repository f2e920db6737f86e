//! Starting, stopping and deleting.
//!
//! Whoever changes a VPS holds its lock. Only its monitor works without: it takes the VPS down when init has ended, and boots
//! it again after a `reboot` from inside. So every command first lets a monitor finish ([`Condo::settle`]), and takes down
//! itself what a monitor that was killed has left.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::lifecycle::Condo;
use super::monitor;
use super::name::Name;
use super::network;
use super::store::{ExitReason, LastExit, Record};
use super::view::VpsStatus;
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Failures, Result};
use crate::files;
use crate::process::signal;
use crate::runtime::container;
use crate::runtime::id::Id;
use crate::runtime::status::Identity;

/// How long a monitor may take to clear up after init's end, or to boot again.
const MONITOR: Duration = Duration::from_secs(60);

impl Condo {
    /// Starts a stopped VPS.
    pub fn start(&self, name: &Name) -> Result<()> {
        let record = self.store.get(name)?;
        let lock = self.lock(name)?;
        self.settle(&record)?;
        match self.status(name)? {
            VpsStatus::Stopped => {}
            VpsStatus::Created => self.take_down(&record)?,
            status => return Err(Error::Status(format!("the VPS is {} already", status.as_str()))),
        }
        files::create_dir_all(&self.folders.run_of(name), 0o700)?;
        monitor::launch(self, name, &lock)
    }

    /// Asks a VPS to shut down and ends it after `timeout`. One that is stopped already is fine.
    pub fn stop(&self, name: &Name, timeout: Duration) -> Result<()> {
        let record = self.store.get(name)?;
        let _lock = self.lock(name)?;
        self.settle(&record)?;
        if self.status(name)? == VpsStatus::Stopped {
            return Ok(());
        }
        self.end(&record, Some(timeout))
    }

    /// Stops and starts a VPS.
    pub fn restart(&self, name: &Name, timeout: Duration) -> Result<()> {
        self.stop(name, timeout)?;
        self.start(name)
    }

    /// Sends a signal to a VPS's init.
    pub fn kill(&self, name: &Name, signal: i32) -> Result<()> {
        self.store.get(name)?;
        let stopped = || Error::Status("the VPS is not running".into());
        let container = self.container(name)?.ok_or_else(stopped)?;
        container.kill(&self.host, signal::parse("--signal", &signal.to_string())?, false)
    }

    /// Removes a stopped VPS, or any with `force`, with everything it left.
    pub fn delete(&self, name: &Name, force: bool) -> Result<()> {
        let record = self.store.get(name)?;
        let _lock = self.lock(name)?;
        self.settle(&record)?;
        let status = self.status(name)?;
        if status != VpsStatus::Stopped {
            if !force {
                let text = format!("the VPS is {}: stop it first, or use --force", status.as_str());
                return Err(Error::Status(text));
            }
            self.end(&record, None)?;
        }
        self.take_down(&record)?;
        files::remove_tree(&self.folders.vps(name))?;
        // The claims go last: until then a delete that was interrupted can be repeated.
        self.store.remove(name)?;
        network::remove_if_unused(self)?;
        files::remove_file(&self.folders.lock(name))
    }

    /// Waits while a monitor is at work on a VPS without an init: it clears up or boots again. Clears up after a dead one.
    fn settle(&self, record: &Record) -> Result<()> {
        let deadline = Instant::now() + MONITOR;
        loop {
            let monitor = self.monitor(&record.name).filter(Identity::is_alive);
            match (self.status(&record.name)?, monitor) {
                (VpsStatus::Running | VpsStatus::Paused, _) => return Ok(()),
                (_, None) => return self.take_down(record),
                (_, Some(monitor)) if Instant::now() < deadline => {
                    if let Some(pidfd) = monitor.open() {
                        wait_for_end(&pidfd, Duration::from_millis(100))?;
                    }
                }
                (_, Some(monitor)) => {
                    let text = format!(
                        "its monitor (pid {}) does not finish; try again, or end it",
                        monitor.pid
                    );
                    return Err(Error::Busy(text));
                }
            }
        }
    }

    /// Ends a running VPS, by its stop signal first if there is time for that.
    fn end(&self, record: &Record, patience: Option<Duration>) -> Result<()> {
        let name = &record.name;
        files::write_atomic(&self.stopping(name), b"", 0o600)?;
        let Some(container) = self.container(name)? else {
            return self.settle(record);
        };
        if let (Some(patience), Some(init)) = (patience, container.init()) {
            let stop_signal = self.images().get(&record.config.image)?.manifest.stop_signal;
            let _ = container.resume(&self.host);
            container.kill(&self.host, signal::parse("stop signal", &stop_signal)?, false)?;
            wait_for_end(&init, patience)?;
        }
        container.kill(&self.host, rustix::process::Signal::KILL, true)?;
        if let Some(init) = container.init() {
            let _ = container.kill(&self.host, rustix::process::Signal::KILL, false);
            if !wait_for_end(&init, MONITOR)? {
                return Err(Error::Status(
                    "its init does not die: it hangs in the kernel; try again later".into(),
                ));
            }
        }
        self.settle(record)
    }

    /// Frees everything one run of a VPS holds: container, cgroup, network, run directory. Idempotent.
    pub(super) fn take_down(&self, record: &Record) -> Result<()> {
        let name = &record.name;
        let mut failures = Failures::default();
        let seen = self.container(name)?.is_some();
        failures.note(container::delete(
            &self.host,
            &self.folders.runtime(),
            &Id::new(name.as_str())?,
            true,
        ));
        failures.note(self.clear_cgroup(name));
        failures.note(network::detach(self, record));
        failures.into_result()?;
        if seen && self.monitor(name).is_none_or(|m| !m.is_alive()) {
            self.store
                .record_exit(name, &exit(ExitReason::Unknown, None, None))?;
        }
        files::remove_tree(&self.folders.run_of(name))
    }

    /// A cgroup may be left without a container when a start was killed in between; the parent goes with the last one.
    fn clear_cgroup(&self, name: &Name) -> Result<()> {
        if let Ok(cgroup) = Cgroup::open(&self.host.cgroups, &self.folders.cgroup(name)) {
            cgroup.kill()?;
            cgroup.remove()?;
        }
        if let Ok(parent) = Cgroup::open(&self.host.cgroups, &self.folders.cgroup_parent()) {
            parent.remove_if_empty();
        }
        Ok(())
    }

    /// There while somebody stops the VPS: a reboot from inside then only stops it.
    pub(super) fn stopping(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("stopping")
    }

    /// The process that watches a VPS, dead or alive.
    pub(super) fn monitor(&self, name: &Name) -> Option<Identity> {
        let raw = std::fs::read(self.folders.run_of(name).join("monitor.json")).ok()?;
        serde_json::from_slice(&raw).ok()
    }

    /// Says who watches a VPS.
    pub(super) fn set_monitor(&self, name: &Name, monitor: &Identity) -> Result<()> {
        let path = self.folders.run_of(name).join("monitor.json");
        files::write_atomic(&path, &serde_json::to_vec(monitor)?, 0o600)
    }
}

/// An end that happened now.
pub(super) fn exit(reason: ExitReason, status: Option<i32>, signal: Option<i32>) -> LastExit {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    LastExit {
        reason,
        status,
        signal,
        at: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    }
}

/// Waits until a process has ended; false when the time is over first.
fn wait_for_end(pidfd: &OwnedFd, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match rustix::event::poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.during(|| "wait for a process")? > 0),
        }
    }
}
