//! The firewall's sets and what their elements look like: one element per interface, per tenant, per pair in each order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `IFNAMSIZ`: interface names are compared with their padding.
const NAME: usize = 16;

/// A named set: its name, the data type nft(8) shows (six bits a part) and the key's length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    /// Its name.
    pub(super) name: &'static str,
    pub(super) kind: u32,
    pub(super) length: u32,
    /// Whether packets enter elements, and after how many seconds without one they go; 0 is never.
    pub(super) by_packets: Option<u64>,
}

const IPV4_TYPE: u32 = 7;
const IPV6_TYPE: u32 = 8;
const ETHER_TYPE: u32 = 9;
const NAME_TYPE: u32 = 41;

const fn set(name: &'static str, kind: u32, length: u32, by_packets: Option<u64>) -> Set {
    Set {
        name,
        kind,
        length,
        by_packets,
    }
}

/// The links of all networks.
pub(super) const LINKS: Set = set("links", NAME_TYPE, 16, None);
/// Those whose VPSs have a way out.
pub(super) const OUTWARD: Set = set("outward", NAME_TYPE, 16, None);
/// Those whose VPSs the outside may begin to talk to.
pub(super) const OPEN: Set = set("open", NAME_TYPE, 16, None);

/// Addresses of this host at which VPSs may ask for names.
pub(super) const RESOLVERS: Set = set("resolvers", IPV4_TYPE, 4, None);

/// The sets of one address family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// Who is who: hardware address and address of every VPS that is attached.
    pub(super) tenants: Set,
    /// The addresses of the same VPSs.
    pub(super) addresses: Set,
    /// Those of them that the outside sees as the host's.
    pub(super) hidden: Set,
    /// Who may talk to whom, each pair in both orders.
    pub(super) pairs: Set,
    /// How many connections each VPS has; only sources that are in the set of tenants come to be in it.
    pub(super) connections: Set,
    /// On whose behalf the host has lately sent to which neighbour of its own.
    pub(super) hops: Set,
    /// How fast each VPS makes the host look for neighbours.
    pub(super) seekers: Set,
    /// How fast each VPS sends fragments.
    pub(super) fragments: Set,
}

/// IPv4.
pub(super) const V4: Family = Family {
    tenants: set("tenants", ETHER_TYPE << 6 | IPV4_TYPE, 12, None),
    addresses: set("addresses", IPV4_TYPE, 4, None),
    hidden: set("hidden", IPV4_TYPE, 4, None),
    pairs: set("pairs", IPV4_TYPE << 6 | IPV4_TYPE, 8, None),
    connections: set("connections", IPV4_TYPE, 4, Some(0)),
    hops: set("hops", IPV4_TYPE << 6 | IPV4_TYPE, 8, Some(60)),
    seekers: set("seekers", IPV4_TYPE, 4, Some(0)),
    fragments: set("fragments", IPV4_TYPE, 4, Some(0)),
};

/// IPv6.
pub(super) const V6: Family = Family {
    tenants: set("tenants6", ETHER_TYPE << 6 | IPV6_TYPE, 24, None),
    addresses: set("addresses6", IPV6_TYPE, 16, None),
    hidden: set("hidden6", IPV6_TYPE, 16, None),
    pairs: set("pairs6", IPV6_TYPE << 6 | IPV6_TYPE, 32, None),
    connections: set("connections6", IPV6_TYPE, 16, Some(0)),
    hops: set("hops6", IPV6_TYPE << 6 | IPV6_TYPE, 32, Some(60)),
    seekers: set("seekers6", IPV6_TYPE, 16, Some(0)),
    fragments: set("fragments6", IPV6_TYPE, 16, Some(0)),
};

/// All sets.
pub(super) const ALL: [Set; 20] = [
    LINKS,
    OUTWARD,
    OPEN,
    RESOLVERS,
    V4.tenants,
    V4.addresses,
    V4.hidden,
    V4.pairs,
    V4.connections,
    V4.hops,
    V4.seekers,
    V4.fragments,
    V6.tenants,
    V6.addresses,
    V6.hidden,
    V6.pairs,
    V6.connections,
    V6.hops,
    V6.seekers,
    V6.fragments,
];

/// The sets that an address belongs in.
pub(super) fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => V4,
        IpAddr::V6(_) => V6,
    }
}

/// The key of an interface.
pub(super) fn name_key(interface: &str) -> Vec<u8> {
    let mut name = interface.as_bytes().to_vec();
    name.resize(NAME, 0);
    name
}

/// The key of an address.
pub(super) fn address_key(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The key of a tenant: hardware address, padded to whole registers, and address.
pub(super) fn tenant_key(mac: [u8; 6], address: IpAddr) -> Vec<u8> {
    [&mac[..], &[0; 2], &address_key(address)].concat()
}

/// The key of an ordered pair of addresses.
pub(super) fn pair_key(from: IpAddr, to: IpAddr) -> Vec<u8> {
    [address_key(from), address_key(to)].concat()
}

/// The two addresses of [`pair_key`].
pub(super) fn pair_of(key: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (from, to) = key.split_at_checked(key.len() / 2)?;
    Some((address_of(from)?, address_of(to)?))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into());
    v4.or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fill_whole_registers() {
        let key = tenant_key([1, 2, 3, 4, 5, 6], Ipv4Addr::new(10, 0, 0, 9).into());
        assert_eq!(key, [1, 2, 3, 4, 5, 6, 0, 0, 10, 0, 0, 9]);
        assert_eq!(key.len(), V4.tenants.length as usize);
        let key = tenant_key([1, 2, 3, 4, 5, 6], Ipv6Addr::LOCALHOST.into());
        assert_eq!(key.len(), V6.tenants.length as usize);
        assert_eq!(name_key("condo0").len(), LINKS.length as usize);
    }

    #[test]
    fn pairs_are_read_back() {
        let (a, b) = (
            Ipv4Addr::new(10, 0, 0, 1).into(),
            Ipv4Addr::new(10, 0, 0, 2).into(),
        );
        assert_eq!(pair_of(&pair_key(a, b)), Some((a, b)));
        let (a, b) = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(pair_of(&pair_key(a, b)), Some((a, b)));
        assert_eq!(pair_of(&[0; 7]), None);
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|set| set.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
