//! What has gone through a port, by the kernel's own counters. They begin at nothing with each interface, and only the packets of the
//! port are in them: whatever source they claim, nobody else's.

use std::collections::HashMap;

use netlink_packet_route::link::InfoKind;

use super::link::{self, Link};
use super::netlink::Channel;
use super::shape::turn_names;
use crate::error::Result;
use crate::host;

/// Bytes, with the headers of Ethernet, and packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// What an interface has counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The interface, as no other is called, also after the host was restarted.
    pub link: String,
    /// What the VPS received; nothing where another interface counts that.
    pub incoming: Count,
    /// What the VPS sent; nothing where another interface counts that.
    pub outgoing: Count,
}

/// What has gone through the ports of one VPS. Nothing for those that are not there.
///
/// Where the VPS's bandwidth is limited, what it sent is what came through the limit, by all ports.
///
/// # Errors
/// Those of the netlink socket.
pub fn read(ports: &[String]) -> Result<Vec<Reading>> {
    let mut channel = Channel::route()?;
    let (mut own, mut turns) = (Vec::new(), Vec::new());
    for port in ports {
        let [near, _] = turn_names(port);
        own.extend(link::find(&mut channel, port)?);
        turns.extend(link::find(&mut channel, &near)?);
    }
    Ok(readings(&host::boot()?, own.iter(), turns.iter()))
}

/// What ports have counted, and the links that limit what comes from them.
fn readings<'a>(
    boot: &str,
    ports: impl Iterator<Item = &'a Link> + Clone,
    turns: impl Iterator<Item = &'a Link>,
) -> Vec<Reading> {
    let named = |index: u32, end: &str| format!("{boot}:{index}{end}");
    let received = |port: &Link| Reading {
        link: named(port.index, "<"),
        incoming: port.sent,
        outgoing: Count::default(),
    };
    let sent = |(index, outgoing): (u32, Count)| Reading {
        link: named(index, ">"),
        incoming: Count::default(),
        outgoing,
    };
    let turns = turns.filter(|turn| turn.kind == Some(InfoKind::Veth));
    let mut counts: Vec<_> = turns.map(|turn| (turn.index, turn.sent)).collect();
    if counts.is_empty() {
        counts.extend(ports.clone().map(|port| (port.index, port.received)));
    }
    ports.map(received).chain(counts.into_iter().map(sent)).collect()
}

/// What all interfaces of this host have counted, asked of the kernel once.
#[derive(Debug, Default)]
pub struct Meters {
    links: HashMap<String, Link>,
    boot: String,
}

impl Meters {
    /// As they stand now.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn read() -> Result<Self> {
        let mut channel = Channel::route()?;
        Ok(Self {
            links: link::all(&mut channel)?,
            boot: host::boot()?,
        })
    }

    /// What has gone through the ports of a VPS, as [`read`] tells it.
    pub fn readings(&self, ports: &[String]) -> Vec<Reading> {
        let turns = ports.iter().filter_map(|port| {
            let [near, _] = turn_names(port);
            self.links.get(&near)
        });
        let own = ports.iter().filter_map(|port| self.links.get(port));
        readings(&self.boot, own, turns)
    }

    /// What has come to a VPS by a port and what it has sent by that, before any limit; `None` for a port that is not there.
    pub fn port(&self, port: &str) -> Option<(Count, Count)> {
        self.links.get(port).map(|own| (own.sent, own.received))
    }
}
