//! The networks of an instance and the ports of its VPSs on them: made, taken away, put back, and who may talk to whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{During, Failures, Result};
use crate::files::{self, Lock};
use crate::net::ipam::{self, Taken};
use crate::net::{self, Mac, Network, Port, Rates, port_mac};
use crate::vps::record::attachment::{Attachment, Interface};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;
use crate::vps::wire::seen::{self, Seen};
use crate::vps::wire::{resolver, services, traffic};

/// The default network; its subnets are chosen on first use, so that they collide with no route of the host.
pub(in crate::vps) fn of(condo: &Condo) -> Result<NetworkRecord> {
    let name = NetworkRecord::default_name();
    match condo.store.network(&name) {
        Err(e) if e.is_gone() => {}
        other => return other,
    }
    let taken: Vec<_> = subnets(&condo.store.networks()?).chain(net::routes()?).collect();
    let subnet = net::choose_subnet(&taken)?;
    condo.store.set_network_if_absent(&NetworkRecord {
        name,
        number: 0,
        network: Network {
            subnet6: private6()?,
            ..Network::new(&condo.folders.bridge(), &condo.folders.table(), subnet)
        },
        reserved: Vec::new(),
        domain: None,
    })
}

/// A private range of IPv6, where there is IPv6.
pub(super) fn private6() -> Result<Option<ipnetwork::Ipv6Network>> {
    net::has_ipv6().then(net::choose_subnet6).transpose()
}

/// What networks have for themselves.
pub(super) fn subnets(all: &[NetworkRecord]) -> impl Iterator<Item = ipnetwork::Ipv4Network> {
    all.iter().map(|record| record.network.subnet)
}

/// One network by its name; the default one is made when it is first named.
pub(in crate::vps) fn named(condo: &Condo, name: &Name) -> Result<NetworkRecord> {
    if *name == NetworkRecord::default_name() {
        return of(condo);
    }
    condo.store.network(name)
}

/// Sees to it that an attachment can be had, as far as it says what it wants.
pub(in crate::vps) fn check(condo: &Condo, attachment: &Attachment) -> Result<()> {
    let record = named(condo, &attachment.network)?;
    if let Some(ip) = attachment.ip {
        ipam::pick(record.network.subnet, &Taken::default(), Some(ip))?;
    }
    if let Some(ip) = attachment.ip6 {
        ipam::check6(record.network.subnet6, ip)?;
    }
    Ok(())
}

/// Chooses an address for an attachment.
pub(in crate::vps) fn pick(condo: &Condo, attachment: &Attachment, taken: &Taken) -> Result<Ipv4Addr> {
    let record = named(condo, &attachment.network)?;
    let reserved = record.reserved.iter().map(|range| (range.first, range.last));
    let taken = Taken {
        reserved: reserved.collect(),
        ..taken.clone()
    };
    ipam::pick(record.network.subnet, &taken, None)
}

/// A VPS's port on a network.
pub(in crate::vps) fn port(condo: &Condo, record: &Record, interface: &Interface, network: &Network) -> Port {
    let mac = hardware_address(record, interface, network);
    Port {
        host_if: condo.folders.interface(record.id, interface.number),
        line: condo.folders.interface(record.id, 0),
        guest_if: interface.name(),
        is_first: is_way_out(record, interface),
        mac: mac.0,
        address: interface.address,
        address6: address6(interface, network, mac),
        mtu: network.mtu,
    }
}

/// Where a VPS asks for names: on the network of its way out.
pub(in crate::vps) fn resolvers(condo: &Condo, record: &Record) -> Result<Vec<Ipv4Addr>> {
    match record.interfaces.first() {
        Some(first) => Ok(named(condo, &first.network)?.network.resolvers()),
        None => Ok(net::resolvers()),
    }
}

fn is_way_out(record: &Record, interface: &Interface) -> bool {
    record.interfaces.first() == Some(interface)
}

/// Where others than condo's VPSs are on the same wire, nobody else may derive the same one: another host's condo has a VPS of
/// the same number.
fn hardware_address(record: &Record, interface: &Interface, network: &Network) -> Mac {
    let derived = || {
        let mut mac = port_mac(record.id, interface.number);
        if network.kind.is_bridged() {
            let digits: Vec<u8> = record.uuid.bytes().filter(u8::is_ascii_hexdigit).collect();
            let pairs = digits.chunks_exact(2).rev();
            let unique = pairs.filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
            mac[2..].iter_mut().zip(unique).for_each(|(to, byte)| *to = byte);
            mac[1] = 0x64 + interface.number;
        }
        Mac(mac)
    };
    interface.mac.unwrap_or_else(derived)
}

