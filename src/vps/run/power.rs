//! Starting, stopping and deleting.
//!
//! Whoever changes a VPS holds its lock. Only its monitor works without: it takes the VPS down when init has ended, and boots
//! it again after a `reboot` from inside. So every command first lets a monitor finish (`settle`), and takes down
//! itself what a monitor that was killed has left.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::freeze::frozen;
use super::{monitor, names};
use crate::cgroups::delegated;
use crate::error::{During, Error, Failures, Result};
use crate::files::{self, Lock};
use crate::runtime::container::{self, Container};
use crate::runtime::id::Id;
use crate::runtime::status::Identity;
use crate::vps::record::events::Kind;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending;
use crate::vps::record::store::{ExitReason, LastExit, Record};
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::{doors, network};

/// How long a monitor may take to clear up after init's end, or to boot again.
pub(super) const MONITOR: Duration = Duration::from_secs(60);

/// How many VPSs one command stops at once: it holds a lock and an init of each open, and may have 1024 files.
const AT_ONCE: usize = 256;

/// A VPS that is being stopped. The lock is the last to go.
struct Stop {
    record: Record,
    ending: Option<Ending>,
    _lock: Lock,
}

/// An init that shall end.
struct Ending {
    container: Container,
    init: OwnedFd,
    /// When it is killed; at once without.
    deadline: Option<Instant>,
    /// Whether it could be asked.
    asked: Result<()>,
}

impl Condo {
    /// Starts a stopped VPS.
    pub fn start(&self, name: &Name) -> Result<()> {
        self.must_have_ids()?;
        if !self.host.caller.privileged {
            delegated::clear_top(&self.host.cgroups).during(|| "make room for cgroups of VPSs")?;
        }
        let (record, lock) = self.hold(name)?;
        pending::refuse(&record)?;
        self.settle(&record)?;
        match self.status(name)? {
            VpsStatus::Stopped => {}
            VpsStatus::Created => self.take_down(&record)?,
            VpsStatus::Paused => return Err(frozen(name)),
            status => return Err(Error::Status(format!("the VPS is {} already", status.as_str()))),
        }
        network::warn_of_collisions(self, &record)?;
        doors::check(&record.config.publish)
            .during(|| format!("publish its ports (condo unpublish {name} takes them back)"))?;
        let record = self.finish_rebuild(record)?;
        let record = self.hold_uids(record)?;
        files::create_dir_all(&self.folders.run_of(name), 0o700)?;
        // Has its room, should the disk be full when it is to be stopped.
        files::write_atomic(&self.stopping(name), b"-", 0o600)?;
        let launched = monitor::launch(self, name, &lock);
        match &launched {
            Ok(()) => {
                self.forget_starting(&record)?;
                self.tell(&record, Kind::Started, Value::Null);
            }
            Err(e) => self.tell(&record, Kind::Failed, json!({ "reason": e.to_string() })),
        }
        launched
    }

    /// Asks VPSs to shut down and ends each that has not after `timeout`. One that is stopped already is fine, and the
    /// failure of one does not keep the others from being stopped. What became of each, by name.
    pub fn stop(&self, names: &[Name], timeout: Duration) -> Vec<(Name, Result<()>)> {
        // Sorted, because locks are held: two commands that take them in different orders would wait for each other.
        let names: BTreeSet<&Name> = names.iter().collect();
        let names: Vec<Name> = names.into_iter().cloned().collect();
        let mut results = Vec::new();
        for some in names.chunks(AT_ONCE) {
            // All are asked before any is waited for: together they take as long as the slowest.
            let ask = |name: &Name| (name.clone(), self.begin_stop(name, timeout));
            let asked: Mutex<BTreeMap<Name, Result<Stop>>> = Mutex::new(some.iter().map(ask).collect());
            results.extend(self.for_each(some, |own, name| {
                let stop = asked.lock().ok().and_then(|mut asked| asked.remove(name));
                stop.map_or(Ok(()), |stop| own.finish_stop(stop?, timeout))
            }));
        }
        results
    }

