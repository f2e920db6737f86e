//! A port of the host that leads to one of a VPS, and how people write that down.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a published port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The word it is written as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its number in the header of IP.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Ports of the host: what of a [`Publication`] nobody else can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Door {
    /// TCP or UDP.
    pub transport: Transport,
    /// The address of the host; without one all that it has.
    pub host: Option<IpAddr>,
    /// The first port.
    pub first: u16,
    /// The last, which may be the same.
    pub last: u16,
}

impl Door {
    /// Whether there is a packet that both would have.
    pub fn overlaps(&self, other: &Self) -> bool {
        let same_host = match (self.host, other.host) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        same_host && self.transport == other.transport && self.first <= other.last && other.first <= self.last
    }
}

/// `[HOSTADDR:]HOSTPORT[-END]`, and `/udp` where it is not TCP.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self)?;
        write!(f, "/{}", self.transport.as_str())
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, door: &Door) -> fmt::Result {
    match door.host {
        Some(IpAddr::V6(host)) => write!(f, "[{host}]:")?,
        Some(IpAddr::V4(host)) => write!(f, "{host}:")?,
        None => {}
    }
    write_range(f, door.first, door.last)
}

fn write_range(f: &mut fmt::Formatter<'_>, first: u16, last: u16) -> fmt::Result {
    match first == last {
        true => write!(f, "{first}"),
        false => write!(f, "{first}-{last}"),
    }
}

/// Ports of the host that lead to as many of a VPS: `[HOSTADDR:]HOSTPORT[-END]:PORT[-END][/tcp|/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publication {
    /// The host's ports.
    pub door: Door,
    /// The first of the VPS's.
    pub to: u16,
}

impl Publication {
    /// The last of the VPS's ports.
    pub fn to_last(&self) -> u16 {
        self.to.saturating_add(self.door.last - self.door.first)
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.door)?;
        write!(f, ":")?;
        write_range(f, self.to, self.to_last())?;
        write!(f, "/{}", self.door.transport.as_str())
    }
}

impl From<Publication> for String {
    fn from(publication: Publication) -> Self {
        publication.to_string()
    }
}

impl TryFrom<String> for Publication {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Publication {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem: &str| Error::invalid("PORT", text, problem);
        let (ports, transport) = transport(text)?;
        let (place, to) = ports
            .rsplit_once(':')
            .filter(|(place, _)| !place.ends_with(':') && !is_address(place))
            .ok_or_else(|| {
                refuse(
                    "is not of the form [HOSTADDR:]HOSTPORT:PORT[/udp], such as 8080:80 or 127.0.0.1:2222:22",
                )
            })?;
        let door = door(text, place, transport)?;
        let (to, to_last) = range(text, to)?;
        let publication = Self { door, to };
        if to_last != publication.to_last()
            || u32::from(to) + u32::from(door.last - door.first) > u32::from(u16::MAX)
        {
            return Err(refuse(
                "has as many ports of the host as of the VPS: the ranges differ in length",
            ));
        }
        Ok(publication)
    }
}

impl FromStr for Door {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, transport) = transport(text)?;
        door(text, place, transport)
    }
}

fn is_address(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().is_ok()
}

fn transport(text: &str) -> Result<(&str, Transport)> {
    match text.rsplit_once('/') {
        None => Ok((text, Transport::Tcp)),
        Some((rest, "tcp")) => Ok((rest, Transport::Tcp)),
        Some((rest, "udp")) => Ok((rest, Transport::Udp)),
        Some(_) => Err(Error::invalid(
            "PORT",
            text,
            "must end in /tcp or /udp, or in neither for TCP",
        )),
    }
}

fn door(text: &str, place: &str, transport: Transport) -> Result<Door> {
    let (host, ports) = match place.rsplit_once(':') {
        None => (None, place),
        Some((host, ports)) => (Some(address(text, host)?), ports),
    };
    let (first, last) = range(text, ports)?;
    // All addresses of one family are all addresses: a port that is only half free is of no use.
    let host = host.filter(|host| !host.is_unspecified());
    Ok(Door {
        transport,
        host,
        first,
        last,
    })
}

fn address(text: &str, host: &str) -> Result<IpAddr> {
    let problem = "does not begin with an address of this host; IPv6 addresses stand in brackets: [2001:db8::1]:8080:80";
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|bare| bare.contains(':')),
        None => Some(host).filter(|bare| !bare.contains(':')),
    };
    bare.and_then(|bare| bare.parse().ok())
        .ok_or_else(|| Error::invalid("PORT", text, problem))
}

fn range(text: &str, ports: &str) -> Result<(u16, u16)> {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        (Some(_), Some(_)) => Err(Error::invalid(
            "PORT",
            text,
            "has a range that ends before it begins",
        )),
        _ => {
            let problem = format!("has `{ports}` where a port (1 to 65535) or a range (8000-8010) belongs");
            Err(Error::invalid("PORT", text, problem))
        }
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_shown_as_it_is_given() {
        for text in [
            "8080:80/tcp",
            "53:5353/udp",
            "127.0.0.1:2222:22/tcp",
            "[2001:db8::1]:80:80/tcp",
            "10000-10100:10000-10100/udp",
            "8000-8001:80-81/tcp",
        ] {
            let publication: Publication = text.parse().unwrap();
            assert_eq!(publication.to_string(), text);
            let stored = serde_json::to_string(&publication).unwrap();
            assert_eq!(serde_json::from_str::<Publication>(&stored).unwrap(), publication);
        }
        assert_eq!(
            "8080:80".parse::<Publication>().unwrap().to_string(),
            "8080:80/tcp"
        );
        assert_eq!(
            "0.0.0.0:8080:80".parse::<Publication>().unwrap().to_string(),
            "8080:80/tcp"
        );
        assert_eq!("8080/udp".parse::<Door>().unwrap().to_string(), "8080/udp");
    }

    #[test]
    fn what_is_no_publication_is_refused() {
        for bad in [
            "",
            "80",
            ":80",
            "80:",
            "8080:80/sctp",
            "0:80",
            "80:0",
            "65536:80",
            "+80:80",
            "80:80:80:80",
            "8000-7000:80-90",
            "8000-8002:80-81",
            "65535-65536:1-2",
            "1-3:65534-65536",
            "::1:80:80",
            "[::1:80:80",
            "[127.0.0.1]:80:80",
            "host:80:80",
            "8080:80/",
            "a-b:80",
            "127.0.0.1:80",
        ] {
            let e = bad.parse::<Publication>().unwrap_err().to_string();
            assert!(e.starts_with(&format!("PORT: `{bad}`")), "{bad}: {e}");
        }
    }

    #[test]
    fn doors_overlap_where_a_packet_could_go_through_both() {
        let overlap = |a: &str, b: &str| a.parse::<Door>().unwrap().overlaps(&b.parse().unwrap());
        assert!(overlap("80", "80") && overlap("80", "127.0.0.1:80") && overlap("70-90", "80"));
        assert!(!overlap("80", "80/udp") && !overlap("80", "81") && !overlap("127.0.0.1:80", "127.0.0.2:80"));
    }
}
