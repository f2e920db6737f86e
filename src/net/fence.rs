//! The fence that no `nft flush ruleset` removes: eBPF programs that see first what comes in by ports and bridge.
//!
//! ```text
//! port     what the tenant sends, before anything else of the host sees it: IP from its own addresses to the gateway's
//!          hardware address, ARP about its own addresses, and nothing else. DHCP is answered here (see lease), and so are
//!          questions about neighbours of IPv6 (see fence6).
//! bridge   what the ports let through becomes a packet for somebody else, which the host's IP and ARP ignore. Only a rule of
//!          the firewall makes it the host's again (see gate): no firewall, no traffic. What the rules have let through just
//!          before goes on at once (see shortcut).
//! ```
//! The port's part keeps link-local destinations (01:80:c2:…) away, which an operator's bridge hands to its host as input of the *port*,
//! and ARP of invented senders, each of which would take a place in the host's neighbour table. It has a program of its own
//! with the addresses in its code, so it costs the same whatever the number of ports.

use std::os::fd::OwnedFd;

use super::classifier::{self, DROP, Manner, NEXT, Place};
use super::code::{Argument, Code, Helper, Size};
use super::delivery;
use super::fence6;
use super::lease::{self, Lease};
use super::netlink::Channel;
use super::shortcut;
use crate::error::Result;

/// `PACKET_OTHERHOST`.
const FOR_OTHERS: i32 = 3;
/// Fields of `struct __sk_buff`.
const VLAN_PRESENT: i16 = 20;
const INTERFACE: i16 = 40;

/// Where the program of a port keeps what it has read, from the frame's end downwards. Loads must be aligned: the frame's
/// first byte is at an odd half word, so that addresses of IPv4 are at whole ones.
pub(super) const PACKET: i16 = -46;
const QUESTION: i16 = -88;
const OPTIONS: i16 = -96;
/// Of how many options the kind of a question is one.
const LOOKED_AT: usize = 8;
const REPLY: i16 = OPTIONS - (lease::LENGTH.next_multiple_of(8)) as i16;

/// `ARP`'s first eight bytes without the operation: Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: ([u8; 4], [u8; 2]) = ([0, 1, 8, 0], [6, 4]);

/// The places in a program that are jumped to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum To {
    Ip6,
    Plain6,
    Solicited,
    OfNetwork,
    Advertise,
    Arp,
    Probe,
    Claimed,
    Addressed,
    Question,
    Kind,
    Offer,
    Send,
    Ip,
    Drop,
}

/// Puts up the fence of a port, in place of the one it has.
pub(super) fn guard_port(channel: &mut Channel, link: u32, lease: &Lease<'_>) -> Result<()> {
    let program = classifier::load(Place::In, &port_program(lease))?;
    classifier::put_at_port(channel, link, (Place::In, &program))
}

/// Puts up the fence of a bridge, in place of the one it has. The delivery at its way out has the map of connections.
pub(super) fn guard_bridge(channel: &mut Channel, link: u32) -> Result<()> {
    let connections = delivery::connections(channel, link)?;
    let program = classifier::load(Place::In, &bridge_program(connections.as_ref()))?;
    classifier::put(channel, link, (Place::In, &program), Manner::Replace)
}

