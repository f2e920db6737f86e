//! Rules of an ACL as rules of a firewall, and back.
//!
//! An ACL's rules have no order: whatever drops weighs more than whatever allows. Of a firewall's rules the first that fits decides.
//! Both say the same where rules that drop come first.

use std::net::{Ipv4Addr, Ipv6Addr};

use condo::net::filter::{self, Action, Direction, FilterRule, Ports, Protocol};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::keys::values;
use crate::reply::Problem;
use crate::request::must_be_empty;

const ALL_V4: IpNetwork = IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).unwrap());
const ALL_V6: IpNetwork = IpNetwork::V6(Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0).unwrap());

/// A rule as clients write it. What is empty fits everything.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AclRule {
    action: String,
    state: String,
    description: String,
    source: String,
    source_port: String,
    destination: String,
    destination_port: String,
    protocol: String,
    icmp_type: String,
    icmp_code: String,
}

impl AclRule {
    /// What it is for the firewall: lists are several rules.
    pub(super) fn rules(&self, direction: Direction) -> Result<Vec<FilterRule>, Problem> {
        let nothing = [
            ("description", &self.description),
            ("source_port", &self.source_port),
            ("icmp_type", &self.icmp_type),
            ("icmp_code", &self.icmp_code),
        ];
        for (field, value) in nothing {
            must_be_empty(field, value, "is not supported: leave it out")?;
        }
        let (protocol, everywhere) = protocol(&self.protocol)?;
        let (action, log) = (values::policy("action", &self.action)?, is_logged(&self.state)?);
        let mut all = Vec::new();
        for from in networks("source", &self.source)? {
            for to in networks("destination", &self.destination)? {
                for ports in ports(&self.destination_port)? {
                    let from = from.or(everywhere.filter(|_| to.is_none()));
                    let rule = FilterRule {
                        action,
                        direction,
                        protocol,
                        ports,
                        from,
                        to,
                        log,
                    };
                    rule.check()?;
                    if everywhere
                        .is_some_and(|one| from.or(to).is_some_and(|other| one.is_ipv4() != other.is_ipv4()))
                    {
                        let problem = "is not of the family of its addresses";
                        return Err(Problem::value("protocol", &self.protocol, problem));
                    }
                    all.push(rule);
                }
            }
        }
        Ok(all)
    }
}

fn is_logged(text: &str) -> Result<bool, Problem> {
    match text {
        "" | "enabled" => Ok(false),
        "logged" => Ok(true),
        _ => Err(Problem::value(
            "state",
            text,
            "is not supported: enabled and logged are",
        )),
    }
}

/// A protocol, and for one of a family of addresses all of its addresses.
fn protocol(text: &str) -> Result<(Protocol, Option<IpNetwork>), Problem> {
    match text {
        "" => Ok((Protocol::Any, None)),
        "tcp" => Ok((Protocol::Tcp, None)),
        "udp" => Ok((Protocol::Udp, None)),
        "icmp4" => Ok((Protocol::Icmp, Some(ALL_V4))),
        "icmp6" => Ok((Protocol::Icmp, Some(ALL_V6))),
        _ => Err(Problem::value(
            "protocol",
            text,
            "is none of: tcp udp icmp4 icmp6",
        )),
    }
}

/// The networks of a list, or none that says nothing.
fn networks(field: &str, text: &str) -> Result<Vec<Option<IpNetwork>>, Problem> {
    if text.is_empty() {
        return Ok(vec![None]);
    }
    let one = |part: &str| Ok(Some(filter::network(field, part.trim())?));
    text.split(',').map(one).collect()
}

/// The ranges of ports of a list, or none that says nothing.
fn ports(text: &str) -> Result<Vec<Option<Ports>>, Problem> {
    if text.is_empty() {
        return Ok(vec![None]);
    }
    let one = |part: &str| {
        let ports = part.trim().parse();
        ports.map(Some).map_err(|_| {
            Problem::value(
                "destination_port",
                text,
                "is not a list of ports such as 80,90-99",
            )
        })
    };
    text.split(',').map(one).collect()
}

/// A rule of a firewall as an ACL has it. One about ICMP of both families is two.
pub(super) fn shown(rule: &FilterRule) -> Vec<Value> {
    let protocols: &[&str] = match (rule.protocol, rule.from.or(rule.to)) {
        (Protocol::Any, _) => &[""],
        (Protocol::Tcp, _) => &["tcp"],
        (Protocol::Udp, _) => &["udp"],
        (Protocol::Icmp, None) => &["icmp4", "icmp6"],
        (Protocol::Icmp, Some(network)) if network.is_ipv4() => &["icmp4"],
        (Protocol::Icmp, Some(_)) => &["icmp6"],
    };
    let is_said = |network: &IpNetwork| rule.protocol != Protocol::Icmp || network.prefix() > 0;
    let words = |network: Option<IpNetwork>| network.filter(is_said).map_or_else(String::new, written);
    let one = |protocol: &&str| {
        json!({
            "action": if rule.action == Action::Allow { "allow" } else { "drop" },
            "state": if rule.log { "logged" } else { "enabled" },
            "source": words(rule.from), "destination": words(rule.to), "protocol": protocol,
            "destination_port": rule.ports.map(|ports| ports.to_string()).unwrap_or_default(),
            "source_port": "", "icmp_type": "", "icmp_code": "", "description": "",
        })
    };
    protocols.iter().map(one).collect()
}

