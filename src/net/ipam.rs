//! Which address a VPS gets: pure, the leases are kept elsewhere.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::error::{Error, Result};

/// The host's address on the network: the first one that a host can have.
pub fn gateway(subnet: Ipv4Network) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

/// The wanted address, or the lowest free one of the subnet, if it is neither its network nor broadcast address nor the gateway.
///
/// # Errors
/// [`Error::Exists`] of kind `address` for a wanted one that is taken, [`Error::Invalid`] for one that no VPS here can have,
/// [`Error::Unsupported`] when none is left.
pub fn pick(subnet: Ipv4Network, taken: &BTreeSet<Ipv4Addr>, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    match wanted {
        Some(address) => check(subnet, taken, address),
        None => lowest(subnet, taken).ok_or_else(|| {
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

/// Walks along the taken addresses to the first gap, in time of the number taken and not of the size of the subnet.
fn lowest(subnet: Ipv4Network, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let end = subnet.broadcast().to_bits();
    let mut next = gateway(subnet).to_bits().checked_add(1)?;
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

    fn set(last: &[u8]) -> BTreeSet<Ipv4Addr> {
        last.iter().map(|d| Ipv4Addr::new(10, 1, 0, *d)).collect()
    }

    #[test]
    fn the_lowest_gap_is_filled_and_the_gateway_is_never_given_away() {
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
    fn a_full_subnet_says_so_and_broadcast_is_not_used() {
        let e = pick(net("10.1.0.0/29"), &set(&[2, 3, 4, 5, 6]), None).unwrap_err();
        assert!(matches!(e, Error::Unsupported { .. }), "{e}");
        let e = pick(net("255.255.255.252/30"), &BTreeSet::new(), None).unwrap();
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