/// Whether there is a fence at the link.
pub(super) fn stands(channel: &mut Channel, link: u32) -> Result<bool> {
    Ok(classifier::find(channel, link, Place::In)?.is_some())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Past {
    Ip6,
    Keyed,
    Counted6,
    Counted,
    Long,
    Drop,
}

fn bridge_program(connections: Option<&OwnedFd>) -> Vec<u64> {
    let mut code = Code::new();
    if let Some(connections) = connections {
        let places = [Past::Ip6, Past::Keyed, Past::Counted6, Past::Counted];
        shortcut::take(&mut code, connections, places, [Past::Long, Past::Drop]);
    }
    code.label(Past::Long);
    code.call(Helper::ChangeType, &[Argument::Number(FOR_OTHERS)]);
    code.if_failed(Past::Drop);
    code.answer(NEXT);
    code.label(Past::Drop);
    code.answer(DROP);
    code.finish()
}

fn port_program(lease: &Lease<'_>) -> Vec<u64> {
    let mut code = Code::new();
    ethernet(&mut code, lease);
    ip(&mut code, lease);
    code.answer(NEXT);
    arp(&mut code, lease);
    dhcp(&mut code, lease);
    fence6::packet(&mut code, lease);
    code.label(To::Drop);
    code.answer(DROP);
    code.finish()
}

/// Reads the frame's headers, as long as the shortest packet of IPv4 has them.
fn ethernet(code: &mut Code<To>, lease: &Lease<'_>) {
    code.field(VLAN_PRESENT);
    code.unless_is(&[0], To::Drop);
    read(code, 0, PACKET, 34);
    mac(code, PACKET + 6, lease.port.mac, To::Drop);
    code.load(Size::Half, PACKET + 12);
    code.if_is(&[8, 6], To::Arp);
    code.if_is(&[0x86, 0xdd], To::Ip6);
    code.unless_is(&[8, 0], To::Drop);
}

fn ip(code: &mut Code<To>, lease: &Lease<'_>) {
    // Version 4 without options: nobody needs a route of the sender's choice.
    code.load(Size::Byte, PACKET + 14);
    code.unless_is(&[0x45], To::Drop);
    code.load(Size::Byte, PACKET + 23);
    code.unless_is(&[17], To::Ip);
    code.load(Size::Half, PACKET + 20);
    code.mask(&[0x3f, 0xff]);
    code.unless_is(&[0, 0], To::Ip);
    read(code, 34, PACKET + 34, 8);
    code.load(Size::Half, PACKET + 36);
    code.if_is(&[0, 67], To::Question);

    code.label(To::Ip);
    code.load(Size::Word, PACKET + 26);
    code.unless_is(&lease.port.address.octets(), To::Drop);
    let Some(gateway) = lease.gateway_mac else {
        return;
    };
    code.load(Size::Half, PACKET);
    code.unless_is(&gateway[..2], To::Drop);
    code.load(Size::Word, PACKET + 2);
    code.unless_is(&gateway[2..], To::Drop);
    // To nobody's group, not to this network or machine, and not to link-local addresses, where clouds keep their metadata.
    code.load(Size::Byte, PACKET + 30);
    code.if_at_least(224, To::Drop);
    code.if_is(&[0], To::Drop);
    code.if_is(&[127], To::Drop);
    code.load(Size::Half, PACKET + 30);
    code.if_is(&[169, 254], To::Drop);
}

/// Requests and replies in the tenant's own name, to all or to the gateway; the question whether its own address is free
/// (RFC 5227) has no sender yet.
fn arp(code: &mut Code<To>, lease: &Lease<'_>) {
    let [a, b, c, d] = lease.port.address.octets();
    code.label(To::Arp);
    read(code, 34, PACKET + 34, 8);
    code.load(Size::Word, PACKET + 14);
    code.unless_is(&ARP_KIND.0, To::Drop);
    code.load(Size::Half, PACKET + 18);
    code.unless_is(&ARP_KIND.1, To::Drop);
    mac(code, PACKET + 22, lease.port.mac, To::Drop);
    code.load(Size::Half, PACKET + 28);
    code.if_is(&[0, 0], To::Probe);
    code.unless_is(&[a, b], To::Drop);
    code.load(Size::Half, PACKET + 30);
    code.unless_is(&[c, d], To::Drop);
    code.load(Size::Half, PACKET + 20);
    code.if_is(&[0, 1], To::Claimed);
    code.if_is(&[0, 2], To::Claimed);
    code.go(To::Drop);

    code.label(To::Probe);
    code.load(Size::Half, PACKET + 30);
    code.unless_is(&[0, 0], To::Drop);
    code.load(Size::Half, PACKET + 20);
    code.unless_is(&[0, 1], To::Drop);

    code.label(To::Claimed);
    let Some(gateway) = lease.gateway_mac else {
        return code.answer(NEXT);
    };
    code.load(Size::Word, PACKET + 2);
    code.if_is(&gateway[2..], To::Addressed);
    code.unless_is(&[0xff; 4], To::Drop);
    code.load(Size::Half, PACKET);
    code.unless_is(&[0xff; 2], To::Drop);
    code.answer(NEXT);
    code.label(To::Addressed);
    code.load(Size::Half, PACKET);
    code.unless_is(&gateway[..2], To::Drop);
    code.answer(NEXT);
}

/// Turns a question to a DHCP server into its answer: an offer to those who look for a server, an acknowledgement to those
/// who ask for an address, whichever, or for the configuration that goes with it.
fn dhcp(code: &mut Code<To>, lease: &Lease<'_>) {
    let place = |offset: usize| REPLY + offset as i16;
    let mut frame = lease.frame();
    frame.resize(frame.len().next_multiple_of(8), 0);
    code.label(To::Question);
    read(code, lease::HEADERS, QUESTION, 34);
    read(code, lease::HEADERS + 236, OPTIONS, 4);
    code.load(Size::Byte, QUESTION);
    code.unless_is(&[1], To::Drop);
    code.load(Size::Word, OPTIONS);
    code.unless_is(&lease::COOKIE, To::Drop);
    find_kind(code);
    code.write(REPLY, &frame);
    // What the answer repeats: number and flags.
    for offset in [4, 6, 10] {
        code.load(Size::Half, QUESTION + offset);
        code.store(Size::Half, place(lease::HEADERS) + offset);
    }
    code.load(Size::Byte, OPTIONS + 2);
    code.if_is(&[1], To::Offer);
    code.if_is(&[3], To::Send);
    code.if_is(&[8], To::Send);
    code.go(To::Drop);
    code.label(To::Offer);
    code.write_byte(place(lease::TYPE), lease::OFFER);

    code.label(To::Send);
    send(code, REPLY, lease::LENGTH as i32);
}

/// Reads the option that tells the question's kind, wherever it is: dhcpcd tells the address first that it would like.
fn find_kind(code: &mut Code<To>) {
    code.cursor((lease::HEADERS + 240) as i32);
    for _ in 0..LOOKED_AT {
        let (three, place) = (Argument::Number(3), Argument::Place(OPTIONS));
        code.call(Helper::LoadBytes, &[Argument::Cursor, place, three]);
        code.if_failed(To::Drop);
        code.load(Size::Byte, OPTIONS);
        code.if_is(&[53], To::Kind);
        code.load(Size::Byte, OPTIONS + 1);
        code.cursor_on(2);
    }
    code.go(To::Drop);
    code.label(To::Kind);
    code.load(Size::Byte, OPTIONS + 1);
    code.unless_is(&[1], To::Drop);
}

/// Sends what is in the frame in place of the packet, back to who sent that.
pub(super) fn send(code: &mut Code<To>, place: i16, length: i32) {
    let length = Argument::Number(length);
    code.call(Helper::ChangeTail, &[length, Argument::Number(0)]);
    code.if_failed(To::Drop);
    let (start, flags) = (Argument::Number(0), Argument::Number(0));
    code.call(
        Helper::StoreBytes,
        &[start, Argument::Place(place), length, flags],
    );
    code.if_failed(To::Drop);
    code.send_back(INTERFACE);
}

/// Copies bytes of the packet into the frame; a packet that does not have them is dropped.
pub(super) fn read(code: &mut Code<To>, offset: usize, place: i16, length: i32) {
    let arguments = [
        Argument::Number(offset as i32),
        Argument::Place(place),
        Argument::Number(length),
    ];
    code.call(Helper::LoadBytes, &arguments);
    code.if_failed(To::Drop);
}

fn mac(code: &mut Code<To>, place: i16, mac: [u8; 6], otherwise: To) {
    code.load(Size::Word, place);
    code.unless_is(&mac[..4], otherwise);
    code.load(Size::Half, place + 4);
    code.unless_is(&mac[4..], otherwise);
}

const _: () = assert!(lease::ACK == 5 && REPLY >= -512);
