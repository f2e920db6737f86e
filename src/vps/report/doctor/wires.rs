//! Networks: routes that overlap, addresses that run out, firewalls of others.

use super::{Finding, Weight};
use crate::error::Result;
use crate::net::ipam;
use crate::net::others::{self, DroppingChain};
use crate::vps::record::instance::Condo;
use crate::vps::wire::network;

impl Condo {
    pub(super) fn examine_network(&self, vpss: u64) -> Result<Vec<Finding>> {
        let routes = network::collisions(self)?;
        let routes: Vec<(String, String)> = routes
            .iter()
            .map(|(name, route)| (name.to_string(), route.to_string()))
            .collect();
        let links = self.store.networks()?;
        let bridge = links
            .first()
            .map_or_else(|| self.folders.bridge(), |first| first.network.bridge.clone());
        // The default network is not there before the first VPS is.
        let size = links.first().map(|first| u64::from(first.network.subnet.size()));
        let mut found = vec![overlaps(&routes), firewalls(&others::dropping(&bridge)?, &bridge)];
        found.extend(size.map(|size| addresses(vpss, size)));
        Ok(found)
    }
}

fn overlaps(routes: &[(String, String)]) -> Finding {
    let Some((_, first)) = routes.first() else {
        return Finding::new("routes", Weight::Good, "none leads to addresses of VPSs");
    };
    let listed: Vec<String> = routes
        .iter()
        .map(|(network, route)| format!("{route} overlaps the network {network}"))
        .collect();
    Finding::new("routes", Weight::Warning, listed.join(", ")).mended_by(format!("ip route show {first}"))
}

fn addresses(vpss: u64, size: u64) -> Finding {
    let left = ipam::room(size);
    let found = format!("enough for {left} VPSs on the default network");
    if vpss <= left {
        return Finding::new("addresses", Weight::Good, found);
    }
    Finding::new("addresses", Weight::Warning, found).mended_by("condo network create more")
}

fn firewalls(chains: &[DroppingChain], bridge: &str) -> Finding {
    let Some(first) = chains.first() else {
        return Finding::new(
            "firewalls of others",
            Weight::Good,
            "none drops what VPSs send and receive",
        );
    };
    let listed: Vec<String> = chains
        .iter()
        .map(|chain| format!("{} {}", chain.table, chain.name))
        .collect();
    let text = format!(
        "these drop what they do not know, and say nothing of {bridge}: {}",
        listed.join(", ")
    );
    let into = format!("nft insert rule {} {}", first.table, first.name);
    let both = format!("{into} iifname {bridge} accept && {into} oifname {bridge} accept");
    Finding::new("firewalls of others", Weight::Warning, text).mended_by(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_of_others_is_named_with_what_opens_it() {
        let chain = DroppingChain {
            table: "ip filter".into(),
            name: "FORWARD".into(),
        };
        let found = firewalls(&[chain], "condo0");
        assert_eq!(
            found.remedy.as_deref(),
            Some(
                "nft insert rule ip filter FORWARD iifname condo0 accept && nft insert rule ip filter FORWARD oifname condo0 accept"
            )
        );
        assert_eq!(firewalls(&[], "condo0").weight, Weight::Good);
    }

    #[test]
    fn a_network_has_so_many_addresses() {
        assert_eq!(addresses(253, 256).weight, Weight::Good);
        assert_eq!(
            addresses(254, 256).remedy.as_deref(),
            Some("condo network create more")
        );
    }
}
