//! Which address a VPS gets: pure, the leases are kept elsewhere.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::error::{Error, Result};

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
            Error::unsupported("another VPS", format!("all addresses of `{subnet}` are taken"))
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

/// The first free address behind the last one, or from the beginning when there is none.
fn in_turn(subnet: Ipv4Network, taken: &Taken) -> Option<Ipv4Addr> {
    let first = gateway(subnet).to_bits().checked_add(1)?;
    let behind = taken.last.filter(|last| subnet.contains(*last));
    let next = behind.map_or(first, |last| last.to_bits().saturating_add(1).max(first));
    gap(subnet, &taken.by_others, next).or_else(|| gap(subnet, &taken.by_others, first))
}

/// Walks along the taken addresses to the first gap, in time of the number taken and not of the size of the subnet.
fn gap(subnet: Ipv4Network, taken: &BTreeSet<Ipv4Addr>, from: u32) -> Option<Ipv4Addr> {
    let end = subnet.broadcast().to_bits();
    let mut next = from;
    for address in taken.range(Ipv4Addr::from_bits(next)..) {
        if address.to_bits() != next {
            break;
        }
        next = next.checked_add(1)?;
    }
    (next < end).then(|| Ipv4Addr::from_bits(next))
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
            last: None,
        }
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
