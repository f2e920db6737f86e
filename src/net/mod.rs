//! The network of VPSs: a bridge whose ports are isolated from each other, and a firewall table, both made over netlink.
//!
//! ```text
//!   VPS eth0 ── veth ── vc<id> ─┐  fenced, isolated, locked, no learning, no flooding
//!   VPS eth0 ── veth ── vc<id> ─┤
//!                            condo0  fenced; gateway address, proxy_arp_pvlan, permanent neighbours
//!                               │
//!                      netdev table condo: gate
//!                       inet table condo: antispoof, share, input, forward, deliver, masquerade
//!                               │
//!                         the host's other interfaces, under the host's address
//! ```
//! A port reaches the host and nothing else, so every packet between VPSs is routed by the host and meets the firewall.
//! A VPS can send from its own hardware and IPv4 address only; nobody learns anything from what it claims by ARP. It cannot
//! reach services of the host (ping is answered) nor link-local addresses, where clouds keep their metadata, and it has no more
//! connections than its share. Its port answers DHCP with the address it has anyway. There is no IPv6 yet, and the host drops it.
//!
//! Where somebody takes the tables away (`nft flush ruleset`), the fence (`fence.rs`) stays: nothing gets further than the bridge until
//! [`Network::restore`] has put them back.
//!
//! Only `ip_forward` is set for the host as a whole: a host that must not route between its other interfaces needs a rule of
//! its own. Another table that drops forwarded packets by policy (Docker's does) also drops those of VPSs.
//!
//! All calls work on the network namespace of the calling thread and wait for the kernel's answer.

mod code;
mod connection;
mod conntrack;
mod device;
mod elements;
mod fence;
mod firewall;
pub mod ipam;
mod lease;
mod link;
mod netlink;
mod netns;
mod port;
mod resolver;
mod route;
mod rule;
mod ruleset;
mod subnet;
mod sysctl;

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use ipnetwork::Ipv4Network;
use netlink_packet_route::link::InfoKind;
use serde::{Deserialize, Serialize};

pub use device::Devices;
pub use port::Port;
pub use resolver::{PUBLIC_RESOLVERS, resolvers};
pub use route::routes;
pub use subnet::choose_subnet;

use crate::error::{During, Error, Failures, Result};
use elements::{Change, PAIRS};
use link::Link;
use netlink::{Channel, forgive_exists, forgive_gone};
use ruleset::State;

/// The VPS's end of its veth pair.
const GUEST_IF: &str = "eth0";

/// The network of one condo instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The bridge: `condo0`.
    pub bridge: String,
    /// The nftables table of family `inet`: `condo`.
    pub table: String,
    /// The VPSs' addresses; the first belongs to the host.
    pub subnet: Ipv4Network,
}

impl Network {
    /// The host's address on the bridge, which is the VPSs' default route.
    pub fn gateway(&self) -> Ipv4Addr {
        ipam::gateway(self.subnet)
    }

    /// Sees to it that bridge, settings and firewall are there. Cheap when they are, and safe when two processes do it at once.
    ///
    /// # Errors
    /// [`Error::Exists`] when the bridge's or table's name is taken by something condo did not make, [`Error::Invalid`] for
    /// names and subnets that cannot be used.
    pub fn ensure(&self) -> Result<()> {
        self.check()?;
        // The firewall first: no VPS is ever on a bridge without it.
        firewall::rules(self).ensure(&mut Channel::netfilter()?)?;
        self.ensure_bridge()
            .during(|| format!("set up bridge `{}`", self.bridge))
    }

