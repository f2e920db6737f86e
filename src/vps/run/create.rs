//! A new VPS: its record and claims, and no kernel object yet.

use serde_json::Value;

use super::{names, provision};
use crate::error::Result;
use crate::net::ipam::Taken;
use crate::storage;
use crate::vps::record::attachment::Attachment;
use crate::vps::record::events::Kind;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::{NewVps, Record};
use crate::vps::wire::{doors, network};

impl Condo {
    /// Claims name, address and uids for a new VPS, once its configuration is complete and has passed the one check.
    /// No kernel object yet.
    pub fn create(&self, new: NewVps) -> Result<Record> {
        let facts = Facts::probe(&self.host)?;
        let mut new = NewVps {
            config: new.config.with_defaults(&facts),
            ..new
        };
        let disk = &mut new.config.disk;
        disk.backend = self.settings()?.storage.backend.unwrap_or(disk.backend);
        // Of a VPS that is copied, perhaps.
        new.config.rescue = None;
        let config = &new.config;
        config.validate(&facts)?;
        self.refuse_remains(&new.name)?;
        let _images = self.lock_images()?;
        provision::check(&self.images().get(&config.image)?, &new.first_boot)?;
        config
            .devices
            .iter()
            .try_for_each(|device| device.find().map(drop))?;
        if config.limits.any_io() {
            storage::whole_disk_of(self.folders.lib())?;
        }
        doors::check(&config.publish)?;
        network::of(self)?;
        for attachment in new.attachments() {
            network::check(self, &attachment)?;
        }
        let address = |wanted: &Attachment, taken: &Taken| network::pick(self, wanted, taken);
        let record = self.claim(&new, &address)?;
        names::tell(self, &Vec::from_iter(record.config.allow.iter().cloned()));
        self.tell(&record.name, Kind::Created, Value::Null);
        Ok(record)
    }
}
