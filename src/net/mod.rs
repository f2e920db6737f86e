//! The network of VPSs: a link of the host's that all of them are behind, and a firewall table, both made over netlink.
//!
//! ```text
//!   VPS eth0 ── veth ── vc<id> ─┐  fenced, then handed to condo0, which hands back what is for it (see delivery)
//!   VPS eth0 ── veth ── vc<id> ─┤
//!                            condo0  a bridge without ports, fenced; gateway address, proxy_arp_pvlan, permanent neighbours
//!                               │
//!                      netdev table condo: gate
//!                       inet table condo: antispoof, share, input, forward, deliver, masquerade
//!                               │
//!                         the host's other interfaces, under the host's address
//! ```
//! A port reaches the host and nothing else, so every packet between VPSs is routed by the host and meets the firewall.
//! A VPS can send from its own hardware and IPv4 address only; nobody learns anything from what it claims by ARP. It cannot
//! reach services of the host (ping is answered) nor link-local addresses, where clouds keep their metadata, and it has no more
//! connections than its share. Its port answers DHCP with the address it has anyway, and by IPv6 what it asks about neighbours.
//!
//! Where somebody takes the tables away (`nft flush ruleset`), the fence (`fence.rs`) stays: nothing gets further than condo0 until
//! [`Network::restore`] has put them back.
//!
//! Only `ip_forward` and the room for fragments are set for the host as a whole: a host that must not route between its other
//! interfaces needs a rule of its own. Another table that drops forwarded packets by policy also drops those of VPSs; Docker's has a place for exceptions, where
//! condo's are (`passage.rs`).
//!
//! All calls work on the network namespace of the calling thread and wait for the kernel's answer.

mod bridge;
mod classifier;
mod code;
mod connection;
mod conntrack;
mod delivery;
mod device;
mod elements;
mod fence;
mod fence6;
pub mod filter;
mod firewall;
pub mod ipam;
mod kind;
mod lease;
mod link;
mod mac;
mod map;
pub mod meter;
mod netlink;
mod netns;
pub mod others;
mod own;
mod pair;
mod passage;
mod port;
pub mod publication;
mod publish;
pub mod rate;
mod resolver;
mod route;
mod rule;
mod ruleset;
mod screen;
mod service;
mod set;
mod shape;
mod shortcut;
mod standing;
mod subnet;
mod sysctl;
mod together;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

pub use conntrack::forget;
pub use device::Devices;
pub use kind::Kind;
pub use mac::Mac;
pub use port::{Port, interface_id, port_mac};
pub use rate::Rates;
pub use resolver::{PUBLIC_RESOLVERS, resolver_file, resolvers};
pub use route::routes;
pub use service::Services;
pub use shape::{give_up, shape};
pub use standing::{Generation, generation};
pub use subnet::{choose_subnet, choose_subnet6};
pub use sysctl::has_ipv6;

use crate::error::{During, Error, Failures, Result};
use elements::Change;
pub use netlink::changes;
use netlink::{Channel, forgive_gone};

/// A network of a condo instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What it is for.
    #[serde(default)]
    pub kind: Kind,
    /// Its link on the host, a bridge: `condo0`, or the operator's.
    pub bridge: String,
    /// The nftables table of family `inet`, which all networks of an instance share: `condo`.
    pub table: String,
    /// The VPSs' addresses; the first belongs to the host.
    pub subnet: Ipv4Network,
    /// Their IPv6 addresses, if any; the first belongs to the host.
    #[serde(default)]
    pub subnet6: Option<Ipv6Network>,
    /// Largest packet in bytes, when not the kernel's default of 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The way out of a bridged network, if not its first address.
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// Whether VPSs ask for names at the gateway, which knows theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dns: bool,
}

impl Network {
    /// A network of kind nat without IPv6.
    pub fn new(bridge: &str, table: &str, subnet: Ipv4Network) -> Self {
        Self {
            kind: Kind::Nat,
            bridge: bridge.to_owned(),
            table: table.to_owned(),
            subnet,
            subnet6: None,
            mtu: None,
            router: None,
            dns: false,
        }
    }

