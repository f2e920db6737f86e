//! One VPS's connection, made step by step and taken back in reverse.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;

use super::delivery::Delivery;
use super::elements::{self, Change};
use super::ipam::Taken;
use super::lease::Lease;
use super::link::{Berth, DOOMED, Link};
use super::netlink::{Channel, forgive_gone, is};
use super::port::{bridge_mac, group};
use super::set::{Set, V4, address_key, family_of, tenant_key};
use super::{
    Kind, Network, Port, check_name, classifier, fence, fence6, ipam, link, netns, route, shape, sysctl,
};
use crate::error::{During, Error, Result};
use crate::sys::interface::set_loopback_up;
use crate::undo::Undo;

impl Network {
    /// Does [`Network::attach`].
    pub(super) fn connect(&self, port: &Port, netns: BorrowedFd<'_>) -> Result<()> {
        self.check_port(port)?;
        let mut channel = Channel::route()?;
        let bridge = link::get(&mut channel, &self.bridge)?.index;
        self.remove_stale(&mut channel, port, bridge)?;
        let mut undo = Undo::new();
        // The firewall decides who has the address; only its holder touches the rest.
        self.introduce(port)?;
        undo.push(|| self.dismiss(port));
        let berth = Berth {
            group: group(&self.bridge),
            bridge: self.has_switch().then_some(bridge),
        };
        link::create_veth(&mut channel, port, berth, netns)?;
        undo.push(|| self.unplug(port).and_then(|()| super::sweep()));
        let host = link::get(&mut channel, &port.host_if)?.index;
        self.secure(&mut channel, port, (host, bridge))?;
        link::set_up(&mut channel, host)?;
        // Last, so that nothing flows before all of the above holds.
        netns::inside(netns, || self.configure_guest(port))?;
        link::await_carrier(&mut channel, &port.host_if)?;
        undo.disarm();
        Ok(())
    }

    /// Makes the host's end of a port what it has to be, whatever somebody has made of it.
    pub(super) fn reconnect(&self, port: &Port) -> Result<()> {
        let mut channel = Channel::route()?;
        let bridge = link::get(&mut channel, &self.bridge)?.index;
        let host = link::get(&mut channel, &port.host_if)?;
        if !self.has(&host, Some(bridge)) {
            return Ok(());
        }
        if self.has_switch() && host.bridge != Some(bridge) {
            link::plug(&mut channel, host.index, bridge).during(|| "plug it into the bridge")?;
        }
        self.secure(&mut channel, port, (host.index, bridge))?;
        if !self.has_switch() && host.bridge.is_some() {
            link::unplug(&mut channel, host.index, group(&self.bridge))
                .during(|| "take it off the bridge")?;
        }
        link::set_up(&mut channel, host.index)
    }

    /// Whether its ports are those of a bridge: of an operator's, or of its own where no program may hand packets on.
    fn has_switch(&self) -> bool {
        self.kind.is_bridged() || !classifier::may_load()
    }

    /// The fence first: the port may be up.
    fn secure(&self, channel: &mut Channel, port: &Port, (host, bridge): (u32, u32)) -> Result<()> {
        if classifier::may_load() {
            self.put_up_fence(channel, port, host)?;
        }
        sysctl::set_for_port(&port.host_if)?;
        if self.has_switch() {
            link::restrict_port(channel, host).during(|| "isolate the bridge port")?;
            route::add_station(channel, host, port.mac)?;
        } else {
            Delivery::of(channel, bridge)?.to(port.mac, host)?;
        }
        if self.kind.is_bridged() {
            return Ok(());
        }
        for address in port.addresses() {
            route::add_neighbour(channel, bridge, address, port.mac)?;
            self.answer_for(channel, bridge, address)?;
        }
        Ok(())
    }

