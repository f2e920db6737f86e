//! The root disk of a VPS, made when it is first needed.

use crate::error::{Error, Result};
use crate::storage::RootDisk;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::Record;

impl Condo {
    /// The disk of a VPS, which is made where it is not there yet.
    pub(super) fn disk(&self, record: &Record) -> Result<RootDisk> {
        let image = self.images().get(&record.config.image)?;
        self.volume(record).create(&record.config.disk.quota())?;
        let disk = RootDisk::new(image.layers, self.volume(record));
        match disk.create() {
            // There since the first start.
            Err(e) if matches!(e.root(), Error::Exists { .. }) => {}
            other => other?,
        }
        Ok(disk)
    }
}