/// The one it asked for, or the one that a system would give itself on this network.
fn address6(interface: &Interface, network: &Network, mac: Mac) -> Option<Ipv6Addr> {
    let derived = || Some(ipam::derived6(network.subnet6?, mac.0));
    interface.address6.or_else(derived)
}

/// The ports of a VPS, with the network of each.
pub(in crate::vps) fn ports(condo: &Condo, record: &Record) -> Result<Vec<(NetworkRecord, Port)>> {
    ports_on(condo, &[], record)
}

/// The same, of networks that were read before.
pub(in crate::vps) fn ports_on(
    condo: &Condo,
    networks: &[NetworkRecord],
    record: &Record,
) -> Result<Vec<(NetworkRecord, Port)>> {
    let of_interface = |interface: &Interface| {
        let network = match networks.iter().find(|known| known.name == interface.network) {
            Some(known) => known.clone(),
            None => named(condo, &interface.network)?,
        };
        let port = port(condo, record, interface, &network.network);
        Ok((network, port))
    };
    record.interfaces.iter().map(of_interface).collect()
}

/// All addresses of a VPS.
pub(in crate::vps) fn addresses(condo: &Condo, record: &Record) -> Result<Vec<IpAddr>> {
    Ok(ports(condo, record)?
        .iter()
        .flat_map(|(_, port)| port.addresses())
        .collect())
}

/// Held around changes of links and table: the last VPS takes them away while the first one makes them.
pub(super) fn lock(condo: &Condo) -> Result<Lock> {
    Lock::wait(&path(condo))
}

/// Held by all who join and leave networks, which they may at once: what is a VPS's own has its own names and elements.
fn share(condo: &Condo) -> Result<Lock> {
    Lock::shared(&path(condo))
}

fn path(condo: &Condo) -> PathBuf {
    condo.folders.run().join("network.lock")
}

/// Whether a VPS runs, or ended a moment ago and is not cleared away.
pub(super) fn runs(condo: &Condo, record: &Record) -> bool {
    files::exists(&condo.folders.run_of(&record.name))
}

/// The pairs of addresses that let a VPS talk to another.
pub(super) fn between(condo: &Condo, record: &Record, peer: &Name) -> Result<Vec<(IpAddr, IpAddr)>> {
    let theirs = addresses(condo, &condo.store.get_any(peer)?)?;
    let own = addresses(condo, record)?;
    let all = own.iter().flat_map(|a| theirs.iter().map(move |b| (*a, *b)));
    Ok(all.filter(|(a, b)| a.is_ipv4() == b.is_ipv4()).collect())
}

/// Whether a run of any VPS has left something, or goes on.
pub(in crate::vps) fn any_runs(condo: &Condo) -> bool {
    std::fs::read_dir(condo.folders.runs()).is_ok_and(|mut entries| entries.next().is_some())
}

/// Routes of the host, also later ones, that have addresses of a network: which network, and which route.
pub(in crate::vps) fn collisions(condo: &Condo) -> Result<Vec<(Name, ipnetwork::Ipv4Network)>> {
    let mut found = Vec::new();
    for record in condo.store.networks()? {
        let others = record.network.collisions()?;
        found.extend(others.into_iter().map(|other| (record.name.clone(), other)));
    }
    Ok(found)
}

/// Says so where a VPS starts on a network that cannot be reached altogether.
pub(in crate::vps) fn warn_of_collisions(condo: &Condo, record: &Record) -> Result<()> {
    for (name, other) in collisions(condo)? {
        if record
            .interfaces
            .iter()
            .any(|interface| interface.network == name)
        {
            log::warn!(
                "the host has a route to `{other}`, which overlaps the network `{name}`: one of the two is out of reach"
            );
        }
    }
    Ok(())
}

/// Connects a VPS whose init runs nothing of its own yet, by all its interfaces.
pub(in crate::vps) fn attach(condo: &Condo, record: &Record, netns: BorrowedFd<'_>) -> Result<()> {
    let ports = ports(condo, record)?;
    for (network, _) in &ports {
        set_up(condo, &network.network)?;
    }
    let _lock = share(condo)?;
    seen::across(condo, || {
        for (network, port) in &ports {
            network
                .network
                .attach(port, netns)
                .during(|| format!("join the network `{}`", network.name))?;
            resolver::tell(condo, record, network, port)?;
        }
        shape_new(record, &ports)?;
        services::provide(condo, record)?;
        allow_peers(condo, record, &ports)
    })
}

