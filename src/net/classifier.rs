//! Places where eBPF programs see the packets of an interface: what they are, and what is at them.

mod clsact;
mod tcx;

use std::os::fd::OwnedFd;

use super::netlink::Channel;
use crate::error::{During, Result};
use crate::host::in_first_user_namespace;
use crate::sys::bpf;
use tcx::List;

/// Whether this process may load programs at all: in a VPS it may not. There the ports of a network are a bridge's, and what the fence does
/// is done by the bridge (see [`restrict_port`](super::link::restrict_port)) and the firewall.
pub(super) fn may_load() -> bool {
    in_first_user_namespace()
}

/// Verdicts of `linux/pkt_cls.h`, of both kinds of places: the next program decides, and dropped.
pub(super) const NEXT: i32 = -1;
pub(super) const DROP: i32 = 2;

/// A place at an interface, for one program. What is there is replaced, and there is no moment without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before all else, what comes in.
    In,
    /// What comes in, behind that.
    Behind,
    /// What goes out.
    Out,
}

impl Place {
    const ALL: [Self; 3] = [Self::In, Self::Behind, Self::Out];

    /// The name its programs have in the kernel's lists, at most 15 bytes.
    fn name(self) -> &'static str {
        match self {
            Self::In => "condo_fence",
            Self::Behind => "condo_way",
            Self::Out => "condo_delivery",
        }
    }
}

/// Loads a program for a place.
pub(super) fn load(place: Place, instructions: &[u64]) -> Result<OwnedFd> {
    let name = place.name();
    bpf::load_classifier(instructions, name).during(|| format!("load the program `{name}`"))
}

/// What becomes of a program that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It goes.
    Replace,
    /// It stays, and the new one is not needed.
    Leave,
}

/// Puts a program at a link, which all packets of a network go by and which stays: into its own list, where the kernel has such.
pub(super) fn put(
    channel: &mut Channel,
    link: u32,
    (place, program): (Place, &OwnedFd),
    manner: Manner,
) -> Result<()> {
    // As often as others change the list meanwhile.
    loop {
        match List::read(link, place)? {
            Some(list) if manner == Manner::Leave && list.id_at(place).is_some() => return Ok(()),
            Some(list) if !list.is_empty() || !has_filters(channel, link, place)? => {
                if list.put(link, place, program)? {
                    return Ok(());
                }
            }
            _ => return clsact::put(channel, link, (place, program), manner),
        }
    }
}

/// Puts a program at a port, in place of what is there. A port comes and goes with its VPS: for each change of its lists, and for their
/// end, the kernel waits for all processors (a grace period of RCU, 10 ms and more) while nobody else can change any interface.
pub(super) fn put_at_port(
    channel: &mut Channel,
    port: u32,
    (place, program): (Place, &OwnedFd),
) -> Result<()> {
    match List::read(port, place)? {
        Some(list) if !list.is_empty() => put(channel, port, (place, program), Manner::Replace),
        _ => clsact::put(channel, port, (place, program), Manner::Replace),
    }
}

/// Whether the interface has filters. The lists come before all of them, so a new way in a list would lead past a fence that is a filter.
fn has_filters(channel: &mut Channel, link: u32, place: Place) -> Result<bool> {
    Ok(clsact::find(channel, link, Place::In)?.is_some()
        || place != Place::In && clsact::find(channel, link, place)?.is_some())
}

/// The number of the program that is there; nothing is where there is none.
pub(super) fn find(channel: &mut Channel, link: u32, place: Place) -> Result<Option<u32>> {
    match List::read(link, place)?.and_then(|list| list.id_at(place)) {
        None => clsact::find(channel, link, place),
        found => Ok(found),
    }
}

/// Removes the program that is there; none is fine.
pub(super) fn remove(channel: &mut Channel, link: u32, place: Place) -> Result<()> {
    if let Some(list) = List::read(link, place)? {
        list.remove(link, place)?;
    }
    clsact::remove(channel, link, place)
}