    fn put_up_fence(&self, channel: &mut Channel, port: &Port, host: u32) -> Result<()> {
        let lease = Lease {
            port,
            subnet: self.subnet,
            subnet6: self.subnet6,
            gateway: self.gateway(),
            gateway_mac: (!self.kind.is_bridged()).then(|| bridge_mac(&self.bridge)),
            leads_out: port.is_first && self.kind.has_a_way_out(),
            resolvers: &self.resolvers(),
        };
        fence::guard_port(channel, host, &lease)?;
        self.lead(channel, port)
            .during(|| "lead its packets to the bridge")
    }

    /// Whoever is on a network with this host finds the VPS's address here, if it is one of that network.
    fn answer_for(&self, channel: &mut Channel, bridge: u32, address: IpAddr) -> Result<()> {
        if self.kind != Kind::Routed {
            return Ok(());
        }
        for uplink in route::links_of(channel, address, bridge)? {
            route::answer_for(channel, uplink, address)?;
            if address.is_ipv6() {
                sysctl::answer_for_neighbours(uplink)?;
            }
        }
        Ok(())
    }

    /// Takes back [`Network::answer_for`].
    fn answer_no_more(&self, channel: &mut Channel, bridge: u32, address: IpAddr) -> Result<()> {
        if self.kind != Kind::Routed {
            return Ok(());
        }
        for uplink in route::links_of(channel, address, bridge)? {
            forgive_gone(route::answer_no_more(channel, uplink, address))?;
        }
        Ok(())
    }

    fn check_port(&self, port: &Port) -> Result<()> {
        check_name("interface", &port.host_if)?;
        check_name("interface", &port.guest_if)?;
        if port.mac[0] & 1 != 0 {
            return Err(Error::invalid(
                "mac",
                format!("{:02x?}", port.mac),
                "must not be a group address",
            ));
        }
        ipam::pick(self.subnet, &Taken::default(), Some(port.address)).map(drop)
    }

    fn configure_guest(&self, port: &Port) -> Result<()> {
        set_loopback_up().during(|| "bring `lo` up")?;
        let mut channel = Channel::route()?;
        let guest = link::get(&mut channel, &port.guest_if)?.index;
        route::add_address(&mut channel, guest, port.address.into(), self.subnet.prefix())?;
        link::set_up(&mut channel, guest).during(|| format!("bring `{}` up", port.guest_if))?;
        let leads_out = port.is_first && self.kind.has_a_way_out();
        if leads_out {
            route::add_default_route(&mut channel, guest, self.gateway().into())?;
        }
        let mac = bridge_mac(&self.bridge);
        if !self.kind.is_bridged() {
            // Neighbours that are found by asking have one table of 1024 places (`gc_thresh3`), the host's and all VPSs' together.
            route::add_neighbour(&mut channel, guest, self.gateway().into(), mac)?;
        }
        if let (Some(address), Some(_)) = (port.address6, self.subnet6) {
            // Its neighbours are behind the gateway as everything else is.
            let prefix = if leads_out { 128 } else { 64 };
            let mut add = || route::add_address(&mut channel, guest, address.into(), prefix);
            match add() {
                // Where new namespaces begin without IPv6. To look first takes long among many namespaces (see `Sysctls` of `runtime`).
                Err(e) if is(&e, Errno::EACCES) => {
                    sysctl::with_ipv6_for_guest(&port.guest_if)?;
                    add()?;
                }
                other => other?,
            }
            if leads_out {
                route::add_neighbour(&mut channel, guest, fence6::GATEWAY.into(), mac)?;
                route::add_default_route(&mut channel, guest, fence6::GATEWAY.into())?;
            }
        }
        Ok(())
    }

    /// What the firewall's sets have of a port.
    pub(super) fn elements_of(&self, port: &Port) -> Vec<(Set, Vec<u8>)> {
        let mut elements = Vec::new();
        for address in port.addresses() {
            let sets = family_of(address);
            elements.push((sets.tenants, tenant_key(port.mac, address)));
            elements.push((sets.addresses, address_key(address)));
            if self.hides(address) {
                elements.push((sets.hidden, address_key(address)));
            }
        }
        elements
    }

