//! Who may talk to whom.

use std::net::IpAddr;

use super::Network;
use super::elements::Change;
use super::netlink::{Channel, forgive_gone};
use super::set::{self, Set};
use crate::error::{Error, Result};

impl Network {
    /// Lets addresses talk to each other, each pair both ways.
    ///
    /// # Errors
    /// [`Error::Invalid`] for addresses of different families, [`Error::Io`] with `ENOENT` when the network is not set up.
    pub fn allow(&self, pairs: &[(IpAddr, IpAddr)]) -> Result<()> {
        Change::of(self)
            .add_each(&keys_of(pairs)?)
            .apply(&mut Channel::netfilter()?)
    }

    /// Takes back [`Network::allow`]; open connections stall at once.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn disallow(&self, pairs: &[(IpAddr, IpAddr)]) -> Result<()> {
        let gone = Change::of(self).remove_each(&keys_of(pairs)?);
        forgive_gone(gone.apply(&mut Channel::netfilter()?))
    }
}

/// What lets all these pairs talk.
pub(super) fn keys_of(pairs: &[(IpAddr, IpAddr)]) -> Result<Vec<(Set, Vec<u8>)>> {
    let both = pairs.iter().map(|(a, b)| pair(*a, *b));
    Ok(both.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What lets two addresses talk to each other.
fn pair(a: IpAddr, b: IpAddr) -> Result<[(Set, Vec<u8>); 2]> {
    if a.is_ipv4() != b.is_ipv4() {
        return Err(Error::invalid(
            "address",
            a,
            format!("is not of the same kind as `{b}`"),
        ));
    }
    let pairs = set::family_of(a).pairs;
    Ok([(pairs, set::pair_key(a, b)), (pairs, set::pair_key(b, a))])
}
