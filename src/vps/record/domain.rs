//! A domain of the operator's, below which the VPSs of a network have names besides `NAME.condo`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The domain that all VPSs have a name below.
pub(in crate::vps) const OWN: &str = "condo";
/// So that a VPS's name before it is a name still (RFC 1035, section 2.3.4).
const LONGEST: usize = 180;
/// Longest part between two dots.
const LONGEST_PART: usize = 63;

/// `vps.example.net`: letters, digits and hyphens between dots (RFC 1123, section 2.1), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl FromStr for Domain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let is_part = |part: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            let ends = !part.starts_with('-') && !part.ends_with('-');
            !part.is_empty() && part.len() <= LONGEST_PART && ends && part.bytes().all(inner)
        };
        if name.len() > LONGEST || !name.split('.').all(is_part) {
            return Err(Error::invalid(
                "--domain",
                text,
                "is not a domain such as `vps.example.net`",
            ));
        }
        if name == OWN {
            return Err(Error::invalid(
                "--domain",
                text,
                "is where all VPSs have a name anyway",
            ));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Domain {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_domains_are() {
        for (text, shown) in [
            ("vps.example.net", "vps.example.net"),
            ("Example.NET.", "example.net"),
            ("lan", "lan"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().to_string(), shown);
        }
        let long = format!("{}.net", "a".repeat(64));
        for bad in [
            "",
            ".",
            "a..b",
            "-a.net",
            "a-.net",
            "a b",
            "a/b",
            "a\n1.2.3.4 b",
            "condo",
            long.as_str(),
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
    }
}
