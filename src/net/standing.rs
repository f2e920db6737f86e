//! Whether what condo made for a network is still there. Rules are read one by one; the kernel's count of changes to them tells in
//! one question whether those that were read before are still the same.

use std::fmt;

use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};

use super::netlink::{Channel, about, home};
use super::ruleset::{self, State};
use super::{Network, classifier, delivery, elements, fence, firewall, link};
use crate::error::{Error, Result};

impl Network {
    /// Whether bridge and tables are there, whole and as condo made them.
    ///
    /// # Errors
    /// Those of the netlink sockets.
    pub fn stands(&self) -> Result<bool> {
        Ok(self.link_stands()? && self.rules_stand()?)
    }

    /// Whether the bridge is there, with its fences. One of the operator's is not looked at.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn link_stands(&self) -> Result<bool> {
        if self.kind.is_bridged() {
            return Ok(true);
        }
        let mut channel = Channel::route()?;
        match link::find(&mut channel, &self.bridge)? {
            Some(bridge) if self.is_ours(&bridge) && bridge.up => Ok(!classifier::may_load()
                || fence::stands(&mut channel, bridge.index)?
                    && delivery::stands(&mut channel, bridge.index)?),
            _ => Ok(false),
        }
    }

    /// Whether the tables are there with all rules, and the rules that others' tables have for this network. Reads every rule:
    /// [`generation`] tells whether it is worth it.
    ///
    /// # Errors
    /// Those of the netlink sockets.
    pub fn rules_stand(&self) -> Result<bool> {
        if self.kind.is_bridged() {
            return Ok(true);
        }
        let mut channel = Channel::netfilter()?;
        for ruleset in [
            firewall::gate(&self.bridge),
            firewall::opener(&self.table, &self.bridge),
            firewall::rules(&self.table),
        ] {
            if ruleset.state(&mut channel)? != State::Current {
                return Ok(false);
            }
        }
        for (set, key) in self.own_elements() {
            if !elements::has(&mut channel, self, set, key)? {
                return Ok(false);
            }
        }
        self.passes()
    }
}

/// All rules of a network namespace as they are at one moment, and what this condo would have them be. As text it is their name, on one
/// line: whoever changes a rule, a set or an element changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    namespace: u64,
    number: u32,
}

impl Generation {
    /// The one that so many changes lead to: the kernel counts each transaction.
    #[must_use]
    pub fn after(self, changes: u32) -> Self {
        let number = self.number.wrapping_add(changes);
        Self { number, ..self }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.namespace, self.number, ruleset::VERSION)
    }
}

/// The rules of the calling thread's network namespace as they are now.
///
/// # Errors
/// Those of the netlink socket.
pub fn generation() -> Result<Generation> {
    let query = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
    let answers = Channel::netfilter()?.request(about(NetfilterProtoFamily::Unspec, query), 0)?;
    let number = answers
        .into_iter()
        .find_map(|answer| match answer.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(found)) => found
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    GenAttribute::Id(number) => Some(number),
                    _ => None,
                }),
            _ => None,
        })
        .ok_or_else(|| Error::Status("the kernel does not count changes of its firewall".into()))?;
    let namespace = home()?;
    Ok(Generation { namespace, number })
}