    /// The VPSs' default route: the host's address on the link, or the router of a bridged network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.router.unwrap_or_else(|| ipam::gateway(self.subnet))
    }

    /// Where its VPSs ask for names.
    pub fn resolvers(&self) -> Vec<Ipv4Addr> {
        match self.dns {
            true => vec![self.gateway()],
            false => resolvers(),
        }
    }

    /// Sees to it that bridge, settings and firewall are there. Cheap when they are, and safe when two processes do it at once.
    ///
    /// # Errors
    /// [`Error::Exists`] when the bridge's or table's name is taken by something condo did not make, [`Error::Invalid`] for
    /// names and subnets that cannot be used.
    pub fn ensure(&self) -> Result<()> {
        self.check()?;
        // The firewall first: no VPS is ever on a bridge without it.
        let mut channel = Channel::netfilter()?;
        firewall::rules(&self.table).ensure(&mut channel)?;
        Change::of(self)
            .add_each(&self.own_elements())
            .apply(&mut channel)?;
        self.ensure_bridge()
            .during(|| format!("set up bridge `{}`", self.bridge))?;
        self.open_passage()
    }

    /// Connects a VPS: a veth pair from the host to `eth0` inside `netns`, which gets its addresses and default route.
    ///
    /// What a killed attach of the same port left behind is replaced; what this one did is undone when it fails, and then the
    /// pairs of the address are forgotten as by [`Network::detach`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the network is not set up, [`Error::Exists`] for an address or interface that another VPS has,
    /// [`Error::Unsupported`] when an operator's bridge has no port left.
    pub fn attach(&self, port: &Port, netns: BorrowedFd<'_>) -> Result<()> {
        self.connect(port, netns)
            .during(|| format!("connect `{}`", port.address))
    }

    /// Disconnects a VPS and forgets its pairs; what is gone already is fine.
    ///
    /// # Errors
    /// All that could not be removed, after the rest was.
    pub fn detach(&self, port: &Port) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.disconnect(port));
        failures.note(sweep());
        failures.into_result()
    }

    /// As [`Network::detach`], but for the interfaces: they lead nowhere any more, and are there until the next [`sweep`].
    ///
    /// # Errors
    /// All that could not be done, after the rest was.
    pub fn disconnect(&self, port: &Port) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.dismiss(port));
        failures.note(self.unplug(port));
        failures
            .into_result()
            .during(|| format!("disconnect `{}`", port.address))
    }

    /// Removes bridge and table; what is gone already is fine, and so is what condo did not make, which stays. For the last network:
    /// the table is that of all.
    ///
    /// # Errors
    /// All that could not be removed, after the rest was.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.remove_link());
        failures.note(self.close_passage());
        failures.note(firewall::rules(&self.table).remove(&mut Channel::netfilter()?));
        failures.into_result()
    }

    /// Removes the bridge and what the table has of it, and leaves the table to other networks.
    ///
    /// # Errors
    /// As for [`Network::remove`].
    pub fn retire(&self) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.remove_link());
        failures.note(self.close_passage());
        let mut channel = Channel::netfilter()?;
        let own = Change::of(self).remove_each(&self.own_elements());
        failures.note(forgive_gone(own.apply(&mut channel)));
        failures.into_result()
    }

    /// Puts back what somebody took away from a network in use: rules, bridge, fences, and what belongs to each of `ports`
    /// that is attached, with the `pairs` that may talk. What is there already is fine, and a network that has no port is left.
    ///
    /// # Errors
    /// Those of [`Network::ensure`], and of the netlink sockets.
    pub fn restore(&self, ports: &[Port], pairs: &[(IpAddr, IpAddr)]) -> Result<()> {
        self.check()?;
        let mut attached = Vec::new();
        for port in ports {
            if link::find(&mut Channel::route()?, &port.host_if)?.is_some() {
                attached.push(port);
            }
        }
        if attached.is_empty() {
            return Ok(());
        }
        let mut channel = Channel::netfilter()?;
        firewall::rules(&self.table).ensure(&mut channel)?;
        let mut elements = self.own_elements();
        elements.extend(attached.iter().flat_map(|port| self.elements_of(port)));
        elements.extend(pair::keys_of(pairs)?);
        // Before the gate opens.
        Change::of(self).add_each(&elements).apply(&mut channel)?;
        self.ensure_bridge()
            .during(|| format!("set up bridge `{}`", self.bridge))?;
        self.open_passage()?;
        attached.into_iter().try_for_each(|port| {
            self.reconnect(port)
                .during(|| format!("reconnect `{}`", port.address))
        })
    }

    /// Refuses names and ranges that cannot be used.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field.
    pub fn check(&self) -> Result<()> {
        check_name("bridge", &self.bridge)?;
        check_name("table", &self.table)?;
        if self.subnet.prefix() < 8 || self.subnet.prefix() > 29 {
            return Err(Error::invalid(
                "--subnet",
                self.subnet,
                "must have a prefix of 8 to 29 bits",
            ));
        }
        if self.subnet.ip() != self.subnet.network() {
            return Err(Error::invalid(
                "--subnet",
                self.subnet,
                "must name the network, not an address in it",
            ));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !(1280..=65_535).contains(mtu)) {
            return Err(Error::invalid(
                "--mtu",
                mtu,
                "must be from 1280, which IPv6 needs, to 65535",
            ));
        }
        if let Some(subnet) = self.subnet6 {
            ipam::check_subnet6(subnet)?;
            if self.kind.is_bridged() {
                return Err(Error::invalid(
                    "--subnet6",
                    subnet,
                    "is not for bridged networks, which have IPv4 only",
                ));
            }
        }
        if self.dns && self.kind.is_bridged() {
            return Err(Error::invalid(
                "--dns",
                "on",
                "is not for bridged networks, on which this host has no address",
            ));
        }
        match self.router {
            Some(router) if !self.subnet.contains(router) => {
                let problem = format!("is not in the network `{}`", self.subnet);
                Err(Error::invalid("--gateway", router, problem))
            }
            _ => Ok(()),
        }
    }

    /// Whether the outside sees this address of a VPS's as the host's.
    fn hides(&self, address: IpAddr) -> bool {
        let is_private = match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.is_unique_local(),
        };
        self.kind == Kind::Nat && is_private
    }
}

