//! What the kernel remembers of connections (`ctnetlink`), and how it forgets those of an address.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_DUMP, Nla};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::netlink::{Channel, forgive_gone};
use super::set::address_key;
use crate::error::Result;

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

/// Forgets all connections from and to an address, so that whoever gets it next inherits none.
///
/// The kernel looks through its table for them (Linux 5.8), and only what it finds is deleted, one by one.
pub(super) fn forget(address: IpAddr) -> Result<()> {
    let mut channel = Channel::netfilter()?;
    // From the address; and to it, because their answers come from it.
    for direction in [Direction::Original, Direction::Reply] {
        for attributes in find(&mut channel, direction, address)? {
            // It may have ended meanwhile.
            let deleted = channel.request(message(address, ConntrackMessage::Delete(attributes)), 0);
            forgive_gone(deleted.map(drop))?;
        }
    }
    Ok(())
}

/// What names each connection whose packets in this direction come from the address.
fn find(
    channel: &mut Channel,
    direction: Direction,
    address: IpAddr,
) -> Result<Vec<Vec<ConntrackAttribute>>> {
    let kind = if address.is_ipv4() { SOURCE } else { SOURCE6 };
    let source = DefaultNla::new(kind, address_key(address));
    let flags = [Direction::Original, Direction::Reply].map(|asked| {
        let flags = if asked == direction { BY_SOURCE } else { 0 };
        DefaultNla::new(asked as u16, flags.to_ne_bytes().to_vec())
    });
    let query = ConntrackMessage::Other {
        message_type: GET,
        attributes: vec![
            nested(direction as u16, &[nested(IP, &[source])]),
            nested(FILTER, &flags),
        ],
    };
    let answers = channel.request(message(address, query), NLM_F_DUMP)?;
    Ok(answers.into_iter().filter_map(identity).collect())
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

fn identity(answer: NetfilterMessage) -> Option<Vec<ConntrackAttribute>> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer.inner else {
        return None;
    };
    let naming = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => other.kind() == ID,
        _ => false,
    };
    Some(attributes.into_iter().filter(naming).collect())
}

fn message(about: IpAddr, inner: ConntrackMessage) -> NetfilterMessage {
    let family = match about {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}