/// Makes what all VPSs on a network share, unless it stands. One at a time: of two that wrote the rules of one chain, each would find
/// the other's in it.
fn set_up(condo: &Condo, network: &Network) -> Result<()> {
    // An operator's bridge is looked at each time.
    if !network.kind.is_bridged() && stands(condo, network)? {
        return Ok(());
    }
    let _lock = lock(condo)?;
    network.ensure()
}

/// For how long rules that stood are taken to stand.
const MOMENT: Duration = Duration::from_millis(100);

/// Whether all that VPSs share stands. Of many that one command starts each changes the rules while another does, so nothing would be known
/// of them, and they would be read for each; ten times a second is enough.
fn stands(condo: &Condo, network: &Network) -> Result<bool> {
    static STOOD: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());
    let stood = || STOOD.lock().unwrap_or_else(PoisonError::into_inner);
    // The last VPS takes all of it along, the link first.
    if !network.link_stands()? {
        return Ok(false);
    }
    if stood()
        .get(&network.bridge)
        .is_some_and(|at| at.elapsed() < MOMENT)
    {
        return Ok(true);
    }
    let mut seen = Seen::now(condo)?;
    let stand = seen.stand(network)?;
    seen.keep()?;
    if stand {
        stood().insert(network.bridge.clone(), Instant::now());
    }
    Ok(stand)
}

/// Holds new ports to the VPS's rates, if it has any.
pub(super) fn shape_new(record: &Record, ports: &[(NetworkRecord, Port)]) -> Result<()> {
    let rates = record.config.limits.rates();
    match rates == Rates::default() {
        true => Ok(()),
        false => net::shape(&borrowed(ports), &rates),
    }
}

fn borrowed(ports: &[(NetworkRecord, Port)]) -> Vec<(&Network, &Port)> {
    let ports = ports.iter();
    ports.map(|(record, port)| (&record.network, port)).collect()
}

pub(super) fn allow_peers(condo: &Condo, record: &Record, ports: &[(NetworkRecord, Port)]) -> Result<()> {
    let Some((network, _)) = ports.first() else {
        return Ok(());
    };
    for (peer, _) in condo.store.peers(&record.name)? {
        let pairs = between(condo, record, &peer)?;
        network
            .network
            .allow(&pairs)
            .during(|| format!("allow traffic with `{peer}`"))?;
    }
    Ok(())
}

/// Takes a VPS off its networks; one that is off already is fine.
pub(in crate::vps) fn detach(condo: &Condo, record: &Record) -> Result<()> {
    let mut failures = Failures::default();
    failures.note(disconnect(condo, record));
    // Without the lock: it waits, and others have work to do meanwhile.
    failures.note(net::sweep());
    failures.into_result()
}

/// Removes the interfaces that whoever disconnected a VPS did not come to remove.
pub(in crate::vps) fn sweep() -> Result<()> {
    net::sweep()
}

fn disconnect(condo: &Condo, record: &Record) -> Result<()> {
    let _lock = share(condo)?;
    seen::across(condo, || withdraw(condo, record))
}

fn withdraw(condo: &Condo, record: &Record) -> Result<()> {
    let mut failures = Failures::default();
    traffic::finish(condo, record);
    failures.note(services::withdraw(condo, record));
    for (network, port) in ports(condo, record)? {
        failures.note(resolver::forget(condo, record, &network));
        // The pairs of its addresses go with it.
        failures.note(network.network.disconnect(&port));
    }
    // The first interface may have gone before.
    failures.note(net::give_up(&condo.folders.interface(record.id, 0)));
    failures.into_result()
}

/// Holds a connected VPS to these rates, all its interfaces together, whatever held before.
pub(in crate::vps) fn shape(condo: &Condo, record: &Record, rates: &Rates) -> Result<()> {
    traffic::recount(condo, record, || {
        net::shape(&borrowed(&ports(condo, record)?), rates)
    })
}

/// Makes the kernel forget the connections of a VPS that gives its addresses up.
pub(in crate::vps) fn forget(condo: &Condo, record: &Record) -> Result<()> {
    net::forget(&addresses(condo, record)?)
}

/// Takes links and table away when no VPS is left that could use them.
pub(in crate::vps) fn remove_if_unused(condo: &Condo) -> Result<()> {
    // Asked first without the lock, for which all who join and leave have to be waited for.
    if !condo.store.is_empty()? {
        return Ok(());
    }
    let _lock = lock(condo)?;
    if !condo.store.is_empty()? {
        return Ok(());
    }
    let mut failures = Failures::default();
    failures.note(seen::forget(condo));
    for record in condo.store.networks()? {
        failures.note(record.network.remove());
    }
    failures.into_result()
}