/// Removes the interfaces of all ports that were disconnected, whoever did it. The kernel waits for the whole machine whenever
/// interfaces go, once for however many: those who come meanwhile wait, and what they have disconnected goes together.
///
/// # Errors
/// Those of the netlink socket.
pub fn sweep() -> Result<()> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    link::delete_doomed(&mut Channel::route()?).during(|| "remove the interfaces of disconnected VPSs")
}

/// Whether a network interface of this name is there.
///
/// # Errors
/// Those of the netlink socket.
pub fn link_exists(name: &str) -> Result<bool> {
    Ok(link::find(&mut Channel::route()?, name)?.is_some())
}

/// Whether a network interface of this name is there and was brought up.
///
/// # Errors
/// Those of the netlink socket.
pub fn link_is_up(name: &str) -> Result<bool> {
    Ok(link::find(&mut Channel::route()?, name)?.is_some_and(|link| link.up))
}

/// Names end up in file names, interface names (15 characters) and the firewall.
fn check_name(field: &str, name: &str) -> Result<()> {
    let fits = (1..=15).contains(&name.len());
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits && plain {
        Ok(())
    } else {
        Err(Error::invalid(
            field,
            name,
            "must be 1 to 15 letters, digits, `-` or `_`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(bridge: &str, subnet: &str) -> Network {
        Network::new(bridge, "condo", subnet.parse().unwrap())
    }

    #[test]
    fn names_and_subnets_are_checked_before_anything_is_made() {
        network("condo0", "10.171.0.0/16").check().unwrap();
        for bad in ["", "a/b", "..", "sixteen-letters-", "a b", "a\nb"] {
            assert!(
                matches!(network(bad, "10.0.0.0/16").check(), Err(Error::Invalid { .. })),
                "{bad}"
            );
        }
        for bad in ["10.0.0.0/30", "10.0.0.1/24", "0.0.0.0/0"] {
            assert!(
                matches!(network("b", bad).check(), Err(Error::Invalid { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_network_survives_json() {
        let before = network("condo0", "10.171.0.0/16");
        let text = serde_json::to_string(&before).unwrap();
        assert!(text.contains("\"10.171.0.0/16\""), "{text}");
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), before);
        assert_eq!(before.gateway(), Ipv4Addr::new(10, 171, 0, 1));
    }
}
