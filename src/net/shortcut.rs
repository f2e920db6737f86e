//! The short way of TCP between VPSs that may talk: past the host's IP and the firewall, for as long as a moment.
//!
//! ```text
//! link, way out    a packet that all rules have let through, with their mark [`KNOWN`]: its connection is entered, for 0.1 s
//! link, way in     a packet of a connection that is entered: the port's, with the headers that a router would give it
//!                  any other: on to the gate (see fence)
//! ```
//! Between two VPSs the rules take longer than all the rest. Each direction of a connection meets them ten times a second in place of
//! with each packet; what begins and what ends a connection always does, so connection tracking knows who began it and when it is over.
//! What is forbidden, by whatever table, stops within 0.1 s. Nothing is entered but by the rules, so without them nothing takes this way.
//!
//! Packets of both ways wait in the same queues and do not overtake each other. Those with translated addresses or ports do not go this
//! way, nor do fragments: their next ones would be taken for another connection's.

use std::os::fd::{AsRawFd, OwnedFd};

use super::code::{Argument, Code, Helper, Size};
use crate::error::{During, Result};
use crate::sys::bpf::map;

/// What packets have when their connection may be entered (`know` in ASCII).
pub(super) const KNOWN: u32 = 0x6b6e_6f77;
/// How long a connection is known for, in nanoseconds.
const MOMENT: i32 = 100_000_000;
/// How many are known at most. Beyond that the longest unused are forgotten, and take the long way.
const MOST: u32 = 8192;

/// Field of `struct __sk_buff`.
const MARK: i16 = 8;
/// Where programs have a packet's headers, up to those of TCP: its addresses of either family are at whole words.
const PACKET: i16 = -78;
const HEADERS: i32 = 54;
const HEADERS6: i32 = 74;
/// Both addresses, both ports, and the family: the key of a connection's direction.
const KEY: i16 = -120;
const KEY_LENGTH: usize = 40;
/// Until when it is known, the number of the port's interface, and the addresses of its frames.
pub(super) const VALUE: i16 = -144;
pub(super) const INTERFACE: i16 = 8;
const FRAME: i16 = 12;
const VALUE_LENGTH: usize = 24;

/// `TCP`, and its flags that begin and end a connection: FIN, SYN and RST.
const TCP: u8 = 6;
const ENDS: u8 = 7;
/// The version and length of an IPv4 header without options, and where the checksum is.
const PLAIN: u8 = 0x45;
const CHECKSUM: i32 = 24;
/// Where the two families have what the host counts down.
const HOPS: i16 = 22;
const HOPS6: i16 = 21;
const IP6: [u8; 2] = [0x86, 0xdd];

/// Makes the map of connections.
pub(super) fn known() -> Result<OwnedFd> {
    map::create_forgetful::<KEY_LENGTH, VALUE_LENGTH>(MOST, "condo_known")
        .during(|| "make the map of connections")
}

/// Enters the connection of a packet that has the mark. The place of [`INTERFACE`] has the number of its port.
pub(super) fn learn<L: Copy + PartialEq>(code: &mut Code<L>, map: &OwnedFd, [ip6, keyed, otherwise]: [L; 3]) {
    code.field(MARK);
    code.unless_is(&KNOWN.to_ne_bytes(), otherwise);
    code.number(0);
    code.set_field(MARK);
    name(code, [ip6, keyed, otherwise]);
    for half in (0..12).step_by(2) {
        code.load(Size::Half, PACKET + half);
        code.store(Size::Half, VALUE + FRAME + half);
    }
    code.store_time_in(MOMENT, VALUE);
    code.enter(map.as_raw_fd(), KEY, VALUE);
}

