//! Which private range the VPSs live in.

use ipnetwork::Ipv4Network;

use crate::error::{Error, Result};

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
    fn a_full_host_is_told() {
        let taken = [net("10.0.0.0/8"), net("172.16.0.0/12"), net("192.168.0.0/16")];
        assert!(matches!(choose_subnet(&taken), Err(Error::Unsupported { .. })));
    }
}