    /// Connects a VPS: a veth pair from the bridge to `eth0` inside `netns`, which gets its addresses and default route.
    ///
    /// What a killed attach of the same port left behind is replaced; what this one did is undone when it fails, and then the
    /// pairs of the address are forgotten as by [`Network::detach`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the network is not set up, [`Error::Exists`] for an address or interface that another VPS has,
    /// [`Error::Unsupported`] when the bridge has no port left.
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
        failures.note(self.dismiss(port));
        failures.note(self.unplug(port));
        failures
            .into_result()
            .during(|| format!("disconnect `{}`", port.address))
    }

    /// Makes the kernel forget the connections of an address that is given up, so that its next holder inherits none. For one
    /// that nothing can come from any more; the kernel looks through its whole table, which takes milliseconds.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn forget(&self, address: Ipv4Addr) -> Result<()> {
        conntrack::forget(address).during(|| format!("forget the connections of `{address}`"))
    }

    /// Removes bridge and table; what is gone already is fine, and so is what condo did not make, which stays.
    ///
    /// # Errors
    /// All that could not be removed, after the rest was.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.remove_bridge());
        let mut channel = Channel::netfilter()?;
        failures.note(firewall::gate(self).remove(&mut channel));
        failures.note(firewall::rules(self).remove(&mut channel));
        failures.into_result()
    }

    /// Lets two VPSs talk to each other, both ways.
    ///
    /// # Errors
    /// [`Error::Invalid`] for addresses outside the subnet, [`Error::Io`] with `ENOENT` when the network is not set up.
    pub fn allow(&self, a: Ipv4Addr, b: Ipv4Addr) -> Result<()> {
        let keys = self.pair(a, b)?;
        Change::of(self)
            .add(PAIRS, &keys)
            .apply(&mut Channel::netfilter()?)
    }

    /// Takes back [`Network::allow`]; open connections stall at once.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn disallow(&self, a: Ipv4Addr, b: Ipv4Addr) -> Result<()> {
        let keys = self.pair(a, b)?;
        forgive_gone(
            Change::of(self)
                .remove(PAIRS, &keys)
                .apply(&mut Channel::netfilter()?),
        )
    }

    /// Whether bridge and tables are there, whole and as condo made them.
    ///
    /// # Errors
    /// Those of the netlink sockets.
    pub fn stands(&self) -> Result<bool> {
        let mut channel = Channel::netfilter()?;
        for ruleset in [firewall::gate(self), firewall::rules(self)] {
            if ruleset.state(&mut channel)? != State::Current {
                return Ok(false);
            }
        }
        let mut channel = Channel::route()?;
        match link::find(&mut channel, &self.bridge)? {
            Some(bridge) if self.is_ours(&bridge) && bridge.up => fence::stands(&mut channel, bridge.index),
            _ => Ok(false),
        }
    }

    /// Puts back what somebody took away from a network in use: rules, bridge, fences, and what belongs to each of `ports`
    /// that is attached, with the `pairs` that may talk. What is there already is fine, and a network that has no port is left.
    ///
    /// # Errors
    /// Those of [`Network::ensure`], and of the netlink sockets.
    pub fn restore(&self, ports: &[Port], pairs: &[(Ipv4Addr, Ipv4Addr)]) -> Result<()> {
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
        firewall::rules(self).ensure(&mut channel)?;
        let mut keys = Vec::new();
        for (a, b) in pairs {
            keys.extend(self.pair(*a, *b)?);
        }
        // Before the gate opens.
        Change::of(self)
            .admit(&attached)
            .add(PAIRS, &keys)
            .apply(&mut channel)?;
        self.ensure_bridge()
            .during(|| format!("set up bridge `{}`", self.bridge))?;
        attached.into_iter().try_for_each(|port| {
            self.reconnect(port)
                .during(|| format!("reconnect `{}`", port.address))
        })
    }

    fn check(&self) -> Result<()> {
        check_name("bridge", &self.bridge)?;
        check_name("table", &self.table)?;
        if self.subnet.prefix() < 8 || self.subnet.prefix() > 29 {
            return Err(Error::invalid(
                "subnet",
                self.subnet,
                "must have a prefix of 8 to 29 bits",
            ));
        }
        if self.subnet.ip() != self.subnet.network() {
            return Err(Error::invalid(
                "subnet",
                self.subnet,
                "must name the network, not an address in it",
            ));
        }
        Ok(())
    }

    fn ensure_bridge(&self) -> Result<()> {
        let mut channel = Channel::route()?;
        let bridge = match link::find(&mut channel, &self.bridge)? {
            Some(bridge) => bridge,
            None => {
                let mac = port::bridge_mac(&self.bridge);
                forgive_exists(link::create_bridge(&mut channel, &self.bridge, mac))?;
                link::get(&mut channel, &self.bridge)?
            }
        };
        if !self.is_ours(&bridge) {
            return Err(Error::Exists {
                kind: "network interface",
                name: self.bridge.clone(),
            });
        }
        sysctl::set_for_bridge(&self.bridge)?;
        route::add_address(&mut channel, bridge.index, self.gateway(), self.subnet.prefix())?;
        self.ensure_gate(&mut channel, bridge.index)?;
        if !bridge.up {
            link::set_up(&mut channel, bridge.index)?;
        }
        Ok(())
    }

    /// The fence first, and then the rule that lets packets past it.
    fn ensure_gate(&self, channel: &mut Channel, bridge: u32) -> Result<()> {
        // Newer kernels keep the rule for the next bridge of this name when one is deleted.
        if !fence::stands(channel, bridge)? {
            fence::guard_bridge(channel, bridge)?;
        }
        firewall::gate(self).ensure(&mut Channel::netfilter()?)
    }

    /// A bridge that condo made has the hardware address that condo derives from its name.
    fn is_ours(&self, link: &Link) -> bool {
        link.kind == Some(InfoKind::Bridge) && link.mac == port::bridge_mac(&self.bridge)
    }

    fn pair(&self, a: Ipv4Addr, b: Ipv4Addr) -> Result<[Vec<u8>; 2]> {
        for address in [a, b] {
            if !self.subnet.contains(address) {
                let problem = format!("is not in the VPSs' network `{}`", self.subnet);
                return Err(Error::invalid("address", address, problem));
            }
        }
        Ok([rule::pair_key(a, b), rule::pair_key(b, a)])
    }

    fn remove_bridge(&self) -> Result<()> {
        let mut channel = Channel::route()?;
        match link::find(&mut channel, &self.bridge)? {
            Some(bridge) if self.is_ours(&bridge) => forgive_gone(link::delete(&mut channel, bridge.index))
                .during(|| format!("delete bridge `{}`", self.bridge)),
            _ => Ok(()),
        }
    }
}

/// Whether a network interface of this name is there.
///
/// # Errors
/// Those of the netlink socket.
pub fn link_exists(name: &str) -> Result<bool> {
    Ok(link::find(&mut Channel::route()?, name)?.is_some())
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
        Network {
            bridge: bridge.into(),
            table: "condo".into(),
            subnet: subnet.parse().unwrap(),
        }
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
