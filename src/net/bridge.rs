//! The link of a network: a bridge of condo's own with its fence and its gate, or the operator's.

use ipnetwork::Ipv4Network;
use netlink_packet_route::link::InfoKind;

use super::link::Link;
use super::netlink::{Channel, forgive_exists, forgive_gone};
use super::{Kind, Network, classifier, fence, fence6, firewall, ipam, link, map, port, route, sysctl};
use crate::error::{During, Error, Failures, Result};

impl Network {
    /// Networks of the host's, by other links, that have addresses of this one: one of the two cannot be reached. An operator's
    /// range may well be a part of one.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn collisions(&self) -> Result<Vec<Ipv4Network>> {
        if matches!(self.kind, Kind::Routed | Kind::Bridged) {
            return Ok(Vec::new());
        }
        let mut channel = Channel::route()?;
        let own = link::find(&mut channel, &self.bridge)?.map(|link| link.index);
        let mut others = route::routes_beside(&mut channel, own)?;
        others.retain(|other| other.overlaps(self.subnet));
        Ok(others)
    }

    pub(super) fn ensure_bridge(&self) -> Result<()> {
        let mut channel = Channel::route()?;
        if self.kind.is_bridged() {
            let bridge = link::get(&mut channel, &self.bridge)?;
            return match bridge.kind {
                Some(InfoKind::Bridge) => Ok(()),
                _ => Err(Error::invalid("--bridge", &self.bridge, "is no bridge")),
            };
        }
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
        sysctl::set_for_bridge(&self.bridge, self.subnet6.is_some())?;
        let gateway = self.gateway().into();
        route::add_address(&mut channel, bridge.index, gateway, self.subnet.prefix())?;
        if let Some(subnet) = self.subnet6 {
            let gateway = ipam::gateway6(subnet).into();
            route::add_address(&mut channel, bridge.index, gateway, subnet.prefix())?;
            route::add_address(&mut channel, bridge.index, fence6::GATEWAY.into(), 64)?;
        }
        let is_new = classifier::may_load() && self.ensure_delivery(&mut channel, bridge.index)?;
        self.ensure_gate(&mut channel, bridge.index, is_new)?;
        if !bridge.up {
            link::set_up(&mut channel, bridge.index)?;
        }
        Ok(())
    }

    /// The fence first, and then the rule that lets packets past it. A new delivery has maps that the fence does not ask yet.
    pub(super) fn ensure_gate(&self, channel: &mut Channel, bridge: u32, is_new: bool) -> Result<()> {
        // Newer kernels keep the rule for the next bridge of this name when one is deleted.
        if classifier::may_load() && (is_new || !fence::stands(channel, bridge)?) {
            fence::guard_bridge(channel, bridge)?;
        }
        let mut channel = Channel::netfilter()?;
        firewall::opener(&self.table, &self.bridge).ensure(&mut channel)?;
        firewall::gate(&self.bridge).ensure(&mut channel)
    }

    /// A bridge that condo made has the hardware address that condo derives from its name.
    pub(super) fn is_ours(&self, link: &Link) -> bool {
        link.kind == Some(InfoKind::Bridge) && link.mac == port::bridge_mac(&self.bridge)
    }

    pub(super) fn remove_bridge(&self) -> Result<()> {
        let mut channel = Channel::route()?;
        match link::find(&mut channel, &self.bridge)? {
            Some(bridge) if self.is_ours(&bridge) => forgive_gone(link::delete(&mut channel, bridge.index))
                .during(|| format!("delete bridge `{}`", self.bridge)),
            _ => Ok(()),
        }
    }
    pub(super) fn remove_link(&self) -> Result<()> {
        let mut failures = Failures::default();
        failures.note(self.remove_bridge());
        let mut channel = Channel::netfilter()?;
        failures.note(firewall::gate(&self.bridge).remove(&mut channel));
        let opener = map::remove_chain(&self.table, &firewall::opener_of(&self.bridge));
        failures.note(forgive_gone(channel.batch(opener)));
        failures.into_result()
    }
}
