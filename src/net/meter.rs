//! What has gone through a port, by the kernel's own counters. They begin at nothing with each interface, and only the packets of the
//! port are in them: whatever source they claim, nobody else's.

use std::collections::HashMap;
use std::path::Path;

use netlink_packet_route::link::InfoKind;

use super::link::{self, Link};
use super::netlink::Channel;
use super::shape::turn_names;
use crate::error::{During, Result};
use crate::files;

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

/// What has gone through a port. Nothing for a port that is not there.
///
/// Where the VPS's bandwidth is limited, what it sent is what came through the limit.
///
/// # Errors
/// Those of the netlink socket.
pub fn read(port: &str) -> Result<Vec<Reading>> {
    let mut channel = Channel::route()?;
    let Some(own) = link::find(&mut channel, port)? else {
        return Ok(Vec::new());
    };
    let [near, _] = turn_names(port);
    let turn = link::find(&mut channel, &near)?;
    Ok(readings(&boot()?, &own, turn.as_ref()))
}

fn boot() -> Result<String> {
    let text = files::read_text(Path::new("/proc/sys/kernel/random/boot_id"))
        .during(|| "tell this boot from others")?;
    Ok(text.trim().to_owned())
}

/// What a port and the link that limits what comes from it have counted.
fn readings(boot: &str, own: &Link, turn: Option<&Link>) -> Vec<Reading> {
    let named = |index: u32, end: &str| format!("{boot}:{index}{end}");
    let received = Reading {
        link: named(own.index, "<"),
        incoming: own.sent,
        outgoing: Count::default(),
    };
    let turn = turn.filter(|turn| turn.kind == Some(InfoKind::Veth));
    let (index, count) = turn.map_or((own.index, own.received), |turn| (turn.index, turn.sent));
    let sent = Reading {
        link: named(index, ">"),
        incoming: Count::default(),
        outgoing: count,
    };
    vec![received, sent]
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
            boot: boot()?,
        })
    }

    /// What has gone through a port, as [`read`] tells it.
    pub fn readings(&self, port: &str) -> Vec<Reading> {
        let [near, _] = turn_names(port);
        let own = self.links.get(port);
        own.map_or_else(Vec::new, |own| readings(&self.boot, own, self.links.get(&near)))
    }

    /// What a VPS has received and sent by a port since that was made; `None` for one that is not there.
    pub fn port(&self, port: &str) -> Option<(Count, Count)> {
        match self.readings(port).as_slice() {
            [received, sent] => Some((received.incoming, sent.outgoing)),
            _ => None,
        }
    }
}
