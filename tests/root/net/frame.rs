//! Frames as a hostile VPS would send them, byte by byte, and a look at what arrives.

use std::net::Ipv4Addr;

pub type Mac = [u8; 6];
pub const BROADCAST: Mac = [0xff; 6];
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
pub const ARP_REQUEST: u8 = 1;
pub const ARP_REPLY: u8 = 2;

fn ethernet(to: Mac, from: Mac, kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind, payload].concat()
}

/// An IPv4 packet with a UDP datagram to port 9 that carries `text`.
pub fn udp(macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr, text: &str) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut datagram = vec![0, 9, 0, 9];
    datagram.extend(length.to_be_bytes());
    // No checksum: allowed for UDP over IPv4.
    datagram.extend([0, 0]);
    datagram.extend(text.as_bytes());
    let mut header = vec![0x45, 0];
    header.extend((20 + length).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    ethernet(macs.1, macs.0, IPV4, &[header, datagram].concat())
}

/// Makes an IPv4 frame a fragment, `offset` in units of eight bytes.
pub fn fragment(mut frame: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | if more { 0x2000 } else { 0 };
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    frame[24..26].copy_from_slice(&[0; 2]);
    let sum = checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
}

/// An IPv6 packet to all nodes that carries `text` in a UDP datagram.
pub fn udp6(macs: (Mac, Mac), text: &str) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([17, 64]);
    packet.extend(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend([0, 9, 0, 9]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text.as_bytes());
    ethernet(macs.1, macs.0, [0x86, 0xdd], &packet)
}

/// An ARP packet in which `sender` claims what it likes.
pub fn arp(macs: (Mac, Mac), operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(target.0);
    packet.extend(target.1.octets());
    ethernet(macs.1, macs.0, ARP, &packet)
}

/// An ICMP echo request.
pub fn echo(identity: u16) -> Vec<u8> {
    let [a, b] = identity.to_be_bytes();
    let mut message = vec![8, 0, 0, 0, a, b, 0, 1];
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// Whether the frame carries this text.
pub fn carries(frame: &[u8], text: &str) -> bool {
    frame.windows(text.len()).any(|w| w == text.as_bytes())
}

/// The IPv4 source address of a frame.
pub fn source(frame: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
    (frame[12..14] == IPV4).then(|| bytes.into())
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
