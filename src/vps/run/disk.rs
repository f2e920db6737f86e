//! The root disk of a VPS, made when it is first needed.

use crate::error::{During, Error, Result};
use crate::storage::{self, RootDisk, Volume};
use crate::vps::record::instance::Condo;
use crate::vps::record::limits::Limits;
use crate::vps::record::rescue::Rescue;
use crate::vps::record::store::Record;

impl Condo {
    /// The disk of a VPS, which is made where it is not there yet.
    pub(super) fn disk(&self, record: &Record) -> Result<RootDisk> {
        self.made(&record.config.image, record, &|| self.volume(record))
    }

    /// The disk of the rescue system that has its place, likewise: as large as its own may be.
    pub(super) fn rescue_disk(&self, rescue: &Rescue, record: &Record) -> Result<RootDisk> {
        let place = self.folders.rescue(&record.name).disk();
        self.made(&rescue.image, record, &|| {
            record.config.disk.backend.volume(place.clone())
        })
    }

    /// The disk behind a VPS, where one of these limits is about it.
    pub(super) fn limited_disk(&self, record: &Record, limits: &Limits) -> Result<Option<(u32, u32)>> {
        if !limits.any_io() {
            return Ok(None);
        }
        let disk = self.volume(record).device()?;
        self.check_weighed(limits, disk)?;
        Ok(Some(disk))
    }

    /// Refuses a weight on a disk whose requests nobody weighs.
    pub(super) fn check_weighed(&self, limits: &Limits, disk: (u32, u32)) -> Result<()> {
        match limits.io_weight {
            Some(_) => storage::check_weighed(disk, self.host.cgroups.unified()).during(|| "--io-weight"),
            None => Ok(()),
        }
    }

    fn made(&self, image: &str, record: &Record, volume: &dyn Fn() -> Box<dyn Volume>) -> Result<RootDisk> {
        let image = self.images().get(image)?;
        volume().create(&record.config.disk.quota())?;
        let disk = RootDisk::new(image.layers, volume());
        match disk.create(record.range()) {
            // There since the first start.
            Err(e) if matches!(e.root(), Error::Exists { .. }) => {}
            other => other?,
        }
        Ok(disk)
    }
}
