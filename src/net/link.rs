//! Links: bridges, veth pairs and bridge ports (`rtnetlink(7)`).

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;

use super::meter::Count;
use super::netlink::{Channel, forgive_gone, is, is_gone};
use super::port::Port;
use crate::error::{During, Error, Result};

/// What the groups of all ports begin with (`ip link show group`), by which the firewall tells them from other interfaces: `V` in
/// ASCII. The rest tells one network's ports from those of others.
pub(super) const PORTS: Group = Group {
    value: 0x5600_0000,
    mask: 0xff00_0000,
};

/// The group of ports that nobody needs any more.
pub(super) const DOOMED: u32 = PORTS.value | 0x0080_0000;

/// How long the kernel's worker is waited for, and how often it is asked whether it has been there.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(500);

/// Groups of interfaces: those with this value under this mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) value: u32,
    pub(super) mask: u32,
}

/// What is worth knowing of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Interface index.
    pub(super) index: u32,
    /// Whether it leads to this host itself.
    pub(super) is_loopback: bool,
    /// Its driver, for virtual links.
    pub(super) kind: Option<InfoKind>,
    /// Hardware address.
    pub(super) mac: Vec<u8>,
    /// Index of the bridge it is a port of.
    pub(super) bridge: Option<u32>,
    /// The group it is in; 0 is that of all others.
    pub(super) group: u32,
    /// Whether it was brought up.
    pub(super) up: bool,
    /// Whether packets go by it.
    pub(super) carries: bool,
    /// What this host has sent by it.
    pub(super) sent: Count,
    /// What this host has received by it.
    pub(super) received: Count,
}

impl Link {
    fn read(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            kind: None,
            mac: Vec::new(),
            bridge: None,
            group: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            carries: false,
            sent: Count::default(),
            received: Count::default(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Controller(index) => link.bridge = Some(index),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::OperState(state) => link.carries = state == State::Up,
                LinkAttribute::Stats64(stats) => {
                    link.sent = Count {
                        bytes: stats.tx_bytes,
                        packets: stats.tx_packets,
                    };
                    link.received = Count {
                        bytes: stats.rx_bytes,
                        packets: stats.rx_packets,
                    };
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// Looks a link up by name.
pub(super) fn find(channel: &mut Channel, name: &str) -> Result<Option<Link>> {
    let message = named(name);
    match channel.request(Message::GetLink(message), 0) {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
            Message::NewLink(message) => Some(Link::read(message)),
            _ => None,
        })),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).during(|| format!("look up network interface `{name}`")),
    }
}

/// All links of this network namespace, by name.
pub(super) fn all(channel: &mut Channel) -> Result<HashMap<String, Link>> {
    let answers = channel
        .request(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)
        .during(|| "list network interfaces")?;
    let named = |answer| match answer {
        Message::NewLink(message) => Some((name(&message)?, Link::read(message))),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(named).collect())
}

fn name(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Looks up a link that must be there.
pub(super) fn get(channel: &mut Channel, name: &str) -> Result<Link> {
    find(channel, name)?.ok_or_else(|| Error::NotFound {
        kind: "network interface",
        name: name.to_owned(),
    })
}

/// Creates a bridge, down, without spanning tree and without multicast snooping (it serves hosts, not switches).
///
/// # Errors
/// `EEXIST` when a link of this name is there.
pub(super) fn create_bridge(channel: &mut Channel, name: &str, mac: [u8; 6]) -> Result<()> {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
    ]));
    create(channel, message).during(|| format!("create bridge `{name}`"))
}

/// Where the host's end of a port belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Berth {
    /// The group of its network's ports.
    pub(super) group: u32,
    /// The operator's bridge that it is a port of.
    pub(super) bridge: Option<u32>,
}

