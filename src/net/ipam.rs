//! Which address a VPS gets: pure, the leases are kept elsewhere.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::port::interface_id;
use crate::error::{Error, Result};

/// How many VPSs have room in a subnet of so many addresses: its first and its last are its own, and one is the host's.
pub fn room(size: u64) -> u64 {
    size.saturating_sub(3)
}

/// The host's address on the network: the first one that a host can have.
pub fn gateway(subnet: Ipv4Network) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

/// Addresses that are not to be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Those that others have.
    pub by_others: BTreeSet<Ipv4Addr>,
    /// The one that was handed out last: whoever is next gets one behind it, so that one that was given back rests as long as
    /// possible.
    pub last: Option<Ipv4Addr>,
    /// Those that only who asks for them gets: from one to another, both included.
    pub reserved: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// The wanted address, or the next free one of the subnet in turn, if it is neither its network nor broadcast address nor the
/// gateway.
///
/// # Errors
/// [`Error::Exists`] of kind `address` for a wanted one that is taken, [`Error::Invalid`] for one that no VPS here can have,
/// [`Error::Unsupported`] when none is left.
pub fn pick(subnet: Ipv4Network, taken: &Taken, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    match wanted {
        Some(address) => check(subnet, &taken.by_others, address),
        None => in_turn(subnet, taken).ok_or_else(|| {
            let why = format!(
                "all addresses of `{subnet}` are taken or reserved; delete one, or make another network: `condo network create more`"
            );
            Error::unsupported("another VPS", why)
        }),
    }
}

fn check(subnet: Ipv4Network, taken: &BTreeSet<Ipv4Addr>, address: Ipv4Addr) -> Result<Ipv4Addr> {
    let problem = if !subnet.contains(address) {
        format!("is not in the VPSs' network `{subnet}`")
    } else if address == gateway(subnet) {
        "is the host's own address".into()
    } else if address == subnet.network() || address == subnet.broadcast() {
        format!("stands for the whole network `{subnet}`")
    } else if taken.contains(&address) {
        return Err(Error::Exists {
            kind: "address",
            name: address.to_string(),
        });
    } else {
        return Ok(address);
    };
    Err(Error::invalid("--ip", address, problem))
}

/// Whether a VPS can have this IPv6 address: one of the subnet, and neither the host's nor one that a VPS could derive.
///
/// # Errors
/// [`Error::Invalid`] that says why not.
pub fn check6(subnet: Option<Ipv6Network>, address: Ipv6Addr) -> Result<()> {
    let problem = match subnet {
        None => "is asked for on a network that has no `--subnet6`".to_owned(),
        Some(subnet) if !subnet.contains(address) => format!("is not in the VPSs' network `{subnet}`"),
        Some(subnet) if address == gateway6(subnet) => "is the host's own address".to_owned(),
        Some(subnet) if address == subnet.network() => format!("stands for the whole network `{subnet}`"),
        Some(_) if (address.to_bits() >> 24) as u16 == 0xfffe => {
            "has `ff:fe` in it as those that VPSs derive from hardware addresses".to_owned()
        }
        Some(_) => return Ok(()),
    };
    Err(Error::invalid("ip6", address, problem))
}

/// A subnet in which addresses can be derived from hardware addresses.
pub(super) fn check_subnet6(subnet: Ipv6Network) -> Result<()> {
    let refuse = |problem| Err(Error::invalid("--subnet6", subnet, problem));
    if subnet.prefix() != 64 {
        return refuse("must have a prefix of 64 bits, in which VPSs derive their addresses");
    }
    if subnet.ip() != subnet.network() {
        return refuse("must name the network, not an address in it");
    }
    if subnet.network().is_multicast() || subnet.network().is_unicast_link_local() {
        return refuse("is no range of machines' addresses");
    }
    Ok(())
}

/// The host's IPv6 address on the network.
pub fn gateway6(subnet: Ipv6Network) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.network().to_bits() | 1)
}

/// The address that a VPS with this hardware address has, as a system would give it to itself.
pub fn derived6(subnet: Ipv6Network, mac: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.network().to_bits() | u128::from(interface_id(mac)))
}

/// The first free address behind the last one, or from the beginning when there is none.
fn in_turn(subnet: Ipv4Network, taken: &Taken) -> Option<Ipv4Addr> {
    let first = gateway(subnet).to_bits().checked_add(1)?;
    let behind = taken.last.filter(|last| subnet.contains(*last));
    let next = behind.map_or(first, |last| last.to_bits().saturating_add(1).max(first));
    gap(subnet, taken, next).or_else(|| gap(subnet, taken, first))
}

