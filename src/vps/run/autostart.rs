//! What comes up with the host.

use std::time::Duration;

use crate::error::Result;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

impl Condo {
    /// Starts the VPSs that are to come up with the host, in their order, each after the delay of the one before. Those that run
    /// already are left alone, and the failure of one does not keep the others down. What became of each.
    pub fn autostart(&self) -> Result<Vec<(Name, Result<()>)>> {
        let mut results = Vec::new();
        for record in in_order(self.members()?) {
            if self.status(&record.name)? != VpsStatus::Stopped {
                continue;
            }
            results.push((record.name.clone(), self.start(&record.name)));
            std::thread::sleep(Duration::from_secs(record.config.boot.delay.into()));
        }
        Ok(results)
    }
}

fn in_order(mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|record| record.config.boot.autostart);
    records.sort_by(|a, b| (a.config.boot.order, &a.name).cmp(&(b.config.boot.order, &b.name)));
    records
}