/// Creates a veth pair, both ends down, the guest's end directly inside `netns`, so that it is never visible on the host.
///
/// # Errors
/// [`Error::Unsupported`] when the bridge has no port left, `EEXIST` when a name is taken on either side.
pub(super) fn create_veth(
    channel: &mut Channel,
    port: &Port,
    berth: Berth,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let mut peer = named(&port.guest_if);
    peer.attributes.push(LinkAttribute::Address(port.mac.to_vec()));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut message = named(&port.host_if);
    message.attributes.push(LinkAttribute::Group(berth.group));
    match berth.bridge {
        Some(bridge) => message.attributes.push(LinkAttribute::Controller(bridge)),
        None => stand_alone(&mut message),
    }
    if let Some(mtu) = port.mtu {
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    match create(channel, message) {
        Err(e) if is(&e, Errno::EXFULL) => Err(Error::unsupported(
            "another VPS on this bridge",
            "a Linux bridge has 1023 ports and all are in use; stop a VPS first",
        )),
        other => other.during(|| format!("create network interface `{}`", port.host_if)),
    }
}

/// The host neither asks nor answers by ARP at an interface of its own that is but a way to another.
fn stand_alone(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Noarp;
    message.header.change_mask |= LinkFlags::Noarp;
}

/// Makes an interface that is there a port that stands alone, whatever bridge it is a port of: older versions made them so.
pub(super) fn unplug(channel: &mut Channel, index: u32, group: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    stand_alone(&mut message);
    message.attributes.push(LinkAttribute::Group(group));
    message.attributes.push(LinkAttribute::Controller(0));
    channel.request(Message::SetLink(message), 0).map(drop)
}

/// Creates a pair of interfaces, both down: what goes into one comes out of the other.
///
/// # Errors
/// `EEXIST` when a link of either name is there.
pub(super) fn create_turn(channel: &mut Channel, near: &str, far: &str) -> Result<()> {
    let mut message = named(near);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(named(far)))),
    ]));
    create(channel, message).during(|| format!("create network interface `{near}`"))
}

/// Makes a link a port of the bridge.
pub(super) fn plug(channel: &mut Channel, index: u32, bridge: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Controller(bridge));
    channel.request(Message::SetLink(message), 0).map(drop)
}

/// Makes a port of an operator's bridge a tenant's: it reaches no other tenant's, teaches the bridge nothing and is flooded with
/// nothing but what is for all.
///
/// With `locked` (Linux 5.18; older kernels ignore it) frames from other addresses than the port's static ones are dropped.
pub(super) fn restrict_port(channel: &mut Channel, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Isolated(true),
            InfoBridgePort::Learning(false),
            InfoBridgePort::Locked(true),
            InfoBridgePort::UnicastFlood(false),
            InfoBridgePort::MulticastFlood(false),
            // Who is looked for on a network that others are on is looked for by all.
            InfoBridgePort::BroadcastFlood(true),
            // A tenant's spanning tree frames must not move the bridge.
            InfoBridgePort::Guard(true),
        ])),
    ]));
    channel.request(Message::NewLink(message), 0).map(drop)
}

/// Brings a link up.
pub(super) fn set_up(channel: &mut Channel, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    channel.request(Message::SetLink(message), 0).map(drop)
}

/// Waits until the end of a pair that came up first carries packets. When the other end comes up, the kernel leaves this to a worker, which a
/// busy machine runs late, and silently drops all packets until then. Since Linux 6.8 whoever asks for the link has that work done at once.
pub(super) fn await_carrier(channel: &mut Channel, name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !get(channel, name)?.carries && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Gives a link up: it goes with the next [`delete_doomed`]. For the kernel, one is as much waiting as many.
pub(super) fn doom(channel: &mut Channel, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Group(DOOMED));
    channel.request(Message::SetLink(message), 0).map(drop)
}

/// Deletes all links that were given up, by whomever; none is fine.
pub(super) fn delete_doomed(channel: &mut Channel) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(DOOMED));
    forgive_gone(channel.request(Message::DelLink(message), 0).map(drop))
}

/// Deletes a link.
pub(super) fn delete(channel: &mut Channel, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    channel.request(Message::DelLink(message), 0).map(drop)
}

fn create(channel: &mut Channel, message: LinkMessage) -> Result<()> {
    channel
        .request(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .map(drop)
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}
