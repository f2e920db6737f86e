//! LXD's configuration keys of networks as condo's networks, and back.

use condo::net::Kind;
use condo::vps::record::domain::Domain;
use condo::vps::record::name::Name;
use condo::vps::record::network::NetworkRecord;
use condo::vps::wire::networks::{NetworkChange, NewNetwork};
use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::keys::Keys;
use crate::reply::Problem;

/// What a network is configured with.
pub(super) fn keys(record: &NetworkRecord) -> Keys {
    let network = &record.network;
    let mut keys = Keys::new();
    let mut put = |key: &str, value: String| drop(keys.insert(key.to_owned(), value));
    if network.kind.is_bridged() {
        put("bridge.external_interfaces", network.bridge.clone());
    } else {
        put("ipv4.nat", (network.kind == Kind::Nat).to_string());
    }
    put(
        "ipv4.address",
        format!("{}/{}", network.gateway(), network.subnet.prefix()),
    );
    let six = network.subnet6.and_then(|subnet| {
        let first = u128::from(subnet.network()).checked_add(1)?;
        Some(format!("{}/{}", std::net::Ipv6Addr::from(first), subnet.prefix()))
    });
    put("ipv6.address", six.unwrap_or_else(|| "none".to_owned()));
    if let Some(mtu) = network.mtu {
        put("bridge.mtu", mtu.to_string());
    }
    if network.dns {
        put("dns.mode", "managed".to_owned());
    }
    if let Some(domain) = &record.domain {
        put("dns.domain", domain.to_string());
    }
    keys
}

/// A network of these.
pub(super) fn new(name: Name, keys: &Keys) -> Result<NewNetwork, Problem> {
    let mut new = NewNetwork {
        name,
        kind: Kind::Nat,
        subnet: None,
        subnet6: None,
        mtu: None,
        bridge: None,
        gateway: None,
        dns: false,
        domain: None,
    };
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_empty()) {
        match key.as_str() {
            "ipv4.address" if value == "auto" => {}
            "ipv4.address" => new.subnet = Some(subnet(key, value)?),
            "ipv6.address" if ["auto", "none"].contains(&value.as_str()) => {}
            "ipv6.address" => new.subnet6 = Some(subnet6(key, value)?),
            "ipv4.nat" if crate::keys::truth(key, value)? => {}
            "ipv4.nat" => new.kind = Kind::Routed,
            "ipv6.nat" | "ipv4.dhcp" => drop(crate::keys::truth(key, value)?),
            "bridge.mtu" => new.mtu = Some(mtu(key, value)?),
            "bridge.external_interfaces" => new.bridge = Some(value.clone()),
            "dns.mode" => new.dns = names(key, value)?,
            "dns.domain" => new.domain = Some(domain(key, value)?),
            _ => return Err(Problem::bad(format!("config: key `{key}` is not supported"))),
        }
    }
    if new.bridge.is_some() {
        new.kind = Kind::Bridged;
    }
    Ok(new)
}

/// What leads from the ones to the others.
pub(super) fn change(before: &Keys, after: &Keys) -> Result<NetworkChange, Problem> {
    let mut change = NetworkChange::default();
    let all = before.keys().chain(after.keys());
    for key in all {
        let value = after.get(key).map_or("", String::as_str);
        if before.get(key).map_or("", String::as_str) == value {
            continue;
        }
        match key.as_str() {
            "bridge.mtu" if !value.is_empty() => change.mtu = Some(mtu(key, value)?),
            "ipv6.address" if value.contains('/') => change.subnet6 = Some(subnet6(key, value)?),
            "dns.mode" => change.dns = Some(names(key, value)?),
            "dns.domain" => {
                let given = (!value.is_empty()).then(|| domain(key, value));
                change.domain = Some(given.transpose()?);
            }
            "ipv6.nat" | "ipv4.dhcp" => {}
            _ => {
                let problem = "cannot be changed: bridge.mtu, dns.domain, dns.mode and ipv6.address can; make another network for others";
                return Err(Problem::value(&format!("config.{key}"), value, problem));
            }
        }
    }
    Ok(change)
}

/// The range that an address with a prefix is in: it is the host's, the first one.
fn subnet(key: &str, text: &str) -> Result<Ipv4Network, Problem> {
    let parsed: Option<Ipv4Network> = text.parse().ok().filter(|_| text.contains('/'));
    let found =
        parsed.ok_or_else(|| Problem::value(key, text, "is not of the form 10.1.2.1/24, nor auto"))?;
    let range = Ipv4Network::new(found.network(), found.prefix());
    range.map_err(|_| Problem::value(key, text, "has no such prefix"))
}

fn subnet6(key: &str, text: &str) -> Result<Ipv6Network, Problem> {
    let parsed: Option<Ipv6Network> = text.parse().ok().filter(|_| text.contains('/'));
    let found = parsed
        .ok_or_else(|| Problem::value(key, text, "is not of the form fd00:1::1/64, nor auto, nor none"))?;
    let range = Ipv6Network::new(found.network(), found.prefix());
    range.map_err(|_| Problem::value(key, text, "has no such prefix"))
}

/// Whether VPSs ask for names at the gateway. Without the key they do not.
fn names(key: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "managed" => Ok(true),
        "none" | "" => Ok(false),
        _ => Err(Problem::value(key, text, "is neither managed nor none")),
    }
}

fn domain(key: &str, text: &str) -> Result<Domain, Problem> {
    text.parse()
        .map_err(|_| Problem::value(key, text, "is not a domain such as vps.example.net"))
}

fn mtu(key: &str, text: &str) -> Result<u32, Problem> {
    text.parse()
        .map_err(|_| Problem::value(key, text, "is not a number of bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(pairs: &[(&str, &str)]) -> Keys {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn keys_say_what_a_network_is() {
        let name = || "lan".parse().unwrap();
        let one = new(
            name(),
            &keys_of(&[("ipv4.address", "10.5.0.1/24"), ("bridge.mtu", "1400")]),
        )
        .unwrap();
        assert_eq!(
            (one.subnet.unwrap().to_string().as_str(), one.mtu, one.kind),
            ("10.5.0.0/24", Some(1400), Kind::Nat)
        );
        assert_eq!(
            new(name(), &keys_of(&[("ipv4.nat", "false")])).unwrap().kind,
            Kind::Routed
        );
        for (key, value) in [
            ("ipv4.address", "none"),
            ("ipv4.address", "10.0.0.1"),
            ("dns.mode", "dynamic"),
            ("ipv4.nat", "x"),
        ] {
            let refused = new(name(), &keys_of(&[(key, value)])).unwrap_err();
            assert!(refused.text.contains(key), "{}", refused.text);
        }
    }

    #[test]
    fn what_can_change_changes() {
        let before = keys_of(&[("ipv4.address", "10.5.0.1/24"), ("ipv4.nat", "true")]);
        let mut after = before.clone();
        assert_eq!(change(&before, &after).unwrap(), NetworkChange::default());
        after.insert("bridge.mtu".into(), "1400".into());
        assert_eq!(change(&before, &after).unwrap().mtu, Some(1400));
        after.insert("dns.domain".into(), "vps.example.net".into());
        let changed = change(&before, &after).unwrap().domain.flatten().unwrap();
        assert_eq!(changed.to_string(), "vps.example.net");
        assert_eq!(change(&after, &before).unwrap_err().code, 400);
        after.insert("ipv4.address".into(), "10.6.0.1/24".into());
        assert!(change(&before, &after).unwrap_err().text.contains("ipv4.address"));
    }
}
