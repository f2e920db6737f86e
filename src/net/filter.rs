//! The firewall of one VPS: what its owner lets in and out.
//!
//! The first rule that fits a connection's packets decides, and the policy where none does. Answers always pass.

use std::fmt;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many rules a VPS may have: the kernel goes through them one by one.
pub const MOST_RULES: usize = 256;

/// Seen from the VPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Connections that others begin.
    In,
    /// Connections that the VPS begins.
    Out,
}

/// What becomes of what fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, and ICMPv6 but for what finds neighbours and routers.
    Icmp,
    /// All there is.
    Any,
}

macro_rules! words {
    ($type:ident, $field:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// The word it is written as.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Error::invalid($field, text, concat!("is none of:" $(, " ", $word)+))),
                }
            }
        }
    };
}

words!(Direction, "DIRECTION", In = "in", Out = "out");
words!(Action, "POLICY", Allow = "allow", Deny = "deny");
words!(
    Protocol,
    "PROTOCOL",
    Tcp = "tcp",
    Udp = "udp",
    Icmp = "icmp",
    Any = "any"
);

/// A port or a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, which may be the same.
    pub last: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => f.pad(&self.first.to_string()),
            false => f.pad(&format!("{}-{}", self.first, self.last)),
        }
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl TryFrom<String> for Ports {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Ports {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port > 0)
        };
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(Error::invalid(
                "PORT",
                text,
                "is not a port (1 to 65535) or a range of ports such as 8000-8010",
            )),
        }
    }
}

/// One rule. What it does not name does not matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRule {
    /// What becomes of what fits.
    pub action: Action,
    /// Which way the connection goes.
    pub direction: Direction,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its destination's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNetwork>,
    /// Where it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpNetwork>,
    /// Whether what fits is written to the kernel's log, at a bounded rate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log: bool,
}

impl FilterRule {
    /// Refuses what no packet could fit.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the part, its value and what is wrong.
    pub fn check(&self) -> Result<()> {
        let has_ports = matches!(self.protocol, Protocol::Tcp | Protocol::Udp);
        if let Some(ports) = self.ports
            && !has_ports
        {
            return Err(Error::invalid(
                "PORT",
                ports,
                format!("{} has no ports; tcp and udp have", self.protocol),
            ));
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) if from.is_ipv4() != to.is_ipv4() => Err(Error::invalid(
                "--to",
                to,
                format!("is not of the same address family as --from {from}: no packet has both"),
            )),
            _ => Ok(()),
        }
    }
}

/// All rules of a VPS, in their order, and what becomes of what fits none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The policy for what comes in.
    #[serde(rename = "in")]
    pub incoming: Action,
    /// The policy for what goes out.
    #[serde(rename = "out")]
    pub outgoing: Action,
    /// The rules.
    pub rules: Vec<FilterRule>,
}

impl Filter {
    /// Whether all passes.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// The policy of a direction.
    pub fn policy(&self, direction: Direction) -> Action {
        match direction {
            Direction::In => self.incoming,
            Direction::Out => self.outgoing,
        }
    }

    /// Sets the policy of a direction.
    pub fn set_policy(&mut self, direction: Direction, action: Action) {
        match direction {
            Direction::In => self.incoming = action,
            Direction::Out => self.outgoing = action,
        }
    }

    /// The rules of a direction, in their order.
    pub fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &FilterRule> {
        self.rules.iter().filter(move |rule| rule.direction == direction)
    }

    /// Refuses rules that no packet could fit, and too many.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn check(&self) -> Result<()> {
        if self.rules.len() > MOST_RULES {
            let problem =
                format!("are more than the {MOST_RULES} that a VPS may have; use ranges and networks");
            return Err(Error::invalid("firewall rules", self.rules.len(), problem));
        }
        self.rules.iter().try_for_each(FilterRule::check)
    }
}

/// An address, or a network of which only the part that its length names may be set. `field` is for the error.
///
/// # Errors
/// [`Error::Invalid`] for anything else.
pub fn network(field: &str, text: &str) -> Result<IpNetwork> {
    let refuse = |problem: &str| Error::invalid(field, text, problem);
    let network: IpNetwork = text
        .parse()
        .map_err(|_| refuse("is not an address or a network such as 198.51.100.0/24 or 2001:db8::/32"))?;
    if network.ip() == network.network() {
        return Ok(network);
    }
    let right = format!(
        "has bits behind its length; the network is {}/{}",
        network.network(),
        network.prefix()
    );
    Err(refuse(&right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> FilterRule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_filter_survives_json() {
        let mut filter = Filter::default();
        assert!(filter.is_open());
        filter.set_policy(Direction::In, Action::Deny);
        filter.rules.push(rule(
            r#"{"action":"allow","direction":"in","protocol":"tcp","ports":"80-81","from":"10.0.0.0/8","log":true}"#,
        ));
        assert!(!filter.is_open());
        let text = serde_json::to_string(&filter).unwrap();
        assert!(
            text.starts_with(r#"{"in":"deny","out":"allow","rules":[{"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
        assert_eq!(filter.rules_of(Direction::In).count(), 1);
        assert_eq!(filter.rules_of(Direction::Out).count(), 0);
    }

    #[test]
    fn rules_that_nothing_fits_are_refused() {
        let e = rule(r#"{"action":"deny","direction":"in","protocol":"icmp","ports":"1"}"#)
            .check()
            .unwrap_err();
        assert_eq!(e.to_string(), "PORT: `1` icmp has no ports; tcp and udp have");
        let e =
            rule(r#"{"action":"deny","direction":"in","protocol":"any","from":"10.0.0.0/8","to":"::1/128"}"#)
                .check();
        assert!(e.unwrap_err().to_string().contains("address family"));
        let one = rule(r#"{"action":"deny","direction":"in","protocol":"any"}"#);
        let filter = Filter {
            rules: vec![one; MOST_RULES + 1],
            ..Filter::default()
        };
        assert!(
            filter
                .check()
                .unwrap_err()
                .to_string()
                .contains("more than the 256")
        );
    }

    #[test]
    fn words_are_exact() {
        assert_eq!("in".parse::<Direction>().unwrap(), Direction::In);
        assert!(
            "IN".parse::<Direction>().is_err()
                && "reject".parse::<Action>().is_err()
                && "sctp".parse::<Protocol>().is_err()
        );
        assert_eq!("8000-8010".parse::<Ports>().unwrap().to_string(), "8000-8010");
        for bad in ["", "0", "9-8", "1-", "65536", "-1", "80,81"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }
}