    fn begin_stop(&self, name: &Name, timeout: Duration) -> Result<Stop> {
        let (record, lock) = self.hold(name)?;
        self.set_stopping(name)?;
        self.settle(&record)?;
        self.forget_starting(&record)?;
        let ending = self.ask(&record, Some(timeout))?;
        Ok(Stop {
            record,
            ending,
            _lock: lock,
        })
    }

    fn finish_stop(&self, stop: Stop, timeout: Duration) -> Result<()> {
        if let Some(ending) = stop.ending {
            self.wait_or_kill(ending)?;
        }
        self.shut_down(&stop.record, Some(timeout))
    }

    /// Sends a signal to a VPS's init.
    pub fn kill(&self, name: &Name, signal: Signal) -> Result<()> {
        self.store.get(name)?;
        let stopped = || Error::Status("the VPS is not running".into());
        let container = self.container(name)?.ok_or_else(stopped)?;
        if signal == Signal::KILL {
            self.set_killed(name);
        }
        container.kill(&self.host, signal, false)
    }

    /// Removes a stopped VPS, or any with `force`, with everything it left.
    pub fn delete(&self, name: &Name, force: bool) -> Result<()> {
        let (record, _lock) = match self.hold(name) {
            Err(e) if e.is_gone() && force && self.has_remains(name) => return self.delete_remains(name),
            other => other?,
        };
        pending::refuse_to_delete(&record, force)?;
        let _copies = self.no_copies(name)?;
        if force {
            self.set_stopping(name)?;
        }
        self.settle(&record)?;
        let status = self.status(name)?;
        if status != VpsStatus::Stopped && !force {
            let text = format!("the VPS is {}: stop it first, or use --force", status.as_str());
            return Err(Error::Status(text));
        }
        self.shut_down(&record, None)?;
        // Its monitor has done that, as a rule. To look for interfaces and rules that are not there takes a transaction of the firewall.
        match self.is_cleared(name) {
            true => self.tidy_cgroups(),
            false => self.take_down(&record)?,
        }
        self.store.set_deleting(&record)?;
        network::forget(self, &record)?;
        self.remove_rescue(&record)?;
        self.volume(&record).remove()?;
        self.remove_snapshots(name)?;
        files::remove_tree(&self.folders.vps(name))?;
        let peers = self.store.peers(name)?.into_iter().map(|(peer, _)| peer);
        let peers: Vec<Name> = peers.collect();
        // The claims go last: until then a delete that was interrupted can be repeated.
        self.store.remove(name)?;
        names::tell(self, &peers);
        self.release_uids(&record)?;
        self.tell(&record, Kind::Deleted, Value::Null);
        self.forget(name)
    }

