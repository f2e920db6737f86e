//! What goes through the ports of VPSs, read from the kernel and kept in the records. No process counts.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::net::meter::{self, Meters, Reading};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::traffic::Traffic;

/// What VPSs have sent and received until the moment at which all interfaces were read. Nothing is written.
pub(in crate::vps) fn of(
    condo: &Condo,
    records: &[Record],
    meters: &Meters,
) -> Result<BTreeMap<Name, Traffic>> {
    let readings = |record: &Record| (record.name.clone(), meters.readings(&ports(condo, record)));
    let all: Vec<_> = records.iter().map(readings).collect();
    condo.store.traffic(&all)
}

/// Keeps what has been counted until now.
pub(in crate::vps) fn keep(condo: &Condo, record: &Record) -> Result<()> {
    match read(condo, record)?.as_slice() {
        [] => Ok(()),
        readings => condo.store.add_traffic(&record.name, readings),
    }
}

/// Keeps what was counted before the interfaces go. That it cannot be kept, on a full disk, holds up no stop.
pub(super) fn finish(condo: &Condo, record: &Record) {
    if let Err(e) = keep(condo, record).and_then(|()| condo.store.count_from(&record.name, &[])) {
        log::warn!("the traffic of `{}` is not all recorded: {e}", record.name);
    }
}

/// Does something that changes which interface counts.
pub(super) fn recount(condo: &Condo, record: &Record, work: impl FnOnce() -> Result<()>) -> Result<()> {
    keep(condo, record)?;
    work()?;
    condo.store.count_from(&record.name, &read(condo, record)?)
}

fn read(condo: &Condo, record: &Record) -> Result<Vec<Reading>> {
    meter::read(&ports(condo, record))
}

/// Host's ends of all interfaces.
fn ports(condo: &Condo, record: &Record) -> Vec<String> {
    let numbers = record.interfaces.iter().map(|interface| interface.number);
    numbers
        .map(|number| condo.folders.interface(record.id, number))
        .collect()
}
