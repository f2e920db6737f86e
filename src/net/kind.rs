//! What a network is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the VPSs of a network get out, and who gets in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Private addresses; the outside is reached under the host's address and reaches nobody.
    #[default]
    Nat,
    /// The operator's addresses: the outside is reached, and reaches them, as they are.
    Routed,
    /// Ports of a bridge that the operator has, with the network behind it.
    Bridged,
    /// No way out: VPSs that may talk to each other, and nobody else.
    Isolated,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nat, Self::Routed, Self::Bridged, Self::Isolated];

    /// The word it is stored and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Routed => "routed",
            Self::Bridged => "bridged",
            Self::Isolated => "isolated",
        }
    }

    /// Whether its VPSs reach what is beyond this host.
    pub fn has_a_way_out(self) -> bool {
        self != Self::Isolated
    }

    /// Whether the link is the operator's, and this host only one of those on it.
    pub fn is_bridged(self) -> bool {
        self == Self::Bridged
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let problem = "is none of `nat`, `routed`, `bridged` and `isolated`";
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Error::invalid("--kind", text, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_shown() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        }
        assert!("bridge".parse::<Kind>().is_err());
    }
}
