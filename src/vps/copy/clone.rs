//! A VPS made of another: with its disk and configuration, and a name, an address and an identity of its own.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, Result};
use crate::storage::tree::Direction;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::{self, Pending};
use crate::vps::record::snapshots::SnapshotName;
use crate::vps::record::store::{NewVps, Record};
use crate::vps::record::view::VpsStatus;

use super::capture::at;
use super::snapshot::LAYER;

impl Condo {
    /// Makes a VPS out of another as it is now, or as it was at a snapshot. Its first start gives it a machine id and ssh host keys
    /// of its own. Whom the other may talk to is not its business.
    ///
    /// Killed in the middle, the same run again finishes it.
    pub fn clone_vps(&self, vps: &Name, new: &Name, snapshot: Option<&SnapshotName>) -> Result<Record> {
        let _lock = self.lock_copies(vps)?;
        self.sweep_copies(vps)?;
        let (source, lock) = self.hold_settled(vps)?;
        drop(lock);
        pending::refuse(&source)?;
        let config = match snapshot {
            Some(name) => self.snapshot(vps, name)?.config,
            None => source.config.clone(),
        };
        let by = match snapshot {
            Some(name) => format!("condo clone {vps} {new} --snapshot {name}"),
            None => format!("condo clone {vps} {new}"),
        };
        self.must_be_alike(&config.disk, "a clone")?;
        let record = self.arriving(new, config, by)?;
        self.fill_clone(&source, &record, snapshot).inspect_err(|_| {
            if let Err(e) = self.delete(new, true) {
                log::warn!("{e}");
            }
        })?;
        self.settled(new)
    }

    /// A new VPS that does not start yet, or the one that an earlier run of the same command has left.
    pub(super) fn arriving(&self, new: &Name, config: VpsConfig, by: String) -> Result<Record> {
        let pending = Pending::Arriving { by };
        match self.store.get_any(new) {
            Ok(record) if record.config.pending.as_ref() == Some(&pending) => {
                if !record.config.deleting {
                    return Ok(record);
                }
                // The same command was killed while it took back what it had made.
                self.delete(new, true)?;
            }
            Ok(record) => {
                pending::refuse(&record)?;
                return Err(Error::Exists {
                    kind: "VPS",
                    name: new.to_string(),
                });
            }
            Err(e) if e.is_gone() => {}
            Err(e) => return Err(e),
        }
        self.create(NewVps {
            name: new.clone(),
            wanted_ip: None,
            first_boot: Default::default(),
            config: VpsConfig {
                hostname: None,
                ip: None,
                allow: Default::default(),
                networks: self.networks_for(&config),
                arrived: None,
                rescue: None,
                // A port of the host leads to one VPS.
                publish: Default::default(),
                pending: Some(pending),
                ..config
            },
        })
    }

    /// The new VPS's lock of copies keeps it from being deleted meanwhile; its own lock would be held while another is waited for.
    fn fill_clone(&self, source: &Record, new: &Record, snapshot: Option<&SnapshotName>) -> Result<()> {
        let _new = self.lock_copies(&new.name)?;
        let vps = &source.name;
        let fill = |from: &Path, layer: &dyn Fn() -> Result<OwnedFd>| -> Result<()> {
            let at_once = self.volume(new).copy_from(from, &new.config.disk.quota())?;
            match at_once {
                true => Ok(()),
                false => self.bring(new, &layer()?, Direction::Copy).map(drop),
            }
        };
        if let Some(name) = snapshot {
            let copy = self.snapshot_dir(vps, name).join(LAYER);
            return fill(&copy, &|| at(&copy));
        }
        let (record, lock) = self.hold_settled(vps)?;
        if self.status(vps)? == VpsStatus::Stopped {
            return fill(self.volume(&record).place(), &|| self.layer(&record));
        }
        drop(lock);
        self.with_passing(vps, |copy, _| fill(copy, &|| at(copy)))
    }
}
