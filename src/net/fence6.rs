//! The part of a port's fence that is about IPv6.
//!
//! A tenant sends from its one address to the gateway, and what it asks about neighbours (RFC 4861) is answered here: everybody on
//! its network, and the gateway, has the gateway's hardware address. So nothing that tenants say of neighbours, routers or groups
//! reaches the host or anybody else: no advertisement, no redirect, no report of groups.

use super::classifier::{DROP, NEXT};
use super::code::{Code, Size};
use super::fence::{PACKET, To, read, send};
use super::lease::Lease;

/// Where the headers are read to: IPv6's, and what follows it as far as a solicitation has it.
const HEADER: i16 = -88;
const SOLICITATION: i16 = -112;
/// Where the answer is made.
const ANSWER: i16 = SOLICITATION - 88;
/// The link-local address of every network's gateway.
pub(super) const GATEWAY: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Offsets in a frame: the addresses of IPv6, the checksum of ICMPv6, the target of an advertisement.
const SOURCE: i16 = 22;
const DESTINATION: i16 = 38;
const CHECKSUM: i16 = 56;
const TARGET: i16 = 62;

/// `IPPROTO_ICMPV6`, and the types of neighbour discovery: solicitation of a neighbour, and all of them.
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const DISCOVERY: (u8, u8) = (133, 138);
/// Extension headers that are for every router or name some, which nobody needs.
const FOR_ROUTERS: [u8; 2] = [0, 43];

/// What becomes of an IPv6 packet whose Ethernet header is in order; ends the program.
pub(super) fn packet(code: &mut Code<To>, lease: &Lease<'_>) {
    code.label(To::Ip6);
    let (Some(own), Some(subnet), Some(gateway)) = (lease.port.address6, lease.subnet6, lease.gateway_mac)
    else {
        code.answer(DROP);
        return;
    };
    read(code, 14, HEADER, 40);
    code.load(Size::Byte, HEADER + 6);
    for header in FOR_ROUTERS {
        code.if_is(&[header], To::Drop);
    }
    code.unless_is(&[ICMPV6], To::Plain6);
    read(code, 54, SOLICITATION, 4);
    code.load(Size::Byte, SOLICITATION);
    code.if_is(&[NEIGHBOUR_SOLICITATION], To::Solicited);
    for kind in DISCOVERY.0..DISCOVERY.1 {
        code.if_is(&[kind], To::Drop);
    }
    code.label(To::Plain6);
    same(code, HEADER + 8, &own.octets(), To::Drop);
    code.load(Size::Half, PACKET);
    code.unless_is(&gateway[..2], To::Drop);
    code.load(Size::Word, PACKET + 2);
    code.unless_is(&gateway[2..], To::Drop);
    // To no group, not to this network or machine, not to who is on the link only.
    code.load(Size::Byte, HEADER + 24);
    code.if_is(&[0xff], To::Drop);
    code.load(Size::Half, HEADER + 24);
    code.if_is(&[0, 0], To::Drop);
    code.mask(&[0xff, 0xc0]);
    code.if_is(&[0xfe, 0x80], To::Drop);
    code.answer(NEXT);

    solicited(
        code,
        (lease.port.mac, gateway),
        (&own.octets(), &subnet.network().octets()),
    );
}

/// Answers who asks for the gateway or for anybody else on the network; not who looks whether its own address is free.
fn solicited(code: &mut Code<To>, macs: ([u8; 6], [u8; 6]), (own, prefix): (&[u8; 16], &[u8; 16])) {
    code.label(To::Solicited);
    read(code, 54, SOLICITATION, 24);
    let target = SOLICITATION + 8;
    code.load(Size::Half, HEADER + 8);
    code.if_is(&[0, 0], To::Drop);
    same(code, target, &GATEWAY.octets(), To::OfNetwork);
    code.go(To::Advertise);
    code.label(To::OfNetwork);
    same(code, target, &prefix[..8], To::Drop);
    // Its own one is nobody else's.
    same(code, target + 8, &own[8..], To::Advertise);
    code.go(To::Drop);

    code.label(To::Advertise);
    let frame = advertisement(macs);
    code.write(ANSWER, &frame);
    code.sum(known_sum(&frame));
    for half in (0..16).step_by(2) {
        code.load(Size::Half, HEADER + 8 + half);
        code.store(Size::Half, ANSWER + DESTINATION + half);
        code.sum_add();
        code.load(Size::Half, target + half);
        code.store(Size::Half, ANSWER + SOURCE + half);
        code.store(Size::Half, ANSWER + TARGET + half);
        // It is in both headers.
        code.sum_add();
        code.sum_add();
    }
    code.sum_store(ANSWER + CHECKSUM);
    send(code, ANSWER, LENGTH);
}

/// Length of an advertisement as a frame.
const LENGTH: i32 = 86;

/// The frame without the addresses that the question tells, filled up to whole words.
fn advertisement((mac, gateway): ([u8; 6], [u8; 6])) -> Vec<u8> {
    let mut frame = [&mac[..], &gateway, &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend([0; 32]);
    // From a router, asked for, and better than what is known.
    frame.extend([136, 0, 0, 0, 0xe0, 0, 0, 0]);
    frame.extend([0; 16]);
    frame.extend([2, 1]);
    frame.extend(gateway);
    frame.resize(88, 0);
    frame
}

/// The checksum's part of what does not depend on the question, in memory order.
fn known_sum(frame: &[u8]) -> u16 {
    let pseudo = [0, 32, 0, ICMPV6];
    let halves = frame[54..86].chunks_exact(2).chain(pseudo.chunks_exact(2));
    let sum = halves.fold(0_u32, |sum, two| {
        sum + u32::from(u16::from_ne_bytes([two[0], two[1]]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Goes on when the frame's place holds these bytes, whose number is a multiple of four.
fn same(code: &mut Code<To>, place: i16, bytes: &[u8], otherwise: To) {
    for (n, word) in (0..).step_by(4).zip(bytes.chunks_exact(4)) {
        code.load(Size::Word, place + n);
        code.unless_is(word, otherwise);
    }
}