/// Walks along the taken addresses to the first gap, in time of the number taken and not of the size of the subnet.
fn gap(subnet: Ipv4Network, taken: &Taken, from: u32) -> Option<Ipv4Addr> {
    let end = subnet.broadcast().to_bits();
    let mut next = from;
    loop {
        let before = next;
        for address in taken.by_others.range(Ipv4Addr::from_bits(next)..) {
            if address.to_bits() != next {
                break;
            }
            next = next.checked_add(1)?;
        }
        for (first, last) in &taken.reserved {
            if (first.to_bits()..=last.to_bits()).contains(&next) {
                next = last.to_bits().checked_add(1)?;
            }
        }
        if next == before {
            return (next < end).then(|| Ipv4Addr::from_bits(next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    fn set(taken: &[u8]) -> Taken {
        Taken {
            by_others: taken.iter().map(|d| Ipv4Addr::new(10, 1, 0, *d)).collect(),
            ..Taken::default()
        }
    }

    #[test]
    fn what_is_reserved_is_for_those_who_ask() {
        let subnet = net("10.1.0.0/29");
        let at = |d: u8| Ipv4Addr::new(10, 1, 0, d);
        let taken = Taken {
            reserved: vec![(at(5), at(6)), (at(2), at(3))],
            ..set(&[4])
        };
        assert!(pick(subnet, &taken, None).is_err());
        assert_eq!(pick(subnet, &taken, Some(at(5))).unwrap(), at(5));
        let freed = Taken {
            by_others: BTreeSet::new(),
            ..taken
        };
        assert_eq!(pick(subnet, &freed, None).unwrap(), at(4));
    }

    #[test]
    fn gaps_are_filled_and_the_gateway_is_never_given_away() {
        let subnet = net("10.1.0.0/24");
        assert_eq!(pick(subnet, &set(&[]), None).unwrap(), Ipv4Addr::new(10, 1, 0, 2));
        assert_eq!(
            pick(subnet, &set(&[2, 3, 5]), None).unwrap(),
            Ipv4Addr::new(10, 1, 0, 4)
        );
        assert_eq!(
            pick(subnet, &set(&[3]), None).unwrap(),
            Ipv4Addr::new(10, 1, 0, 2)
        );
    }

    #[test]
    fn an_address_that_was_given_back_is_the_last_to_be_given_again() {
        let subnet = net("10.1.0.0/29");
        let after = |last: u8, taken: &[u8]| {
            let last = Some(Ipv4Addr::new(10, 1, 0, last));
            let picked = pick(subnet, &Taken { last, ..set(taken) }, None);
            picked.map(|address| address.octets()[3]).ok()
        };
        assert_eq!(after(2, &[]), Some(3));
        assert_eq!(after(2, &[2, 3]), Some(4));
        // The end of the subnet, and a gap before the last one only.
        assert_eq!(after(6, &[6]), Some(2));
        assert_eq!(after(4, &[2, 4, 5, 6]), Some(3));
        assert_eq!(after(6, &[2, 3, 4, 5, 6]), None);
        let elsewhere = Some(Ipv4Addr::new(10, 9, 0, 5));
        let moved = Taken {
            last: elsewhere,
            ..set(&[])
        };
        assert_eq!(pick(subnet, &moved, None).unwrap(), Ipv4Addr::new(10, 1, 0, 2));
    }

    #[test]
    fn a_full_subnet_says_so_and_broadcast_is_not_used() {
        let e = pick(net("10.1.0.0/29"), &set(&[2, 3, 4, 5, 6]), None).unwrap_err();
        assert!(matches!(e, Error::Unsupported { .. }), "{e}");
        let e = pick(net("255.255.255.252/30"), &Taken::default(), None).unwrap();
        assert_eq!(e, Ipv4Addr::new(255, 255, 255, 254));
    }

    #[test]
    fn a_wanted_ipv6_address_is_checked() {
        let subnet: Ipv6Network = "fd00:1:2:3::/64".parse().unwrap();
        let ask = |text: &str| check6(Some(subnet), text.parse().unwrap());
        ask("fd00:1:2:3::5").unwrap();
        for bad in [
            "fd00:1:2:3::1",
            "fd00:1:2:3::",
            "fd00:1:2:4::5",
            "fd00:1:2:3:63:ff:fe00:7",
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
        assert!(check6(None, "fd00::5".parse().unwrap()).is_err());
        assert_eq!(
            derived6(subnet, [2, 0x63, 0, 0, 0, 7]).to_string(),
            "fd00:1:2:3:63:ff:fe00:7"
        );
        for bad in ["fd00::/48", "fd00::1/64", "fe80::/64", "ff02::/64"] {
            assert!(check_subnet6(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wanted_address_is_checked() {
        let subnet = net("10.1.0.0/24");
        let ask = |d: [u8; 4]| pick(subnet, &set(&[7]), Some(d.into()));
        assert_eq!(ask([10, 1, 0, 9]).unwrap(), Ipv4Addr::new(10, 1, 0, 9));
        assert!(matches!(
            ask([10, 1, 0, 7]),
            Err(Error::Exists { kind: "address", .. })
        ));
        for bad in [[10, 1, 0, 0], [10, 1, 0, 1], [10, 1, 0, 255], [10, 2, 0, 9]] {
            assert!(matches!(ask(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