    /// Enters the port into the firewall, unless another port has its address.
    fn introduce(&self, port: &Port) -> Result<()> {
        let mut channel = Channel::netfilter()?;
        let tenant = tenant_key(port.mac, port.address.into());
        let entered = Change::of(self)
            .add_new(V4.addresses, port.address.octets().to_vec())
            .add_each(&self.elements_of(port))
            .apply(&mut channel);
        match entered {
            // Entered by an attach of this very port that was killed.
            Err(e) if is(&e, Errno::EEXIST) && elements::has(&mut channel, self, V4.tenants, tenant)? => {
                Change::of(self)
                    .add_each(&self.elements_of(port))
                    .apply(&mut channel)
            }
            Err(e) if is(&e, Errno::EEXIST) => Err(Error::Exists {
                kind: "address",
                name: port.address.to_string(),
            }),
            other => other,
        }
    }

    /// Whether the port's address was entered for another port, whose things are not to be touched.
    fn is_anothers(&self, port: &Port) -> Result<bool> {
        let mut channel = Channel::netfilter()?;
        let tenant = tenant_key(port.mac, port.address.into());
        let address = port.address.octets().to_vec();
        Ok(!elements::has(&mut channel, self, V4.tenants, tenant)?
            && elements::has(&mut channel, self, V4.addresses, address)?)
    }

    /// Strikes the port and all its pairs from the firewall.
    pub(super) fn dismiss(&self, port: &Port) -> Result<()> {
        if self.is_anothers(port)? {
            return Ok(());
        }
        let mut channel = Channel::netfilter()?;
        let mut change = Change::of(self);
        for address in port.addresses() {
            let pairs = elements::pairs_with(&mut channel, self, address)?;
            change = change.remove(family_of(address).pairs, &pairs);
        }
        let struck = change.remove_each(&self.elements_of(port)).apply(&mut channel);
        forgive_gone(struck)
    }

    /// Gives the port's links up, for [`link::delete_doomed`], and removes what leads to it.
    pub(super) fn unplug(&self, port: &Port) -> Result<()> {
        let mut channel = Channel::route()?;
        let bridge = link::find(&mut channel, &self.bridge)?.map(|b| b.index);
        match link::find(&mut channel, &port.host_if)? {
            Some(host) if self.has(&host, bridge) => forgive_gone(link::doom(&mut channel, host.index))?,
            _ => {}
        }
        shape::clear(&mut channel, &port.host_if)?;
        match bridge {
            Some(bridge) if !self.is_anothers(port)? => {
                self.deliver_no_more(&mut channel, bridge, port.mac)?;
                for address in port.addresses() {
                    forgive_gone(route::delete_neighbour(&mut channel, bridge, address))?;
                    self.answer_no_more(&mut channel, bridge, address)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a link of a port's name is this network's: another condo's ports may have the same names. Older versions' ports are in
    /// another group, and on the bridge.
    fn has(&self, link: &Link, bridge: Option<u32>) -> bool {
        let is_on = link.bridge.is_some() && link.bridge == bridge;
        let is_of = [group(&self.bridge), DOOMED].contains(&link.group);
        link.kind == Some(InfoKind::Veth) && (is_of || is_on)
    }

    /// Deletes the host's end that a killed attach left; one that is not ours is not touched.
    fn remove_stale(&self, channel: &mut Channel, port: &Port, bridge: u32) -> Result<()> {
        match link::find(channel, &port.host_if)? {
            None => Ok(()),
            Some(stale) if self.has(&stale, Some(bridge)) => forgive_gone(link::delete(channel, stale.index)),
            Some(_) => Err(Error::Exists {
                kind: "network interface",
                name: port.host_if.clone(),
            }),
        }
    }
}
