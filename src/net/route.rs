//! Addresses, routes and neighbours (`rtnetlink(7)`), IPv4 only.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::netlink::{Channel, forgive_exists};
use crate::error::{During, Result};

/// Gives a link an address; one it has already is left.
pub(super) fn add_address(channel: &mut Channel, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = link;
    message.header.prefix_len = prefix;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    let added = channel.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    forgive_exists(added.map(drop)).during(|| format!("add address `{address}/{prefix}`"))
}

/// The default route by `gateway`, which is on the link.
pub(super) fn add_default_route(channel: &mut Channel, link: u32, gateway: Ipv4Addr) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
        RouteAttribute::Oif(link),
    ];
    channel
        .request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
        .map(drop)
        .during(|| format!("add the default route by `{gateway}`"))
}

/// A neighbour that is never asked for and never replaced by what somebody claims.
pub(super) fn add_neighbour(channel: &mut Channel, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
    let mut message = neighbour(link, address);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    channel
        .request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map(drop)
        .during(|| format!("add neighbour `{address}`"))
}

/// Forgets a neighbour.
pub(super) fn delete_neighbour(channel: &mut Channel, link: u32, address: Ipv4Addr) -> Result<()> {
    let message = neighbour(link, address);
    channel
        .request(Message::DelNeighbour(message), 0)
        .map(drop)
        .during(|| format!("remove neighbour `{address}`"))
}

fn neighbour(link: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = link;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(address))];
    message
}

/// A static entry of the bridge's forwarding table: this hardware address lives behind this port.
pub(super) fn add_station(channel: &mut Channel, port: u32, mac: [u8; 6]) -> Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    // NOARP is a bridge's word for static; PERMANENT would mean the bridge's own address.
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    channel
        .request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map(drop)
        .during(|| "add the hardware address to the bridge")
}

/// Every IPv4 network that a route or an address of this network namespace names; the default route names none.
///
/// # Errors
/// Those of the netlink socket.
pub fn routes() -> Result<Vec<Ipv4Network>> {
    let mut channel = Channel::route()?;
    let mut found = Vec::new();
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    for answer in channel
        .request(Message::GetRoute(query), NLM_F_DUMP)
        .during(|| "list routes")?
    {
        if let Message::NewRoute(route) = answer {
            found.extend(destination(&route));
        }
    }
    let mut query = AddressMessage::default();
    query.header.family = AddressFamily::Inet;
    for answer in channel
        .request(Message::GetAddress(query), NLM_F_DUMP)
        .during(|| "list addresses")?
    {
        if let Message::NewAddress(address) = answer {
            found.extend(network_of(&address));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn destination(route: &RouteMessage) -> Option<Ipv4Network> {
    let prefix = route.header.destination_prefix_length;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) if prefix > 0 => network(*address, prefix),
        _ => None,
    })
}

fn network_of(message: &AddressMessage) -> Option<Ipv4Network> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V4(address)) => network(*address, message.header.prefix_len),
        _ => None,
    })
}

fn network(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Network> {
    let network = Ipv4Network::new(address, prefix).ok()?;
    Ipv4Network::new(network.network(), prefix).ok()
}
