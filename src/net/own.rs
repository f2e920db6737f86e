//! What the firewall's sets have of a network itself, whoever is on it.

use super::elements::{self, Change};
use super::netlink::Channel;
use super::set::{self, LINKS, OPEN, OUTWARD, RESOLVERS, Set};
use super::{Kind, Network};
use crate::error::Result;

impl Network {
    /// What the firewall's sets have of the network itself.
    pub(super) fn own_elements(&self) -> Vec<(Set, Vec<u8>)> {
        if self.kind.is_bridged() {
            // The operator's: what is on it is not for condo to say.
            return Vec::new();
        }
        let sets = [
            Some(LINKS),
            self.kind.has_a_way_out().then_some(OUTWARD),
            (self.kind == Kind::Routed).then_some(OPEN),
        ];
        let key = set::name_key(&self.bridge);
        let mut elements: Vec<_> = sets.into_iter().flatten().map(|set| (set, key.clone())).collect();
        if self.dns {
            elements.push((RESOLVERS, set::address_key(self.gateway().into())));
        }
        elements
    }

    /// Takes the place of what the network was before, as far as the firewall has it.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn supersede(&self, before: &Self) -> Result<()> {
        let (old, new) = (before.own_elements(), self.own_elements());
        let mut channel = Channel::netfilter()?;
        let [(_, link), ..] = new.as_slice() else {
            return Ok(());
        };
        // What is not set up is set up as it is then.
        if !elements::has(&mut channel, self, LINKS, link.clone())? {
            return Ok(());
        }
        let gone: Vec<_> = old.into_iter().filter(|element| !new.contains(element)).collect();
        Change::of(self)
            .remove_each(&gone)
            .add_each(&new)
            .apply(&mut channel)
    }
}
