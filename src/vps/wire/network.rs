//! The network of an instance and of its VPSs: which subnet, which port, who may talk to whom.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use crate::error::{During, Error, Failures, Result};
use crate::files::{self, Lock};
use crate::net::{self, Network, Port};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::{NetworkSettings, Record};

/// The instance's network; its subnet is chosen on first use, so that it collides with no route of the host.
pub(in crate::vps) fn of(condo: &Condo) -> Result<Network> {
    let settings = match condo.store.network()? {
        Some(settings) => settings,
        None => condo.store.set_network_if_absent(&NetworkSettings {
            bridge: condo.folders.bridge(),
            table: condo.folders.table(),
            subnet: net::choose_subnet(&net::routes()?)?.to_string(),
        })?,
    };
    let unusable = || {
        Error::Corrupt(format!(
            "the database holds an unusable subnet: `{}`",
            settings.subnet
        ))
    };
    let subnet = settings.subnet.parse().map_err(|_| unusable())?;
    Ok(Network {
        bridge: settings.bridge,
        table: settings.table,
        subnet,
    })
}

fn port(condo: &Condo, record: &Record) -> Port {
    Port {
        host_if: condo.folders.interface(record.id),
        ..Port::new(record.id, record.address)
    }
}

/// Held around changes of bridge and table: the last VPS takes them away while the first one makes them.
fn lock(condo: &Condo) -> Result<Lock> {
    Lock::wait(&condo.folders.run().join("network.lock"))
}

/// Puts back what somebody took away while VPSs run: the rules with `nft flush ruleset`, as a restart of Debian's
/// nftables.service does, or the bridge. Until then nothing of theirs gets through (see [`net`]).
pub(in crate::vps) fn restore_if_damaged(condo: &Condo) -> Result<()> {
    if !any_runs(condo) || condo.store.network()?.is_none() {
        return Ok(());
    }
    let network = of(condo)?;
    if network.stands()? {
        return Ok(());
    }
    let _lock = lock(condo)?;
    let runs = |record: &Record| files::exists(&condo.folders.run_of(&record.name));
    let running: Vec<Record> = condo.store.list()?.into_iter().filter(runs).collect();
    let ports: Vec<Port> = running.iter().map(|record| port(condo, record)).collect();
    let names: BTreeSet<&Name> = running.iter().map(|record| &record.name).collect();
    let mut pairs = Vec::new();
    for record in &running {
        for (peer, address) in condo.store.peers(&record.name)? {
            if names.contains(&peer) {
                pairs.push((record.address, address));
            }
        }
    }
    network.restore(&ports, &pairs)
}

fn any_runs(condo: &Condo) -> bool {
    std::fs::read_dir(condo.folders.runs()).is_ok_and(|mut entries| entries.next().is_some())
}

/// Connects a VPS whose init waits.
pub(in crate::vps) fn attach(condo: &Condo, record: &Record, netns: BorrowedFd<'_>) -> Result<()> {
    let network = of(condo)?;
    let _lock = lock(condo)?;
    network.ensure()?;
    network.attach(&port(condo, record), netns)?;
    for (peer, address) in condo.store.peers(&record.name)? {
        network
            .allow(record.address, address)
            .during(|| format!("allow traffic with `{peer}`"))?;
    }
    Ok(())
}

/// Takes a VPS off the network; one that is off already is fine.
pub(in crate::vps) fn detach(condo: &Condo, record: &Record) -> Result<()> {
    let network = of(condo)?;
    let _lock = lock(condo)?;
    let mut failures = Failures::default();
    for (_, address) in condo.store.peers(&record.name)? {
        failures.note(network.disallow(record.address, address));
    }
    failures.note(network.detach(&port(condo, record)));
    failures.into_result()
}

/// Makes the kernel forget the connections of a VPS that gives its address up.
pub(in crate::vps) fn forget(condo: &Condo, record: &Record) -> Result<()> {
    of(condo)?.forget(record.address)
}

/// Takes bridge and table away when no VPS is left that could use them.
pub(in crate::vps) fn remove_if_unused(condo: &Condo) -> Result<()> {
    let _lock = lock(condo)?;
    if condo.store.list()?.is_empty()
        && let Some(settings) = condo.store.network()?
        && let Ok(subnet) = settings.subnet.parse()
    {
        return Network {
            bridge: settings.bridge,
            table: settings.table,
            subnet,
        }
        .remove();
    }
    Ok(())
}
