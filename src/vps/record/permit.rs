//! What a VPS is refused unless its operator permits it: each opens more of the host's kernel to the tenant.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seccomp::Concessions;

/// One thing that is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permit {
    /// `/dev/fuse`: file systems made by programs.
    Fuse,
    /// Buffers of netlink, raw and packet sockets as large as the host lets them be, which count towards no memory limit.
    LargeBuffers,
    /// Tables of the network of any length: neighbours, next hops, classes of traffic, which count towards no memory limit.
    LargeTables,
    /// Rings on packet sockets, which count towards no memory limit.
    PacketRings,
    /// `socketcall(2)` of 32-bit programs, which asks for sockets of any family behind the filter's back.
    Socketcall,
    /// `/dev/net/tun`: network interfaces made by programs.
    Tun,
}

impl Permit {
    /// All of them, as they are listed.
    pub const ALL: [Self; 6] = [
        Self::Fuse,
        Self::LargeBuffers,
        Self::LargeTables,
        Self::PacketRings,
        Self::Socketcall,
        Self::Tun,
    ];

    /// The word it is given and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::LargeBuffers => "large-buffers",
            Self::LargeTables => "large-tables",
            Self::PacketRings => "packet-rings",
            Self::Socketcall => "socketcall",
            Self::Tun => "tun",
        }
    }

    /// What it is for, and what it costs.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Fuse => "/dev/fuse, for file systems such as sshfs and fuse-overlayfs",
            Self::LargeBuffers => {
                "buffers of netlink, raw and packet sockets as large as the host has them, for nft with thousands of rules at \
                 once; they count towards no memory limit"
            }
            Self::LargeTables => {
                "neighbours, next hops, queues and classes of traffic, IPsec and WireGuard without bound, for routers; they \
                 count towards no memory limit"
            }
            Self::PacketRings => "buffers on packet sockets, for tcpdump; they count towards no memory limit",
            Self::Socketcall => {
                "sockets for old 32-bit programs (Debian's i386, Go's 386); of any family, rings included"
            }
            Self::Tun => "/dev/net/tun, for VPNs such as OpenVPN",
        }
    }
}

impl FromStr for Permit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|permit| permit.as_str() == text);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid("--permit", text, format!("is none of {all}"))
        })
    }
}

/// What a VPS with these permits has, and one with `nesting` besides: file systems and interfaces made by programs are what
/// unprivileged containers are made of.
pub(in crate::vps) fn effective(permits: &BTreeSet<Permit>, nesting: bool) -> BTreeSet<Permit> {
    let implied = [Permit::Fuse, Permit::Tun].into_iter().filter(|_| nesting);
    permits.iter().copied().chain(implied).collect()
}

/// What the system call filter of a VPS with these permits lets pass.
pub(in crate::vps) fn concessions(permits: &BTreeSet<Permit>) -> Concessions {
    Concessions {
        socketcall: permits.contains(&Permit::Socketcall),
        packet_rings: permits.contains(&Permit::PacketRings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_one_of_a_list() {
        for permit in Permit::ALL {
            assert_eq!(permit.as_str().parse::<Permit>().unwrap(), permit);
            let stored = serde_json::to_string(&permit).unwrap();
            assert_eq!(stored, format!("\"{}\"", permit.as_str()));
        }
        for bad in ["", "Tun", "kvm", "tun "] {
            assert!(bad.parse::<Permit>().is_err(), "{bad:?}");
        }
    }
}
