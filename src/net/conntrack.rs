//! What the kernel remembers of connections (`ctnetlink`), and how it forgets those of an address.

use std::net::IpAddr;
use std::path::Path;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_DUMP, Nla};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::netlink::{Channel, forgive_gone};
use super::set::address_key;
use super::together::Together;
use crate::error::{During, Result};
use crate::files;

/// `IPCTNL_MSG_CT_GET`, in the form that takes attributes the packet library does not have.
const GET: u8 = 1;
/// `CTA_TUPLE_IP`, `CTA_IP_V4_SRC`, `CTA_IP_V6_SRC`, `CTA_ID` and `CTA_FILTER`.
const IP: u16 = 1;
const SOURCE: u16 = 1;
const SOURCE6: u16 = 3;
const ID: u16 = 12;
const FILTER: u16 = 25;
/// `CTA_FILTER_F_CTA_IP_SRC`.
const BY_SOURCE: u32 = 1;

/// The two directions of a connection. Both `CTA_TUPLE_ORIG` and `_REPLY` and `CTA_FILTER_ORIG_FLAGS` and `_REPLY_FLAGS` are
/// numbered like this.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    Original = 1,
    Reply = 2,
}

/// An entry that the kernel shows takes as long as so many places of its table that it looks through.
const ENTRY: u64 = 50;

/// Forgets all connections from and to addresses, so that whoever gets one of them next inherits none. Only what is found is
/// deleted, one by one.
///
/// # Errors
/// Those of the netlink socket.
pub fn forget(addresses: &[IpAddr]) -> Result<()> {
    static TOGETHER: Together<IpAddr> = Together::new();
    TOGETHER
        .work(addresses, |all| {
            let mut channel = Channel::netfilter()?;
            for (family, connection) in find(&mut channel, all)? {
                // It may have ended meanwhile.
                let deleted = channel.request(message(family, ConntrackMessage::Delete(connection)), 0);
                forgive_gone(deleted.map(drop))?;
            }
            Ok(())
        })
        .during(|| "forget the connections of addresses that are given up")
}

/// What names a connection, and its address family.
type Named = (NetfilterProtoFamily, Vec<ConntrackAttribute>);

/// What names each connection of an address: those from it, and those to it, whose answers come from it.
///
/// The kernel finds those of one address and one direction by itself (Linux 5.8), but looks through its whole table every time.
fn find(channel: &mut Channel, addresses: &[IpAddr]) -> Result<Vec<Named>> {
    let searches = 2 * addresses.len() as u64;
    let mut found = Vec::new();
    if let (Some(count), Some(places)) = (setting("count"), setting("buckets"))
        && count * ENTRY <= places * searches.saturating_sub(1)
    {
        let query = ConntrackMessage::Other {
            message_type: GET,
            attributes: Vec::new(),
        };
        channel.request_each(
            message(NetfilterProtoFamily::Unspec, query),
            NLM_F_DUMP,
            |answer| {
                found.extend(identity(answer, |sender| addresses.contains(&sender)));
            },
        )?;
        return Ok(found);
    }
    for address in addresses {
        for direction in [Direction::Original, Direction::Reply] {
            let query = message(family_of(*address), from(*address, direction));
            channel.request_each(query, NLM_F_DUMP, |answer| {
                found.extend(identity(answer, |_| true));
            })?;
        }
    }
    Ok(found)
}

/// What the kernel says of its table.
fn setting(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    files::read_text(Path::new(&path)).ok()?.trim().parse().ok()
}

/// Asks for the connections whose packets in this direction come from the address.
fn from(address: IpAddr, direction: Direction) -> ConntrackMessage {
    let kind = if address.is_ipv4() { SOURCE } else { SOURCE6 };
    let source = DefaultNla::new(kind, address_key(address));
    let flags = [Direction::Original, Direction::Reply].map(|asked| {
        let flags = if asked == direction { BY_SOURCE } else { 0 };
        DefaultNla::new(asked as u16, flags.to_ne_bytes().to_vec())
    });
    ConntrackMessage::Other {
        message_type: GET,
        attributes: vec![
            nested(direction as u16, &[nested(IP, &[source])]),
            nested(FILTER, &flags),
        ],
    }
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// What names a connection one of whose senders is wanted.
fn identity(answer: NetfilterMessage, is_wanted: impl Fn(IpAddr) -> bool) -> Option<Named> {
    let family = answer.header.family;
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer.inner else {
        return None;
    };
    if !attributes.iter().flat_map(senders).any(is_wanted) {
        return None;
    }
    let naming = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => other.kind() == ID,
        _ => false,
    };
    Some((family, attributes.into_iter().filter(naming).collect()))
}

/// Who sends, by one of the two tuples.
fn senders(attribute: &ConntrackAttribute) -> impl Iterator<Item = IpAddr> {
    let tuples = match attribute {
        ConntrackAttribute::CtaTupleOrig(tuples) | ConntrackAttribute::CtaTupleReply(tuples) => &tuples[..],
        _ => &[],
    };
    let parts = tuples.iter().flat_map(|tuple| match tuple {
        Tuple::Ip(parts) => &parts[..],
        _ => &[],
    });
    parts.filter_map(|part| match part {
        IPTuple::SourceAddress(sender) => Some(*sender),
        _ => None,
    })
}

fn family_of(address: IpAddr) -> NetfilterProtoFamily {
    match address {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    }
}

fn message(family: NetfilterProtoFamily, inner: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}