/// As clients write it: a single address has no length.
fn written(network: IpNetwork) -> String {
    let single = if network.is_ipv4() { 32 } else { 128 };
    match network.prefix() == single {
        true => network.ip().to_string(),
        false => network.to_string(),
    }
}

/// Puts what drops before what allows, and leaves out what comes twice.
pub(super) fn order(rules: &mut Vec<FilterRule>) {
    rules.sort_by_key(|rule| rule.action == Action::Allow);
    let mut seen = Vec::new();
    rules.retain(|rule| {
        let new = !seen.contains(rule);
        seen.push(rule.clone());
        new
    });
}

/// Whether no rule that drops has one that allows before it: an ACL says the same as these rules.
pub(super) fn is_ordered(rules: &[FilterRule]) -> bool {
    let is_so = |direction| {
        let of = rules.iter().filter(|rule| rule.direction == direction);
        of.map(|rule| rule.action == Action::Allow).is_sorted()
    };
    is_so(Direction::In) && is_so(Direction::Out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(fields: Value) -> AclRule {
        serde_json::from_value(fields).unwrap()
    }

    fn incoming(fields: Value) -> Result<Vec<FilterRule>, Problem> {
        rule(fields).rules(Direction::In)
    }

    #[test]
    fn lists_are_several_rules() {
        let rules = incoming(json!({
            "action": "allow", "state": "logged", "protocol": "tcp", "destination_port": "80,90-91",
            "source": "10.0.0.0/8,192.0.2.1",
        }))
        .unwrap();
        assert_eq!(rules.len(), 4);
        assert!(
            rules
                .iter()
                .all(|rule| rule.log && rule.action == Action::Allow && rule.to.is_none())
        );
        assert_eq!(shown(&rules[3])[0]["source"], "192.0.2.1");
        assert_eq!(shown(&rules[3])[0]["destination_port"], "90-91");
    }

    #[test]
    fn icmp_is_of_a_family() {
        let rules = incoming(json!({ "action": "drop", "protocol": "icmp6" })).unwrap();
        assert_eq!(rules[0].from, Some(ALL_V6));
        assert_eq!(shown(&rules[0])[0]["source"], "");
        assert_eq!(shown(&rules[0])[0]["protocol"], "icmp6");
        assert!(incoming(json!({ "action": "drop", "protocol": "icmp6", "source": "10.0.0.0/8" })).is_err());
        let both = FilterRule {
            from: None,
            ..rules[0].clone()
        };
        assert_eq!(shown(&both).len(), 2);
    }

    #[test]
    fn what_says_nothing_else_comes_back_as_it_was() {
        for direction in [Direction::In, Direction::Out] {
            let given = json!({ "action": "allow", "protocol": "udp", "destination": "2001:db8::/32", "destination_port": "53" });
            let rules = rule(given).rules(direction).unwrap();
            let again = rule(shown(&rules[0]).remove(0)).rules(direction).unwrap();
            assert_eq!(rules, again);
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (fields, named) in [
            (json!({ "action": "reject" }), "reject"),
            (json!({ "action": "allow", "state": "disabled" }), "disabled"),
            (json!({ "action": "allow", "source_port": "1" }), "source_port"),
            (json!({ "action": "allow", "protocol": "sctp" }), "sctp"),
            (json!({ "action": "allow", "source": "@internal" }), "@internal"),
            (json!({ "action": "allow", "source": "10.0.0.1/8" }), "10.0.0.0/8"),
            (json!({ "action": "allow", "destination_port": "80" }), "80"),
            (
                json!({ "action": "allow", "protocol": "tcp", "destination_port": "x" }),
                "destination_port",
            ),
        ] {
            let text = incoming(fields).unwrap_err().text;
            assert!(text.contains(named), "{text}");
        }
    }

    #[test]
    fn what_drops_comes_first() {
        let one = |action: &str| incoming(json!({ "action": action })).unwrap().remove(0);
        let mut rules = vec![one("allow"), one("drop"), one("allow")];
        assert!(!is_ordered(&rules));
        order(&mut rules);
        assert_eq!(rules, [one("drop"), one("allow")]);
        assert!(is_ordered(&rules));
        let outgoing = FilterRule {
            direction: Direction::Out,
            ..one("drop")
        };
        assert!(is_ordered(&[one("allow"), outgoing]), "directions do not meet");
    }
}
