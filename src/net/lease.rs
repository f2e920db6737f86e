//! The DHCP answer that a VPS gets: its own address, for ever (RFC 2131, RFC 2132).
//!
//! Images whose own network set-up is DHCP drop the address that they find and ask for one. The answer is always the same but
//! for what it repeats of the question, so the port's fence gives it (see [`fence`](super::fence)): no server, no process.

use std::net::Ipv4Addr;

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::Port;

/// Length of the answer as a frame: headers, and the 300 bytes that the oldest clients want a message to have.
pub(super) const LENGTH: usize = HEADERS + 300;
/// Where the message begins: behind the headers of Ethernet, IPv4 and UDP.
pub(super) const HEADERS: usize = 42;
/// Where the message's type is told.
pub(super) const TYPE: usize = HEADERS + 236 + 4 + 2;
/// The types that answer.
pub(super) const OFFER: u8 = 2;
pub(super) const ACK: u8 = 5;
/// The hardware address of an answer where this host is not the gateway.
const ANSWERER: [u8; 6] = [2, 0x43, 0, 0, 0, 0];
/// What precedes options (RFC 2131, section 3).
pub(super) const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// What a VPS is told.
#[derive(Debug, Clone)]
pub(super) struct Lease<'a> {
    pub(super) port: &'a Port,
    pub(super) subnet: Ipv4Network,
    pub(super) subnet6: Option<Ipv6Network>,
    /// Whether the gateway is a way out.
    pub(super) leads_out: bool,
    pub(super) gateway: Ipv4Addr,
    /// The gateway's hardware address, where it is this host and nobody else is on the link.
    pub(super) gateway_mac: Option<[u8; 6]>,
    pub(super) resolvers: &'a [Ipv4Addr],
}

impl Lease<'_> {
    /// The whole frame, an acknowledgement of a question with number 0.
    pub(super) fn frame(&self) -> Vec<u8> {
        let (address, mac) = (self.port.address.octets(), self.port.mac);
        let gateway = self.gateway.octets();
        // Who answers is of no importance to a client.
        let gateway_mac = self.gateway_mac.unwrap_or(ANSWERER);
        let mut frame = [&mac[..], &gateway_mac, &[8, 0]].concat();
        frame.extend(ip_header(gateway, address));
        // UDP from the server's port to the client's, without a checksum, which IPv4 allows.
        frame.extend([0, 67, 0, 68]);
        frame.extend(((LENGTH - 34) as u16).to_be_bytes());
        frame.extend([0, 0]);
        // A reply by Ethernet; number, seconds and flags; the address asked from, the one given, the server's, no relay.
        frame.extend([2, 1, 6, 0]);
        frame.extend([0; 8]);
        frame.extend([[0; 4], address, gateway, [0; 4]].concat());
        frame.extend(mac);
        // The rest of the hardware address, and names of a server and a file.
        frame.extend([0; 10 + 64 + 128]);
        frame.extend(COOKIE);
        frame.extend(self.options());
        frame.resize(LENGTH, 0);
        frame
    }

    fn options(&self) -> Vec<u8> {
        let (gateway, mask) = (self.gateway.octets(), self.subnet.mask().octets());
        let mut options = vec![53, 1, ACK];
        let mut add = |code: u8, value: &[u8]| {
            options.push(code);
            options.push(value.len() as u8);
            options.extend(value);
        };
        add(54, &gateway);
        // A lease without end.
        add(51, &[0xff; 4]);
        add(1, &mask);
        if self.leads_out {
            add(3, &gateway);
        }
        let resolvers: Vec<u8> = self.resolvers.iter().take(3).flat_map(Ipv4Addr::octets).collect();
        if !resolvers.is_empty() {
            add(6, &resolvers);
        }
        if let Some(mtu) = self.port.mtu.and_then(|mtu| u16::try_from(mtu).ok()) {
            add(26, &mtu.to_be_bytes());
        }
        options.push(255);
        options
    }
}

fn ip_header(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(((LENGTH - 14) as u16).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(from);
    header.extend(to);
    let sum = header.chunks_exact(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(port: &Port, resolvers: &[Ipv4Addr]) -> Vec<u8> {
        Lease {
            port,
            subnet: "10.171.0.0/16".parse().unwrap(),
            subnet6: None,
            leads_out: true,
            gateway: Ipv4Addr::new(10, 171, 0, 1),
            gateway_mac: Some([2, 0x43, 9, 9, 9, 9]),
            resolvers,
        }
        .frame()
    }

    #[test]
    fn every_field_is_where_the_rfc_has_it() {
        let port = Port::new(7, Ipv4Addr::new(10, 171, 0, 9));
        let frame = lease(&port, &[Ipv4Addr::new(9, 9, 9, 9)]);
        assert_eq!(frame.len(), LENGTH);
        assert_eq!(frame[..6], port.mac);
        let message = &frame[HEADERS..];
        assert_eq!(message[16..20], [10, 171, 0, 9]);
        assert_eq!(message[28..34], port.mac);
        assert_eq!(message[236..243], [0x63, 0x82, 0x53, 0x63, 53, 1, ACK]);
        assert_eq!(frame[TYPE], ACK);
        let told = [
            54, 4, 10, 171, 0, 1, 51, 4, 255, 255, 255, 255, 1, 4, 255, 255, 0, 0, 3, 4, 10, 171, 0, 1, 6, 4,
            9, 9, 9, 9, 255,
        ];
        assert_eq!(message[243..243 + told.len()], told);
        let sum: u32 = frame[14..34]
            .chunks(2)
            .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn the_longest_answer_fits() {
        let port = Port {
            mtu: Some(1400),
            ..Port::new(7, Ipv4Addr::new(10, 171, 0, 9))
        };
        let frame = lease(&port, &[Ipv4Addr::new(9, 9, 9, 9); 5]);
        assert_eq!(frame.len(), LENGTH);
        let end = frame.iter().rposition(|b| *b != 0).unwrap();
        assert_eq!(frame[end - 4..=end], [26, 2, 5, 120, 255]);
    }
}
