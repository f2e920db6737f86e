//! What the host sends to VPSs: from the network's link straight to the port of the hardware address that it is for.
//!
//! ```text
//! host ── condo0, way out ── (hardware address) in the map of ports: handed to that port's interface
//!                            another: left to the link, which has nobody else
//! ```
//! The link is a bridge without ports. A bridge has 1,023 at most, and waits for the whole machine whenever one leaves it; the map is
//! bounded by the network's addresses. Ports that an older version plugged in are not in the map, and the bridge finds them.
//!
//! The map belongs to the program, and the program to the link: they go with it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use super::Network;
use super::classifier::{self, NEXT, Place};
use super::code::{Argument, Code, Helper};
use super::netlink::{Channel, forgive_gone};
use crate::error::{During, Error, Result};
use crate::sys::bpf::{self, map};

/// VPSs on one network at most. Their numbers end at 99,999, and each has few interfaces.
const MOST: u32 = 1 << 17;
/// Where the program has the address, filled up to whole words.
const ADDRESS: i16 = -8;

#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    Others,
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
        let open = || map::of_program(bpf::open_program(program)?.as_fd());
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
    /// Makes the map of the link's ports and the program that asks it, unless they are there.
    pub(super) fn ensure_delivery(&self, channel: &mut Channel, link: u32) -> Result<()> {
        if stands(channel, link)? {
            return Ok(());
        }
        let map = map::create::<8, 4>(self.most_ports(), "condo_ports").during(|| "make the map of ports")?;
        let program = classifier::load(Place::Out, &program(&map))?;
        classifier::ensure_places(channel, link)?;
        classifier::put_first(channel, link, Place::Out, &program)
    }

    /// As many as the network has addresses.
    fn most_ports(&self) -> u32 {
        1_u32
            .checked_shl(32 - u32::from(self.subnet.prefix()))
            .map_or(MOST, |addresses| addresses.min(MOST))
    }

    /// Forgets a port; it, the map or the link may be gone.
    pub(super) fn deliver_no_more(&self, channel: &mut Channel, link: u32, mac: [u8; 6]) -> Result<()> {
        match Delivery::of(channel, link) {
            Ok(delivery) => delivery.no_more_to(mac),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => forgive_gone(Err(e)),
        }
    }
}

/// Whether the link has a map of its ports.
pub(super) fn stands(channel: &mut Channel, link: u32) -> Result<bool> {
    Ok(classifier::find(channel, link, Place::Out)?.is_some())
}

fn key([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}

fn program(map: &OwnedFd) -> Vec<u64> {
    let mut code = Code::new();
    code.write(ADDRESS, &[0; 8]);
    let read = [Argument::Number(0), Argument::Place(ADDRESS), Argument::Number(6)];
    code.call(Helper::LoadBytes, &read);
    code.if_failed(To::Others);
    code.look_up(map.as_raw_fd(), ADDRESS);
    code.if_nothing(To::Others);
    code.send_to_found();
    code.label(To::Others);
    code.answer(NEXT);
    code.finish()
}
