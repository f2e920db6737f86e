//! A new VPS: its record and claims, and no kernel object yet.

use serde_json::Value;

use crate::error::Result;
use crate::net::ipam::{self, Taken};
use crate::storage;
use crate::vps::record::events::Kind;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::{NewVps, Record};
use crate::vps::wire::network;

impl Condo {
    /// Claims name, address and uids for a new VPS, once its configuration is complete and has passed the one check.
    /// No kernel object yet.
    pub fn create(&self, new: NewVps) -> Result<Record> {
        let facts = Facts::probe(&self.host)?;
        let mut config = new.config.with_defaults(&facts);
        config.disk.backend = self.settings()?.storage.backend.unwrap_or(config.disk.backend);
        config.validate(&facts)?;
        self.refuse_remains(&new.name)?;
        let _images = self.lock_images()?;
        self.images().get(&config.image)?;
        if config.limits.any_io() {
            storage::whole_disk_of(self.folders.lib())?;
        }
        let subnet = network::of(self)?.subnet;
        if let Some(ip) = new.wanted_ip {
            ipam::pick(subnet, &Taken::default(), Some(ip))?;
        }
        let address = |taken: &Taken| ipam::pick(subnet, taken, None);
        let record = self.claim(&NewVps { config, ..new }, &address)?;
        self.tell(&record.name, Kind::Created, Value::Null);
        Ok(record)
    }
}
