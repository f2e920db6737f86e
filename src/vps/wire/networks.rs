//! Networks as the operator makes, changes and deletes them.

use std::net::Ipv4Addr;

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::live;
use super::network::{lock, named, of, port, private6, runs, subnets};
use crate::error::{Error, Result};
use crate::net::{self, Kind, Network};
use crate::vps::record::domain::Domain;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::{NetworkRecord, Range};
use crate::vps::wire::resolver;

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNetwork {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// Its addresses, if not a range chosen by condo.
    pub subnet: Option<Ipv4Network>,
    /// Its IPv6 addresses, if not a range chosen by condo.
    pub subnet6: Option<Ipv6Network>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// The operator's bridge, for a network of kind bridged.
    pub bridge: Option<String>,
    /// The router of a bridged network, if not its first address.
    pub gateway: Option<Ipv4Addr>,
    /// Whether VPSs ask for names at the gateway.
    pub dns: bool,
    /// Where its VPSs have a name besides `NAME.condo`.
    pub domain: Option<Domain>,
}

/// What is to be changed of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChange {
    /// Largest packet in bytes, for VPSs that start from now on.
    pub mtu: Option<u32>,
    /// Its IPv6 addresses, for VPSs that start from now on.
    pub subnet6: Option<Ipv6Network>,
    /// Whether VPSs that start from now on ask for names at the gateway.
    pub dns: Option<bool>,
    /// Where its VPSs have a name besides `NAME.condo`; inside, nowhere.
    pub domain: Option<Option<Domain>>,
}

impl Condo {
    /// All networks, the default one first.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>> {
        of(self)?;
        self.store.networks()
    }

    /// One network, with the VPSs that are on it.
    pub fn network(&self, name: &Name) -> Result<(NetworkRecord, Vec<Name>)> {
        let record = named(self, name)?;
        let users = self.store.on_network(&record)?;
        Ok((record, users))
    }

    /// Makes a network. Its link comes with the first VPS on it.
    ///
    /// # Errors
    /// [`Error::Exists`] for a name that is taken, [`Error::Invalid`] for a range that overlaps another network or a route of
    /// the host.
    pub fn create_network(&self, new: &NewNetwork) -> Result<NetworkRecord> {
        of(self)?;
        check_link(new)?;
        let routes = net::routes()?;
        self.store.add_network(&new.name, &|others, number| {
            let taken: Vec<_> = subnets(others).collect();
            let subnet = match new.subnet {
                Some(subnet) => free(subnet, new.kind, &taken, &routes)?,
                None if new.kind == Kind::Nat || new.kind == Kind::Isolated => {
                    let taken: Vec<_> = taken.iter().chain(&routes).copied().collect();
                    net::choose_subnet(&taken)?
                }
                None => return Err(no_range(new.kind)),
            };
            let bridge = match &new.bridge {
                Some(bridge) => bridge.clone(),
                None => self.folders.link(number),
            };
            let network = Network {
                kind: new.kind,
                subnet6: match new.kind {
                    Kind::Nat | Kind::Isolated if new.subnet6.is_none() => private6()?,
                    _ => new.subnet6,
                },
                mtu: new.mtu,
                router: new.gateway,
                dns: new.dns,
                ..Network::new(&bridge, &self.folders.table(), subnet)
            };
            network.check()?;
            Ok(NetworkRecord {
                name: new.name.clone(),
                number,
                network,
                reserved: Vec::new(),
                domain: new.domain.clone(),
            })
        })
    }

    /// Changes a network; what VPSs have of it changes when they start.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be, and for other IPv6 addresses than a VPS has that runs.
    pub fn change_network(&self, name: &Name, change: &NetworkChange) -> Result<NetworkRecord> {
        let before = named(self, name)?;
        let _lock = lock(self)?;
        if let Some(subnet) = change
            .subnet6
            .filter(|subnet| Some(*subnet) != before.network.subnet6)
        {
            self.refuse_to_renumber(&before, subnet)?;
        }
        let record = self.store.change_network(name, &|record| {
            let network = &mut record.network;
            network.mtu = change.mtu.or(network.mtu);
            network.subnet6 = change.subnet6.or(network.subnet6);
            network.dns = change.dns.unwrap_or(network.dns);
            if let Some(domain) = &change.domain {
                record.domain.clone_from(domain);
            }
            record.network.check()
        })?;
        record.network.supersede(&before.network)?;
        self.tell_names(&record)?;
        Ok(record)
    }

    /// Addresses follow from the network's: those that a running VPS has in the kernel would not be found when it ends.
    fn refuse_to_renumber(&self, record: &NetworkRecord, subnet: Ipv6Network) -> Result<()> {
        let Some(has) = record.network.subnet6 else {
            return Ok(());
        };
        for vps in self.store.on_network(record)? {
            if runs(self, &self.store.get_any(&vps)?) {
                let problem =
                    format!("cannot replace `{has}` while VPSs run on it; first `condo stop {vps}`");
                return Err(Error::invalid("--subnet6", subnet, problem));
            }
        }
        Ok(())
    }

    /// Brings what the name server of a network knows up to date.
    fn tell_names(&self, record: &NetworkRecord) -> Result<()> {
        if !record.network.dns {
            return resolver::clear(self, record);
        }
        for vps in self.store.on_network(record)? {
            let vps = self.store.get_any(&vps)?;
            if runs(self, &vps) {
                let interface = live::interface_on(&vps, &record.name)?;
                resolver::tell(self, &vps, record, &port(self, &vps, &interface, &record.network))?;
            }
        }
        Ok(())
    }

    /// Deletes a network that no VPS is on.
    pub fn delete_network(&self, name: &Name) -> Result<()> {
        named(self, name)?;
        let _lock = lock(self)?;
        // The link goes first: one that no record names would never be found again.
        let retire = |record: &NetworkRecord| {
            resolver::close(self, record)?;
            record.network.retire()
        };
        self.store.remove_network(name, &retire).map(drop)
    }

    /// Keeps addresses of a network for those who ask for them by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range outside of the network.
    pub fn reserve(&self, name: &Name, range: Range) -> Result<NetworkRecord> {
        named(self, name)?;
        self.store.change_network(name, &|record| {
            let subnet = record.network.subnet;
            if !subnet.contains(range.first) || !subnet.contains(range.last) {
                let problem = format!("is not in the network `{subnet}`");
                return Err(Error::invalid("ADDRESS", range, problem));
            }
            if !record.reserved.contains(&range) {
                record.reserved.push(range);
                record.reserved.sort();
            }
            Ok(())
        })
    }

    /// Takes back [`Condo::reserve`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when these addresses are not reserved.
    pub fn release(&self, name: &Name, range: Range) -> Result<NetworkRecord> {
        named(self, name)?;
        self.store.change_network(name, &|record| {
            let before = record.reserved.len();
            record.reserved.retain(|other| *other != range);
            if record.reserved.len() == before {
                return Err(Error::NotFound {
                    kind: "reservation",
                    name: range.to_string(),
                });
            }
            Ok(())
        })
    }
}

