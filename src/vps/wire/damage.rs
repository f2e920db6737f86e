//! What somebody takes away from running VPSs on the host is put back by the next command, whichever it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::network::{any_runs, between, lock, port, runs};
use super::seen::Seen;
use super::services;
use crate::error::Result;
use crate::net;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;

/// Puts back what somebody took away while VPSs run: the rules with `nft flush ruleset`, as a restart of Debian's
/// nftables.service does, or a bridge. Until then nothing of theirs gets through (see [`net`]).
pub(in crate::vps) fn restore_if_damaged(condo: &Condo) -> Result<()> {
    if !any_runs(condo) {
        return Ok(());
    }
    let mut seen = Seen::now(condo)?;
    let mut damaged = Vec::new();
    for record in condo.store.networks()? {
        let network = &record.network;
        if !(network.link_stands()? && seen.stand(network)?) {
            damaged.push(record);
        }
    }
    if !damaged.is_empty() {
        // Most of them are only networks that no running VPS is on.
        let running = running(condo)?;
        damaged.retain(|record| running.iter().any(|vps| is_on(vps, record)));
    }
    match damaged.is_empty() {
        true => seen.keep(),
        false => restore(condo, &damaged),
    }
}

fn restore(condo: &Condo, damaged: &[NetworkRecord]) -> Result<()> {
    let _lock = lock(condo)?;
    let running = running(condo)?;
    let pairs = pairs_of(condo, &running)?;
    for record in damaged {
        let network = &record.network;
        let on_it = running.iter().flat_map(|vps| {
            let own = vps
                .interfaces
                .iter()
                .filter(|interface| interface.network == record.name);
            own.map(|interface| port(condo, vps, interface, network))
        });
        network.restore(&on_it.collect::<Vec<_>>(), &pairs)?;
    }
    running
        .iter()
        .filter(|vps| is_attached(condo, vps))
        .try_for_each(|vps| services::provide(condo, vps))
}

fn running(condo: &Condo) -> Result<Vec<Record>> {
    let mut running = condo.store.list()?;
    running.retain(|record| runs(condo, record));
    Ok(running)
}

fn is_on(vps: &Record, network: &NetworkRecord) -> bool {
    let mut interfaces = vps.interfaces.iter();
    interfaces.any(|interface| interface.network == network.name)
}

fn is_attached(condo: &Condo, record: &Record) -> bool {
    net::link_exists(&condo.folders.interface(record.id, 0)).unwrap_or(false)
}

/// Which addresses of these VPSs may talk to each other.
fn pairs_of(condo: &Condo, running: &[Record]) -> Result<Vec<(IpAddr, IpAddr)>> {
    let names: BTreeSet<&Name> = running.iter().map(|record| &record.name).collect();
    let mut pairs = Vec::new();
    for record in running {
        for (peer, _) in condo.store.peers(&record.name)? {
            if names.contains(&peer) {
                pairs.extend(between(condo, record, &peer)?);
            }
        }
    }
    Ok(pairs)
}