/// Sends a packet of a known connection on to the port; goes on with all others.
pub(super) fn take<L: Copy + PartialEq>(
    code: &mut Code<L>,
    map: &OwnedFd,
    [ip6, keyed, counted6, counted]: [L; 4],
    [otherwise, failed]: [L; 2],
) {
    name(code, [ip6, keyed, otherwise]);
    code.look_up(map.as_raw_fd(), KEY, otherwise);
    code.if_over(0, otherwise);
    code.load(Size::Half, PACKET + 12);
    code.if_is(&IP6, counted6);
    let sum = [
        Argument::Number(CHECKSUM),
        Argument::Number(0),
        // One less, as checksums count (RFC 1624): TTL is the first byte of its half.
        Argument::Number((!u16::from_ne_bytes([1, 0])).into()),
        Argument::Number(0),
    ];
    code.call(Helper::ReplaceSum, &sum);
    code.if_failed(failed);
    count_down(code, HOPS, failed);
    code.go(counted);
    code.label(counted6);
    count_down(code, HOPS6, failed);
    code.label(counted);
    store(code, 0, Argument::Found(FRAME.into()), 12);
    code.if_failed(failed);
    code.load_found(INTERFACE);
    code.send_by();
}

fn count_down<L: Copy + PartialEq>(code: &mut Code<L>, place: i16, failed: L) {
    code.load(Size::Byte, PACKET + place);
    code.add(-1);
    code.store(Size::Byte, PACKET + place);
    store(code, place.into(), Argument::Place(PACKET + place), 1);
    code.if_failed(failed);
}

fn store<L: Copy + PartialEq>(code: &mut Code<L>, offset: i32, from: Argument, length: i32) {
    let arguments = [
        Argument::Number(offset),
        from,
        Argument::Number(length),
        Argument::Number(0),
    ];
    code.call(Helper::StoreBytes, &arguments);
}

/// Makes the key of the packet's connection; it has none unless it is a plain one of TCP, from the middle of a connection.
fn name<L: Copy + PartialEq>(code: &mut Code<L>, [ip6, keyed, otherwise]: [L; 3]) {
    code.write(KEY, &[0; KEY_LENGTH]);
    read(code, HEADERS, otherwise);
    code.load(Size::Half, PACKET + 12);
    code.if_is(&IP6, ip6);
    code.unless_is(&[8, 0], otherwise);
    code.load(Size::Byte, PACKET + 14);
    code.unless_is(&[PLAIN], otherwise);
    code.load(Size::Half, PACKET + 20);
    code.mask(&[0x3f, 0xff]);
    code.unless_is(&[0, 0], otherwise);
    is_plain(code, [23, HOPS, 34], otherwise);
    words(code, 26, KEY, 1);
    words(code, 30, KEY + 16, 1);
    words(code, 34, KEY + 32, 1);
    code.go(keyed);

    code.label(ip6);
    read(code, HEADERS6, otherwise);
    is_plain(code, [20, HOPS6, 54], otherwise);
    words(code, 22, KEY, 8);
    words(code, 54, KEY + 32, 1);
    code.write(KEY + 36, &[0, 0, IP6[0], IP6[1]]);
    code.label(keyed);
}

/// By the places of the protocol, of the hops that are left, and of TCP.
fn is_plain<L: Copy + PartialEq>(code: &mut Code<L>, [protocol, hops, tcp]: [i16; 3], otherwise: L) {
    code.load(Size::Byte, PACKET + protocol);
    code.unless_is(&[TCP], otherwise);
    code.load(Size::Byte, PACKET + hops);
    code.if_is(&[0], otherwise);
    code.if_is(&[1], otherwise);
    code.load(Size::Byte, PACKET + tcp + 13);
    code.mask(&[ENDS]);
    code.unless_is(&[0], otherwise);
}

fn words<L: Copy + PartialEq>(code: &mut Code<L>, from: i16, to: i16, count: i16) {
    for word in (0..count * 4).step_by(4) {
        code.load(Size::Word, PACKET + from + word);
        code.store(Size::Word, to + word);
    }
}

fn read<L: Copy + PartialEq>(code: &mut Code<L>, length: i32, otherwise: L) {
    let arguments = [
        Argument::Number(0),
        Argument::Place(PACKET),
        Argument::Number(length),
    ];
    code.call(Helper::LoadBytes, &arguments);
    code.if_failed(otherwise);
}
