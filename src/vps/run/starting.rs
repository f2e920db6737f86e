//! Starts that are still to be seen: a command stops a VPS and has to start it again, and may be killed before.

use crate::error::Result;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::Pending;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

impl Condo {
    /// What was unfinished is done or undone, but for a start, if it is to run.
    pub(in crate::vps) fn set_starting(&self, vps: &Name, starting: bool) -> Result<()> {
        self.set_pending(vps, starting.then_some(&Pending::Starting))
            .map(drop)
    }

    /// Whether it runs, or a command that stopped it was killed before it had started it again.
    pub(in crate::vps) fn is_to_run(&self, record: &Record) -> Result<bool> {
        let runs = self.status(&record.name)? != VpsStatus::Stopped;
        Ok(runs || record.config.pending == Some(Pending::Starting))
    }

    /// Starts it, unless somebody has; either way that start is seen.
    pub(in crate::vps) fn see_start(&self, vps: &Name) -> Result<()> {
        match self.status(vps)? {
            VpsStatus::Stopped => self.start(vps),
            _ => self.settled(vps).map(drop),
        }
    }

    /// A start that was still to be seen is none any more: it has come, or is not wanted now.
    pub(super) fn forget_starting(&self, record: &Record) -> Result<()> {
        match record.config.pending {
            Some(Pending::Starting) => self.settled(&record.name).map(drop),
            _ => Ok(()),
        }
    }

    /// Nothing is unfinished about a VPS any more.
    pub(in crate::vps) fn settled(&self, vps: &Name) -> Result<Record> {
        self.set_pending(vps, None)
    }

    /// Records what is unfinished about a VPS.
    pub(in crate::vps) fn set_pending(&self, vps: &Name, pending: Option<&Pending>) -> Result<Record> {
        self.store.reconfigure(vps, &|config| {
            config.pending = pending.cloned();
            Ok(())
        })
    }
}
