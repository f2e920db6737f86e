//! A VPS's place on a network: names and addresses, derived and not stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::link::{DOOMED, PORTS};

/// One VPS's connection to a [`Network`](super::Network).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's end of the veth pair, at most 15 characters.
    pub host_if: String,
    /// The first of the VPS's ports, by its name at the host's end: all of them are held to the VPS's rates together.
    pub line: String,
    /// The VPS's end: `eth0`.
    pub guest_if: String,
    /// Whether the VPS's way out is by this port.
    pub is_first: bool,
    /// Hardware address of the VPS's end.
    pub mac: [u8; 6],
    /// The VPS's address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, on a network that has one for it.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
    /// Largest packet in bytes, when not the kernel's default of 1500.
    #[serde(default)]
    pub mtu: Option<u32>,
}

impl Port {
    /// The first port of the VPS with this number, which no other VPS of this host may have.
    pub fn new(id: u32, address: Ipv4Addr) -> Self {
        Self {
            host_if: format!("vc{id}"),
            line: format!("vc{id}"),
            guest_if: "eth0".into(),
            is_first: true,
            mac: port_mac(id, 0),
            address,
            address6: None,
            mtu: None,
        }
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(self.address.into()), self.address6.map(Into::into)]
            .into_iter()
            .flatten()
    }
}

/// The hardware address of a VPS's interface, by the numbers of both; the VPS's has at most 24 bits.
pub fn port_mac(id: u32, interface: u8) -> [u8; 6] {
    let [_, b, c, d] = id.to_be_bytes();
    // 02: locally administered, unicast (IEEE 802); 63 keeps clear of the bridges' own addresses.
    [0x02, 0x63, interface, b, c, d]
}

/// The interface identifier that stateless autoconfiguration derives from a hardware address (RFC 4291, appendix A).
pub fn interface_id(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The bridge's hardware address, from its name: it neither changes with its ports nor clashes with a tenant's.
pub(super) fn bridge_mac(name: &str) -> [u8; 6] {
    let [a, b, c, d] = hash(name).to_be_bytes();
    [0x02, 0x43, a, b, c, d]
}

/// The group of the ports of a network, by its bridge's name.
pub(super) fn group(bridge: &str) -> u32 {
    PORTS.value | hash(bridge) & !(PORTS.mask | DOOMED)
}

/// FNV-1a.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_gives_a_short_name_and_its_own_unicast_local_address() {
        for id in [0, 1, 255, 70_000, 99_999] {
            let port = Port::new(id, Ipv4Addr::LOCALHOST);
            assert!(port.host_if.len() <= 15, "{}", port.host_if);
            assert_eq!(port.mac[0] & 3, 2);
        }
        assert_ne!(
            Port::new(1, Ipv4Addr::LOCALHOST).mac,
            Port::new(256, Ipv4Addr::LOCALHOST).mac
        );
    }

    #[test]
    fn interface_identifiers_are_those_of_the_rfc() {
        assert_eq!(
            interface_id([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]),
            0x3656_78ff_fe9a_bcde
        );
    }

    #[test]
    fn bridges_differ_from_each_other_and_from_ports() {
        assert_ne!(bridge_mac("condo0"), bridge_mac("condo1"));
        assert_ne!(group("condo0"), group("condo1"));
        assert_eq!(group("condo0") & (PORTS.mask | DOOMED), PORTS.value);
        assert_ne!(
            bridge_mac("condo0")[..2],
            Port::new(0, Ipv4Addr::LOCALHOST).mac[..2]
        );
    }
}