fn no_range(kind: Kind) -> Error {
    let problem = match kind {
        Kind::Routed => "is missing: a routed network has addresses of yours",
        _ => "is missing: a bridged network has the addresses of the network behind the bridge",
    };
    Error::invalid("--subnet", "", problem)
}

fn check_link(new: &NewNetwork) -> Result<()> {
    match &new.bridge {
        None if new.kind.is_bridged() => Err(Error::invalid(
            "--bridge",
            "",
            "is missing: name the bridge of yours that a bridged network is on",
        )),
        Some(bridge) if !new.kind.is_bridged() => Err(Error::invalid(
            "--bridge",
            bridge,
            "is for networks of `--kind bridged`; condo makes the links of all others",
        )),
        Some(bridge) if !net::link_exists(bridge)? => Err(Error::NotFound {
            kind: "bridge",
            name: bridge.clone(),
        }),
        _ if new.gateway.is_some() && !new.kind.is_bridged() => Err(Error::invalid(
            "--gateway",
            new.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
            "is for networks of `--kind bridged`; on all others it is this host, by the first address",
        )),
        _ => Ok(()),
    }
}

/// The wanted range, if it overlaps neither a network nor, where this host is alone on it, a route. Operators' ranges are routed
/// here or are a part of a network that the host is on.
fn free(
    wanted: Ipv4Network,
    kind: Kind,
    taken: &[Ipv4Network],
    routes: &[Ipv4Network],
) -> Result<Ipv4Network> {
    if let Some(other) = taken.iter().find(|other| other.overlaps(wanted)) {
        let problem = format!("overlaps the network `{other}`; `condo network list` shows all");
        return Err(Error::invalid("--subnet", wanted, problem));
    }
    let alone = matches!(kind, Kind::Nat | Kind::Isolated);
    if let Some(route) = routes.iter().find(|route| alone && route.overlaps(wanted)) {
        let problem =
            format!("overlaps the route `{route}` of this host, which could not be reached any more");
        return Err(Error::invalid("--subnet", wanted, problem));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_that_are_in_use_are_refused() {
        let (taken, routes) = ([net("10.1.0.0/16")], [net("192.0.2.0/24")]);
        let ask = |wanted: &str, kind| free(net(wanted), kind, &taken, &routes);
        ask("10.2.0.0/16", Kind::Nat).unwrap();
        ask("192.0.2.64/27", Kind::Routed).unwrap();
        let text = ask("192.0.2.64/27", Kind::Nat).unwrap_err().to_string();
        assert!(text.contains("`192.0.2.0/24`"), "{text}");
        for kind in Kind::ALL {
            assert!(ask("10.1.5.0/24", kind).is_err());
        }
    }
}
