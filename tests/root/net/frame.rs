//! Frames as a hostile VPS would send them, byte by byte, and a look at what arrives.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

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

/// As [`udp`], from this port to another.
pub fn udp_ports(frame: Vec<u8>, from: u16, to: u16) -> Vec<u8> {
    let mut frame = frame;
    frame[34..36].copy_from_slice(&from.to_be_bytes());
    frame[36..38].copy_from_slice(&to.to_be_bytes());
    frame
}

/// An ICMP message that says of a UDP packet, sent between these ends, that it was too long for `mtu` bytes.
pub fn too_long(
    macs: (Mac, Mac),
    (from, to): (Ipv4Addr, Ipv4Addr),
    sent: (SocketAddrV4, SocketAddrV4),
    mtu: u16,
) -> Vec<u8> {
    let quoted = udp_ports(
        udp((macs.0, macs.1), *sent.0.ip(), *sent.1.ip(), "quoted"),
        sent.0.port(),
        sent.1.port(),
    );
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&quoted[14..]);
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut frame = udp(macs, from, to, "");
    frame.truncate(34);
    frame[16..18].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
    frame[23] = 1;
    frame[24..26].copy_from_slice(&[0; 2]);
    let sum = checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame.extend(message);
    frame
}

/// The frame with a VLAN's tag of this kind: `[0x81, 0]` or `[0x88, 0xa8]`.
pub fn tagged(mut frame: Vec<u8>, kind: [u8; 2], vlan: u16) -> Vec<u8> {
    let [a, b] = vlan.to_be_bytes();
    frame.splice(12..12, [kind[0], kind[1], a, b]);
    frame
}

/// The IPv4 frame with an option that does nothing.
pub fn with_option(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    let length = u16::from_be_bytes([frame[16], frame[17]]) + 4;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[24..26].copy_from_slice(&[0; 2]);
    let sum = checksum(&frame[14..38]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
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
    packet.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend([0, 9, 0, 9]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text.as_bytes());
    ethernet(macs.1, macs.0, [0x86, 0xdd], &packet)
}

/// An IPv6 packet with this payload of this protocol.
pub fn ip6(macs: (Mac, Mac), ends: (Ipv6Addr, Ipv6Addr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, 255]);
    packet.extend(ends.0.octets());
    packet.extend(ends.1.octets());
    let pseudo = [
        &packet[8..40],
        &(payload.len() as u32).to_be_bytes(),
        &[0, 0, 0, protocol],
    ]
    .concat();
    let mut payload = payload.to_vec();
    let at = if protocol == 58 { 2 } else { 6 };
    let sum = checksum(&[&pseudo[..], &payload].concat()).to_be_bytes();
    payload[at..at + 2].copy_from_slice(&sum);
    packet.extend(payload);
    ethernet(macs.1, macs.0, [0x86, 0xdd], &packet)
}

/// A datagram to port 9 that carries `text`, without its checksum.
pub fn datagram(text: &str) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    [&[0, 9, 0, 9][..], &length.to_be_bytes(), &[0, 0], text.as_bytes()].concat()
}

/// A message of neighbour discovery about `target`, with a hardware address and `text` behind it.
pub fn discovery(kind: u8, target: Ipv6Addr, mac: Mac, text: &str) -> Vec<u8> {
    let option = if kind == 136 { 2 } else { 1 };
    let head = [kind, 0, 0, 0, 0x60, 0, 0, 0];
    [&head[..], &target.octets(), &[option, 1], &mac, text.as_bytes()].concat()
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
