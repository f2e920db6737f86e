//! Which networks a VPS is on: what was asked for, and what it was given.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config::check_address;
use super::name::Name;
use crate::error::{Error, Result};
use crate::net::Mac;

/// The network that a VPS is on unless told otherwise.
pub const DEFAULT_NETWORK: &str = "condo0";
/// How many interfaces a VPS may have: their names on the host have one letter to tell them apart.
pub const INTERFACES: usize = 8;

/// A network that a VPS shall be on: `NAME[,ip=ADDRESS][,ip6=ADDRESS][,mac=ADDRESS]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The network.
    pub network: Name,
    /// Its address there, if not one chosen by condo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Its IPv6 address there, if not one chosen by condo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// Its hardware address there, if not one chosen by condo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Attachment {
    /// To this network, with addresses chosen by condo.
    pub fn to(network: Name) -> Self {
        Self {
            network,
            ip: None,
            ip6: None,
            mac: None,
        }
    }
}

impl FromStr for Attachment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let network = network_name("--network", parts.next().unwrap_or_default())?;
        let mut attachment = Self::to(network);
        for part in parts {
            let refuse = |problem: &str| Error::invalid("--network", text, problem);
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| refuse("is not of the form NAME[,ip=ADDRESS][,ip6=ADDRESS][,mac=ADDRESS]"))?;
            match key {
                "ip" => {
                    let ip = value
                        .parse()
                        .map_err(|_| refuse("names no IPv4 address by `ip=`"))?;
                    attachment.ip = Some(ip);
                }
                "ip6" => {
                    let ip = value
                        .parse()
                        .map_err(|_| refuse("names no IPv6 address by `ip6=`"))?;
                    attachment.ip6 = Some(ip);
                }
                "mac" => attachment.mac = Some(value.parse()?),
                _ => return Err(refuse("has a part that is none of `ip=`, `ip6=` and `mac=`")),
            }
        }
        Ok(attachment)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.network)?;
        self.ip.map_or(Ok(()), |ip| write!(f, ",ip={ip}"))?;
        self.ip6.map_or(Ok(()), |ip| write!(f, ",ip6={ip}"))?;
        self.mac.map_or(Ok(()), |mac| write!(f, ",mac={mac}"))
    }
}

/// A network's name, which follows the rules for a VPS's.
pub fn network_name(option: &str, text: &str) -> Result<Name> {
    let problem = "is no name of a network: 1 to 63 of `a` to `z`, `0` to `9` and `-`, a letter first";
    text.parse().map_err(|_| Error::invalid(option, text, problem))
}

/// Refuses addresses that no machine has, and more interfaces than there can be.
pub(super) fn check(attachments: &[Attachment]) -> Result<()> {
    if attachments.len() > INTERFACES {
        let problem = format!("are too many: a VPS has at most {INTERFACES} interfaces");
        return Err(Error::invalid("--network", attachments.len(), problem));
    }
    for (n, attachment) in attachments.iter().enumerate() {
        if attachments[..n]
            .iter()
            .any(|other| other.network == attachment.network)
        {
            return Err(Error::invalid("--network", &attachment.network, "is named twice"));
        }
        attachment.ip.map_or(Ok(()), check_address)?;
        if let Some(ip) = attachment
            .ip6
            .filter(|ip| ip.is_multicast() || ip.is_loopback() || ip.is_unspecified())
        {
            return Err(Error::invalid(
                "--network",
                ip,
                "is not the address of one machine",
            ));
        }
    }
    Ok(())
}

/// An interface that a VPS has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0` has 0.
    pub number: u8,
    /// The network it is on.
    pub network: Name,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, if it was asked for; otherwise it follows from the network and the hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Its hardware address, if it does not follow from the VPS's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Interface {
    /// What it is called inside.
    pub fn name(&self) -> String {
        format!("eth{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_written_as_it_is_read() {
        for text in [
            "condo0",
            "lan,ip=10.1.2.3",
            "lan,ip=10.1.2.3,ip6=fd00::5,mac=02:00:00:00:00:01",
        ] {
            assert_eq!(text.parse::<Attachment>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "Lan",
            "lan,",
            "lan,ip",
            "lan,ip=fd00::1",
            "lan,ip6=10.0.0.1",
            "lan,mac=1",
            "lan,x=1",
            ",ip=10.0.0.1",
        ] {
            let text = bad.parse::<Attachment>().unwrap_err().to_string();
            assert!(text.contains("--network") || text.starts_with("mac"), "{text}");
        }
    }

    #[test]
    fn addresses_of_nobody_are_refused() {
        for bad in [
            "lan,ip=127.0.0.1",
            "lan,ip6=::1",
            "lan,ip6=ff02::1",
            "lan,ip=0.0.0.0",
        ] {
            assert!(check(&[bad.parse().unwrap()]).is_err(), "{bad}");
        }
        let twice = ["lan".parse().unwrap(), "lan,ip=10.0.0.7".parse().unwrap()];
        assert!(check(&twice).is_err());
        let many = vec![Attachment::to("lan".parse().unwrap()); INTERFACES + 1];
        assert!(check(&many).is_err());
    }
}
