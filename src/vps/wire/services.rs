//! Published ports and firewalls of VPSs that are attached.

use rustix::io::Errno;

use crate::error::Result;
use crate::net::Services;
use crate::net::filter::Filter;
use crate::net::publication::Publication;
use crate::vps::record::instance::Condo;
use crate::vps::record::store::Record;
use crate::vps::wire::network;

/// Puts in force what a record says.
pub(in crate::vps) fn provide(condo: &Condo, record: &Record) -> Result<()> {
    let config = &record.config;
    if config.publish.is_empty() && config.firewall.is_open() {
        return Ok(());
    }
    with(condo, record, &config.firewall, |services| services.provide())
}

/// Puts in force what a record says in the place of what an earlier one said, whose addresses were others.
pub(super) fn replace(condo: &Condo, before: &Record, record: &Record) -> Result<()> {
    let replaced = with(condo, before, &before.config.firewall, |old| {
        with(condo, record, &record.config.firewall, |new| new.replace(old))
    });
    // Somebody was killed who did this: its ports lead to the record's addresses already, and its firewall is asked for them.
    let done = [Errno::EXIST, Errno::BUSY].map(|errno| Some(errno.raw_os_error()));
    match replaced {
        Err(e) if done.contains(&e.errno()) => provide(condo, record),
        other => other,
    }
}

/// Puts another firewall in force, also one that is none.
pub(in crate::vps) fn screen(condo: &Condo, record: &Record, filter: &Filter) -> Result<()> {
    with(condo, record, filter, |services| services.provide())
}

/// Closes some of the ports that a record has, or had a moment ago.
pub(in crate::vps) fn close(condo: &Condo, record: &Record, publications: &[Publication]) -> Result<()> {
    with(condo, record, &record.config.firewall, |services| {
        services.close(publications)
    })
}

/// Takes all of it away.
pub(super) fn withdraw(condo: &Condo, record: &Record) -> Result<()> {
    with(condo, record, &record.config.firewall, |services| {
        services.withdraw()
    })
}

fn with(
    condo: &Condo,
    record: &Record,
    filter: &Filter,
    work: impl FnOnce(&Services<'_>) -> Result<()>,
) -> Result<()> {
    let publications: Vec<Publication> = record.config.publish.iter().copied().collect();
    work(&Services {
        table: &condo.folders.table(),
        label: &condo.folders.interface(record.id, 0),
        name: record.name.as_str(),
        addresses: &network::addresses(condo, record)?,
        publications: &publications,
        filter,
    })
}
