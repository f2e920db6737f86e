//! Addresses, routes and neighbours (`rtnetlink(7)`).

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::netlink::{Channel, forgive_exists};
use crate::error::{During, Result};

/// Gives a link an address; one it has already is left. Nobody is asked whether the address is free.
pub(super) fn add_address(channel: &mut Channel, link: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.index = link;
    message.header.prefix_len = prefix;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    let added = channel.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    forgive_exists(added.map(drop)).during(|| format!("add address `{address}/{prefix}`"))
}

/// The default route by `gateway`, which is on the link.
pub(super) fn add_default_route(channel: &mut Channel, link: u32, gateway: IpAddr) -> Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let address = match gateway {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    message.attributes = vec![RouteAttribute::Gateway(address), RouteAttribute::Oif(link)];
    channel
        .request(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
        .map(drop)
        .during(|| format!("add the default route by `{gateway}`"))
}

/// A neighbour that is never asked for and never replaced by what somebody claims.
pub(super) fn add_neighbour(channel: &mut Channel, link: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
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
pub(super) fn delete_neighbour(channel: &mut Channel, link: u32, address: IpAddr) -> Result<()> {
    let message = neighbour(link, address);
    channel
        .request(Message::DelNeighbour(message), 0)
        .map(drop)
        .during(|| format!("remove neighbour `{address}`"))
}

/// Answers for an address on another link (`ip neighbour add proxy`).
pub(super) fn answer_for(channel: &mut Channel, link: u32, address: IpAddr) -> Result<()> {
    let mut message = neighbour(link, address);
    message.header.flags = NeighbourFlags::Proxy;
    channel
        .request(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        .map(drop)
        .during(|| format!("answer for `{address}` on the uplink"))
}

/// Takes back [`answer_for`].
pub(super) fn answer_no_more(channel: &mut Channel, link: u32, address: IpAddr) -> Result<()> {
    let mut message = neighbour(link, address);
    message.header.flags = NeighbourFlags::Proxy;
    channel.request(Message::DelNeighbour(message), 0).map(drop)
}

/// The links, other than this one, on whose network an address is by an address of this host's.
pub(super) fn links_of(channel: &mut Channel, address: IpAddr, other_than: u32) -> Result<Vec<u32>> {
    let mut query = AddressMessage::default();
    query.header.family = family_of(address);
    let answers = channel
        .request(Message::GetAddress(query), NLM_F_DUMP)
        .during(|| "list addresses")?;
    let mut links: Vec<u32> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            Message::NewAddress(message) => Some(message),
            _ => None,
        })
        .filter(|message| message.header.index != other_than && is_on(message, address))
        .map(|message| message.header.index)
        .collect();
    links.dedup();
    Ok(links)
}

fn is_on(message: &AddressMessage, address: IpAddr) -> bool {
    let prefix = message.header.prefix_len;
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(own) => Some(*own),
        _ => None,
    });
    let network = own.and_then(|own| IpNetwork::new(own, prefix).ok());
    network.is_some_and(|network| network.contains(address))
}

fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn neighbour(link: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address);
    message.header.ifindex = link;
    let address = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![NeighbourAttribute::Destination(address)];
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

/// The links of all default routes, of either family.
pub(super) fn default_links(channel: &mut Channel) -> Result<Vec<u32>> {
    let mut links = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let answers = channel
            .request(Message::GetRoute(query), NLM_F_DUMP)
            .during(|| "list routes")?;
        for answer in answers {
            if let Message::NewRoute(route) = answer
                && route.header.destination_prefix_length == 0
                && route.header.kind == RouteType::Unicast
            {
                links.extend(links_of_route(&route));
            }
        }
    }
    Ok(links)
}

/// One, or one for each of several ways.
fn links_of_route(route: &RouteMessage) -> Vec<u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(ways) => ways.iter().map(|way| way.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of).collect()
}

/// Every IPv4 network that a route or an address of this network namespace names; the default route names none.
///
/// # Errors
/// Those of the netlink socket.
pub fn routes() -> Result<Vec<Ipv4Network>> {
    let mut channel = Channel::route()?;
    let mut found = routes_beside(&mut channel, None)?;
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

/// Every IPv4 network that a route names which is not by this link. An address that is in use has a route; those that are not, the
/// kernel would look for at each of its interfaces.
pub(super) fn routes_beside(channel: &mut Channel, link: Option<u32>) -> Result<Vec<Ipv4Network>> {
    let mut found = Vec::new();
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    for answer in channel
        .request(Message::GetRoute(query), NLM_F_DUMP)
        .during(|| "list routes")?
    {
        if let Message::NewRoute(route) = answer {
            let by = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            if by.is_none() || by != link {
                found.extend(destination(&route));
            }
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
