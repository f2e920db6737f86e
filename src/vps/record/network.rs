//! A network as it is stored: what [`net`](crate::net) makes of it, and which of its addresses are not handed out.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use super::attachment::DEFAULT_NETWORK;
use super::domain::{Domain, OWN};
use super::name::Name;
use crate::error::{Error, Result};
use crate::net::Network;

/// A network of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its name.
    #[serde(default = "default_name")]
    pub name: Name,
    /// A small number of its own, for its link's name; the default network has 0.
    #[serde(default)]
    pub number: u32,
    /// What is made of it.
    #[serde(flatten)]
    pub network: Network,
    /// Addresses that are handed out only to who asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Range>,
    /// Where its VPSs have a second name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
}

#[expect(clippy::expect_used, reason = "a constant that a test has seen to be a name")]
fn default_name() -> Name {
    DEFAULT_NETWORK
        .parse()
        .expect("the default network's name is a name")
}

impl NetworkRecord {
    /// The network that there always is.
    pub fn default_name() -> Name {
        default_name()
    }

    /// What a VPS is called on it, as a line of hosts(5) has it.
    pub(in crate::vps) fn names_of(&self, vps: &Name) -> String {
        match &self.domain {
            Some(domain) => format!("{vps}.{OWN} {vps}.{domain}"),
            None => format!("{vps}.{OWN}"),
        }
    }

    /// Whether this is the network that VPSs are on unless told otherwise.
    pub fn is_default(&self) -> bool {
        self.name.as_str() == DEFAULT_NETWORK
    }
}

/// Addresses from one to another, both included: `10.0.0.5`, `10.0.0.5-10.0.0.9` or `10.0.0.8/29`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(
                "ADDRESS",
                text,
                "is neither an address, nor FIRST-LAST, nor ADDRESS/PREFIX",
            )
        };
        let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| refuse());
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (address(first)?, address(last)?)
        } else if text.contains('/') {
            let network: Ipv4Network = text.parse().map_err(|_| refuse())?;
            (network.network(), network.broadcast())
        } else {
            (address(text)?, address(text)?)
        };
        if first > last {
            return Err(Error::invalid("ADDRESS", text, "ends before it begins"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl TryFrom<String> for Range {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_back() {
        for (text, shown) in [
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.5-10.0.0.9", "10.0.0.5-10.0.0.9"),
            ("10.0.0.8/29", "10.0.0.8-10.0.0.15"),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.0.0.9-10.0.0.5", "10.0.0", "10.0.0.1/33", "a-b"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_of_an_earlier_condo_are_the_default_network() {
        let text = r#"{"bridge":"condo0","table":"condo","subnet":"10.171.0.0/16"}"#;
        let record: NetworkRecord = serde_json::from_str(text).unwrap();
        assert!(record.is_default() && record.number == 0);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<NetworkRecord>(&text).unwrap(), record);
    }
}
