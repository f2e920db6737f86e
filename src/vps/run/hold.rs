//! A VPS and its lock, which whoever changes it holds; and what is waited for and finished before.

use std::time::{Duration, Instant};

use super::power::{MONITOR, wait_for_end};
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::runtime::status::Identity;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

impl Condo {
    /// A VPS with its lock, as it is once we hold that: whoever held it before may have deleted the VPS.
    pub(in crate::vps) fn hold(&self, name: &Name) -> Result<(Record, Lock)> {
        match self.store.get(name) {
            // What is unknown gets no lock file.
            Err(e) if e.is_gone() && !files::exists(&self.folders.lock(name)) => return Err(e),
            _ => {}
        }
        let lock = self.lock(name)?;
        match self.store.get(name) {
            Err(e) if e.is_gone() => {
                // A deletion was killed behind the removal of the record.
                self.release_all_uids(name)?;
                self.forget(name)?;
                Err(e)
            }
            other => Ok((other?, lock)),
        }
    }

    /// The same with nothing under way: no monitor is at work on it, and what was decided about its disk is carried out. Whoever works
    /// with the disk of a VPS begins here.
    pub(in crate::vps) fn hold_settled(&self, name: &Name) -> Result<(Record, Lock)> {
        let (record, lock) = self.hold(name)?;
        self.settle(&record)?;
        let record = match self.status(name)? {
            VpsStatus::Stopped => self.finish_rebuild(record)?,
            _ => record,
        };
        Ok((record, lock))
    }

    /// Waits while a monitor is at work on a VPS without an init: it clears up or boots again. Clears up after a dead one.
    pub(in crate::vps) fn settle(&self, record: &Record) -> Result<()> {
        let deadline = Instant::now() + MONITOR;
        loop {
            let monitor = self.monitor(&record.name).filter(Identity::is_alive);
            match (self.status(&record.name)?, monitor) {
                (VpsStatus::Running | VpsStatus::Paused, _) => return Ok(()),
                (_, None) if self.is_cleared(&record.name) => return Ok(()),
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

    /// Whether nothing is left of a run: each start makes the run directory first, and each end removes it last. One that the host's
    /// power ended has left word that it ran.
    pub(super) fn is_cleared(&self, name: &Name) -> bool {
        !files::exists(&self.folders.run_of(name)) && !files::exists(&self.folders.running(name))
    }
}