    /// Removes what deletes left that were killed at their very end, when the records were gone already.
    pub fn sweep(&self) -> Result<()> {
        let entries = std::fs::read_dir(self.folders.locks()).during(|| "list the locks")?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            // Of interest is only what it does about a VPS that is gone.
            if let Some(name) = name
                && self.store.get(&name).is_err_and(|e| e.is_gone())
            {
                let _ = self.hold(&name);
            }
        }
        self.tidy_cgroups();
        network::sweep()?;
        network::remove_if_unused(self)
    }

    /// The last of a VPS that has no record any more. The caller holds its lock.
    pub(super) fn forget(&self, name: &Name) -> Result<()> {
        network::remove_if_unused(self)?;
        files::remove_file(&self.folders.lock(name))
    }

    /// Ends a VPS and clears up after it. It may be rebooting by itself at this very moment, and then needs to be ended again.
    pub(in crate::vps) fn shut_down(&self, record: &Record, patience: Option<Duration>) -> Result<()> {
        for _ in 0..10 {
            // Before anything is waited for: a monitor that pauses between two boots ends at once.
            self.set_stopping(&record.name)?;
            self.settle(record)?;
            if self.status(&record.name)? == VpsStatus::Stopped {
                return Ok(());
            }
            self.end(record, patience)?;
        }
        Err(Error::Busy("it boots again and again".into()))
    }

    /// Ends a running VPS, by its stop signal first if there is time for that. One that ends by itself meanwhile is fine.
    fn end(&self, record: &Record, patience: Option<Duration>) -> Result<()> {
        match self.ask(record, patience)? {
            Some(ending) => self.wait_or_kill(ending),
            None => Ok(()),
        }
    }

    /// Asks it to power off, if there is patience. `None` when there is nobody any more.
    fn ask(&self, record: &Record, patience: Option<Duration>) -> Result<Option<Ending>> {
        let Some(container) = self.container(&record.name)? else {
            return Ok(None);
        };
        let Some(init) = container.init() else {
            return Ok(None);
        };
        let asked = match patience {
            Some(_) => self.bid_farewell(record, &container),
            None => Ok(()),
        };
        Ok(Some(Ending {
            container,
            init,
            deadline: patience.map(|patience| Instant::now() + patience),
            asked,
        }))
    }

    /// Waits until the patience is over, and kills.
    fn wait_or_kill(&self, ending: Ending) -> Result<()> {
        let Ending { container, init, .. } = ending;
        if let Some(deadline) = ending.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if wait_for_end(&init, ending.asked.as_ref().map_or(Duration::ZERO, |()| left))? {
                return Ok(());
            }
            ending.asked?;
        }
        let all = container.kill(&self.host, Signal::KILL, true);
        let _ = container.kill(&self.host, Signal::KILL, false);
        if wait_for_end(&init, MONITOR)? {
            return Ok(());
        }
        all?;
        Err(Error::Status(
            "its init does not die: it hangs in the kernel; try again later".into(),
        ))
    }

    /// Frees everything one run of a VPS holds: container, cgroup, network, run directory. Idempotent.
    pub(in crate::vps) fn take_down(&self, record: &Record) -> Result<()> {
        self.free(record)?;
        files::remove_tree(&self.folders.run_of(&record.name))
    }

    /// All of that but the run directory, which says that a monitor is at work: without it a command that comes between the
    /// two halves of a reboot would take the VPS for a stopped one.
    pub(super) fn free(&self, record: &Record) -> Result<()> {
        let name = &record.name;
        let mut failures = Failures::default();
        let seen = self.container(name)?.is_some() || files::exists(&self.folders.running(name));
        failures.note(self.free_container(name, record.config.project.as_ref()));
        self.release_listeners(name);
        failures.note(network::detach(self, record));
        failures.into_result()?;
        let told = files::exists(&self.recorded(name)) || self.is_watched(name);
        if seen && !told {
            let end = self.unseen_end(record, VpsStatus::Stopped);
            let end = end.unwrap_or_else(|| LastExit::now(ExitReason::Unknown, None, None));
            self.store.record_exit(name, &end)?;
            self.tell_end(record, &end, self.is_stopping(name));
        }
        self.clear_running(name)?;
        files::remove_file(&self.recorded(name))
    }

    /// Ends what runs in a VPS, and removes its container and cgroup.
    pub(super) fn free_container(&self, name: &Name, project: Option<&Name>) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(container::delete(
            &self.host,
            &self.folders.runtime(),
            &Id::new(name.as_str())?,
            true,
        ));
        failures.note(self.clear_cgroup(name, project));
        failures.into_result()
    }

    /// Whether somebody is stopping the VPS: a reboot from inside then only stops it.
    pub(super) fn is_stopping(&self, name: &Name) -> bool {
        let raw = std::fs::read(self.stopping(name)).unwrap_or_default();
        serde_json::from_slice(&raw).is_ok_and(|stopper: Identity| stopper.is_alive())
    }

    /// Says that we stop the VPS, as long as we live. One without run directory is stopped.
    pub(super) fn set_stopping(&self, name: &Name) -> Result<()> {
        let own = serde_json::to_vec(&Identity::own()?)?;
        match files::write_small(&self.stopping(name), &own, 0o600) {
            Err(e) if e.is_gone() => Ok(()),
            other => other,
        }
    }

    fn stopping(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("stopping")
    }

    /// Says that the end of this run is in the database: who takes it down in the monitor's place knows no better.
    pub(super) fn set_recorded(&self, name: &Name) -> Result<()> {
        files::write_atomic(&self.recorded(name), b"", 0o600)
    }

    fn recorded(&self, name: &Name) -> PathBuf {
        self.folders.run_of(name).join("recorded")
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

/// Waits until a process has ended; false when the time is over first.
pub(super) fn wait_for_end(pidfd: &OwnedFd, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match rustix::event::poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.during(|| "wait for a process")? > 0),
        }
    }
}
