//! Which private range the VPSs live in.

use std::net::Ipv6Addr;
use std::path::Path;

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::error::{Error, Result};
use crate::files;

/// The ranges that are tried, in order: those that Docker (172.17 to 172.28), libvirt (192.168.122), Kubernetes (10.42 to
/// 10.43, 10.96, 10.244), home routers and clouds (10.0, 192.168.0 and .1) do not take by default come first.
fn candidates() -> impl Iterator<Item = Ipv4Network> {
    let large = (171..=199).map(|b| ([10, b, 0, 0], 16));
    let medium = (29..=31).map(|b| ([172, b, 0, 0], 16));
    let small = (200..=239).map(|c| ([192, 168, c, 0], 24));
    large
        .chain(medium)
        .chain(small)
        .filter_map(|(address, prefix)| Ipv4Network::new(address.into(), prefix).ok())
}

/// The first private range that overlaps nothing in `taken` (see [`routes`](super::routes)).
///
/// # Errors
/// [`Error::Unsupported`] when every candidate overlaps.
pub fn choose_subnet(taken: &[Ipv4Network]) -> Result<Ipv4Network> {
    candidates()
        .find(|candidate| !taken.iter().any(|other| candidate.overlaps(*other)))
        .ok_or_else(|| {
            Error::unsupported(
                "an automatic choice of the VPS subnet",
                "this host has routes into every range that would be tried; name a free one",
            )
        })
}

/// A private range of IPv6, by chance, as RFC 4193 wants it: nobody else has it.
///
/// # Errors
/// Those of reading the kernel's random numbers.
pub fn choose_subnet6() -> Result<Ipv6Network> {
    let text = files::read_text(Path::new("/proc/sys/kernel/random/uuid"))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(10).collect();
    let chance = u64::from_str_radix(&digits, 16)
        .map_err(|_| Error::Corrupt("the kernel's random numbers are none".into()))?;
    // fd, forty bits by chance, and the first of its 65,536 networks.
    let bits = (0xfd_u128 << 120) | (u128::from(chance) << 80);
    Ipv6Network::new(Ipv6Addr::from_bits(bits), 64)
        .map_err(|e| Error::Corrupt(format!("a range of IPv6 is none: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_free_range_is_chosen_whether_a_route_is_wider_or_narrower() {
        assert_eq!(choose_subnet(&[]).unwrap(), net("10.171.0.0/16"));
        assert_eq!(
            choose_subnet(&[net("10.171.9.0/24")]).unwrap(),
            net("10.172.0.0/16")
        );
        assert_eq!(choose_subnet(&[net("10.0.0.0/8")]).unwrap(), net("172.29.0.0/16"));
        let taken = [net("10.0.0.0/8"), net("172.16.0.0/12")];
        assert_eq!(choose_subnet(&taken).unwrap(), net("192.168.200.0/24"));
    }

    #[test]
    fn ranges_of_ipv6_are_private_and_differ() {
        let (a, b) = (choose_subnet6().unwrap(), choose_subnet6().unwrap());
        assert!(a.ip().is_unique_local() && a.prefix() == 64 && a.ip() == a.network());
        assert_ne!(a, b);
    }

    #[test]
    fn a_full_host_is_told() {
        let taken = [net("10.0.0.0/8"), net("172.16.0.0/12"), net("192.168.0.0/16")];
        assert!(matches!(choose_subnet(&taken), Err(Error::Unsupported { .. })));
    }
}
