//! What the host sends to VPSs: from the network's link straight to the port of the hardware address that it is for.
//!
//! ```text
//! host ── condo0, way out ── (hardware address) in the map of ports: handed to that port's interface
//!                            another: left to the link, which has nobody else
//! ```
//! The link is a bridge without ports. A bridge has 1,023 at most, and waits for the whole machine whenever one leaves it; the map is
//! bounded by the network's addresses. Ports that an older version plugged in are not in the map, and the bridge finds them.
//! What of it is to be known when the next packet comes in is entered here as well (see shortcut).
//!
//! The maps belong to the program, and the program to the link: they go with it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::Network;
use super::classifier::{self, Manner, NEXT, Place};
use super::code::{Argument, Code, Helper, Size};
use super::netlink::{Channel, forgive_gone};
use super::shortcut::{self, INTERFACE, VALUE};
use crate::error::{During, Error, Result};
use crate::sys::bpf::{self, map};

/// VPSs on one network at most. Their numbers end at 99,999, and each has few interfaces.
const MOST: u32 = 1 << 17;
/// Where the program has the address, filled up to whole words.
const ADDRESS: i16 = VALUE - 8;
/// The maps of the program, in the order in which it names them.
const PORTS: usize = 0;
const CONNECTIONS: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    Others,
    Ip6,
    Keyed,
    Send,
}

/// The map of a link's ports.
#[derive(Debug)]
pub(super) struct Delivery(OwnedFd);

impl Delivery {
    /// The one that the link has.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none.
    pub(super) fn of(channel: &mut Channel, link: u32) -> Result<Self> {
        let missing = || Error::NotFound {
            kind: "map of ports",
            name: format!("of network interface {link}"),
        };
        let program = classifier::find(channel, link, Place::Out)?.ok_or_else(missing)?;
        let open = || map::of_program(bpf::open_program(program)?.as_fd(), PORTS);
        open().map(Self).during(|| "open the map of ports")
    }

    /// Hands over what is for a hardware address to this port from now on.
    pub(super) fn to(&self, mac: [u8; 6], port: u32) -> Result<()> {
        map::set(self.0.as_fd(), key(mac), port.to_ne_bytes())
            .during(|| "enter the port into the map of ports")
    }

    /// Hands over nothing for it any more; nothing is fine.
    pub(super) fn no_more_to(&self, mac: [u8; 6]) -> Result<()> {
        match map::remove(self.0.as_fd(), key(mac)) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            other => other.during(|| "strike the port from the map of ports"),
        }
    }
}

impl Network {
    /// Makes the link's maps and the program that asks them, unless they are there; whether they had to be made.
    pub(super) fn ensure_delivery(&self, channel: &mut Channel, link: u32) -> Result<bool> {
        if stands(channel, link)? {
            return Ok(false);
        }
        let ports =
            map::create::<8, 4>(self.most_ports(), "condo_ports").during(|| "make the map of ports")?;
        let program = classifier::load(Place::Out, &program(&ports, &shortcut::known()?))?;
        // That of an older version knows no connections; one that has come meanwhile does.
        if !stands(channel, link)? {
            classifier::remove(channel, link, Place::Out)?;
        }
        classifier::put(channel, link, (Place::Out, &program), Manner::Leave)?;
        Ok(true)
    }

    /// As many as the network has addresses.
    fn most_ports(&self) -> u32 {
        1_u32
            .checked_shl(32 - u32::from(self.subnet.prefix()))
            .map_or(MOST, |addresses| addresses.min(MOST))
    }

    /// Forgets a port; it, the map or the link may be gone.
    pub(super) fn deliver_no_more(&self, channel: &mut Channel, link: u32, mac: [u8; 6]) -> Result<()> {
        if !classifier::may_load() {
            return Ok(());
        }
        match Delivery::of(channel, link) {
            Ok(delivery) => delivery.no_more_to(mac),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => forgive_gone(Err(e)),
        }
    }
}

/// Whether the link has the maps.
pub(super) fn stands(channel: &mut Channel, link: u32) -> Result<bool> {
    Ok(connections(channel, link)?.is_some())
}

/// The map of the connections that go by the link, if it has one.
pub(super) fn connections(channel: &mut Channel, link: u32) -> Result<Option<OwnedFd>> {
    let Some(program) = classifier::find(channel, link, Place::Out)? else {
        return Ok(None);
    };
    let open = || map::of_program(bpf::open_program(program)?.as_fd(), CONNECTIONS);
    match open() {
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        other => other.map(Some).during(|| "open the map of connections"),
    }
}

fn key([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}

/// The maps are in the order of [`PORTS`] and [`CONNECTIONS`].
fn program(ports: &OwnedFd, connections: &OwnedFd) -> Vec<u64> {
    let mut code = Code::new();
    code.write(ADDRESS, &[0; 8]);
    let read = [Argument::Number(0), Argument::Place(ADDRESS), Argument::Number(6)];
    code.call(Helper::LoadBytes, &read);
    code.if_failed(To::Others);
    code.look_up(ports.as_raw_fd(), ADDRESS, To::Others);
    code.load_found(0);
    code.store(Size::Word, VALUE + INTERFACE);
    shortcut::learn(&mut code, connections, [To::Ip6, To::Keyed, To::Send]);
    code.label(To::Send);
    code.load(Size::Word, VALUE + INTERFACE);
    code.send_by();
    code.label(To::Others);
    code.answer(NEXT);
    code.finish()
}
