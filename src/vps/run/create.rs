//! A new VPS: its record, its claims and its disk; nothing runs yet.

use serde_json::Value;

use super::{names, provision};
use crate::error::Result;
use crate::net::ipam::Taken;
use crate::storage;
use crate::vps::record::attachment::Attachment;
use crate::vps::record::events::Kind;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;
use crate::vps::record::project;
use crate::vps::record::store::{NewVps, Record};
use crate::vps::wire::{doors, network};

impl Condo {
    /// Claims name, address and uids for a new VPS, once its configuration is complete and has passed the one check, and makes its disk.
    pub fn create(&self, mut new: NewVps) -> Result<Record> {
        self.must_have_ids()?;
        let facts = Facts::probe(&self.host)?;
        // Of a VPS that is copied, perhaps.
        new.config.rescue = None;
        if let Some(project) = self.project() {
            new.config.project = Some(project.clone()).filter(|name| name.as_str() != project::DEFAULT);
        }
        if let Some(project) = &new.config.project {
            self.store.find_project(project)?.lend(&mut new.config.limits);
        }
        new.config = new.config.with_defaults(&facts);
        new.config.validate(&facts)?;
        new.config.disk = self.new_disk(&new.config.disk)?;
        let config = &new.config;
        self.refuse_remains(&new.name)?;
        let images = self.lock_images()?;
        let image = self.images().get(&config.image)?;
        config.check_owners(&image)?;
        provision::check(&image, &new.first_boot)?;
        config
            .devices
            .iter()
            .try_for_each(|device| device.find().map(drop))?;
        if config.limits.any_io() {
            let disk = storage::whole_disk_of(self.folders.lib())?;
            self.check_weighed(&config.limits, disk)?;
        }
        doors::check(&config.publish)?;
        network::of(self)?;
        for attachment in new.attachments() {
            network::check(self, &attachment)?;
        }
        let address = |wanted: &Attachment, taken: &Taken| network::pick(self, wanted, taken);
        let record = self.claim(&new, &address)?;
        drop(images);
        if let Err(e) = self.make_disk(&record) {
            // The failure to report is the first; what cannot be removed now, `delete` removes.
            if let Err(e) = self.delete(&record.name, false) {
                log::warn!("clean-up after a failure is incomplete: {e}");
            }
            return Err(e);
        }
        names::tell(self, &Vec::from_iter(record.config.allow.iter().cloned()));
        self.tell(&record, Kind::Created, Value::Null);
        Ok(record)
    }

    /// Makes the disk of a new VPS, unless it was started and has one by now. A start does so where this was killed before.
    fn make_disk(&self, record: &Record) -> Result<()> {
        let _lock = self.lock(&record.name)?;
        self.volume(record).create(&record.config.disk.quota())
    }
}
