//! Elements of the firewall's sets: made, looked up and removed.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetDescription, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::Network;
use super::netlink::{self, Channel, Entry, is_gone};
use super::set::{self, Set, family_of, pair_of};
use crate::error::{During, Result};

/// Elements per message: attributes count their length in 16 bits, and a longer list would overflow silently (CVE-2021-43784).
const ELEMENTS: usize = 500;
/// As many elements as packets may enter; the sources of all are tenants.
const BY_PACKETS: u32 = 65_535;

/// The message that makes a set; one that is there already keeps its elements.
pub(super) fn new_set(table: &str, set: Set, id: u32) -> Entry {
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.name.into()),
        SetAttribute::KeyType(set.kind),
        SetAttribute::KeyLen(set.length),
        SetAttribute::Id(id),
    ];
    if let Some(seconds) = set.by_packets {
        let mut flags = SetFlags::Eval;
        if seconds > 0 {
            flags |= SetFlags::Timeout;
            attributes.push(SetAttribute::Timeout(seconds * 1000));
        }
        attributes.push(SetAttribute::Flags(flags));
        attributes.push(SetAttribute::Description(vec![SetDescription::Size(BY_PACKETS)]));
    }
    (
        message(NfTablesMessage::NewSet(SetMessage { attributes })),
        NLM_F_CREATE,
    )
}

/// Changes of sets that the kernel makes together or not at all.
#[derive(Debug)]
pub(super) struct Change<'a> {
    network: &'a Network,
    batch: Vec<Entry>,
}

impl<'a> Change<'a> {
    /// No change yet.
    pub(super) fn of(network: &'a Network) -> Self {
        Self {
            network,
            batch: Vec::new(),
        }
    }

    /// Adds elements; those that are there already are left.
    pub(super) fn add(mut self, set: Set, keys: &[Vec<u8>]) -> Self {
        self.put(set, keys, NLM_F_CREATE);
        self
    }

    /// Adds elements of several sets; those that are there already are left.
    pub(super) fn add_each(self, elements: &[(Set, Vec<u8>)]) -> Self {
        by_set(elements).fold(self, |change, (set, keys)| change.add(set, &keys))
    }

    /// Removes elements of several sets.
    pub(super) fn remove_each(self, elements: &[(Set, Vec<u8>)]) -> Self {
        by_set(elements).fold(self, |change, (set, keys)| change.remove(set, &keys))
    }

    /// Adds an element that must not be there yet.
    pub(super) fn add_new(mut self, set: Set, key: Vec<u8>) -> Self {
        self.put(set, &[key], NLM_F_CREATE | NLM_F_EXCL);
        self
    }

    /// Removes elements. Each is added first: removing one that is not there would fail and take the batch with it.
    pub(super) fn remove(mut self, set: Set, keys: &[Vec<u8>]) -> Self {
        self.put(set, keys, NLM_F_CREATE);
        for some in keys.chunks(ELEMENTS) {
            let elements = elements(self.network, set, some);
            self.batch
                .push((message(NfTablesMessage::DeleteSetElement(elements)), 0));
        }
        self
    }

    fn put(&mut self, set: Set, keys: &[Vec<u8>], flags: u16) {
        for some in keys.chunks(ELEMENTS) {
            let elements = elements(self.network, set, some);
            self.batch
                .push((message(NfTablesMessage::NewSetElement(elements)), flags));
        }
    }

    /// Makes the changes.
    pub(super) fn apply(self, channel: &mut Channel) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        channel
            .batch(self.batch)
            .during(|| format!("change the firewall table `{}`", self.network.table))
    }
}

/// The keys of each set.
fn by_set(elements: &[(Set, Vec<u8>)]) -> impl Iterator<Item = (Set, Vec<Vec<u8>>)> {
    let keys_of = |set: Set| {
        let of_it = elements.iter().filter(move |(other, _)| other.name == set.name);
        of_it.map(|(_, key)| key.clone()).collect::<Vec<_>>()
    };
    let all = set::ALL.iter().map(move |set| (*set, keys_of(*set)));
    all.filter(|(_, keys)| !keys.is_empty())
}

/// Whether the set has this element.
pub(super) fn has(channel: &mut Channel, network: &Network, set: Set, key: Vec<u8>) -> Result<bool> {
    let query = NfTablesMessage::GetSetElement(elements(network, set, &[key]));
    match channel.request(message(query), 0) {
        Ok(_) => Ok(true),
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The pairs that name this address. Reads all pairs, so it is for tearing down and not for starting.
pub(super) fn pairs_with(channel: &mut Channel, network: &Network, address: IpAddr) -> Result<Vec<Vec<u8>>> {
    let pairs = family_of(address).pairs;
    let query = SetElementMessage {
        attributes: vec![
            SetElementList::Table(network.table.clone()),
            SetElementList::Set(pairs.name.into()),
        ],
    };
    let answers = channel
        .request(message(NfTablesMessage::GetSetElement(query)), NLM_F_DUMP)
        .during(|| format!("list the pairs of the firewall table `{}`", network.table))?;
    Ok(answers
        .into_iter()
        .flat_map(keys_of)
        .filter(|key| pair_of(key).is_some_and(|(from, to)| from == address || to == address))
        .collect())
}

fn keys_of(answer: NetfilterMessage) -> Vec<Vec<u8>> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewSetElement(message)) = answer.inner else {
        return Vec::new();
    };
    let lists = message
        .attributes
        .into_iter()
        .filter_map(|attribute| match attribute {
            SetElementList::Elements(elements) => Some(elements),
            _ => None,
        });
    let attributes = lists.flatten().filter_map(|element| match element {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    attributes
        .flatten()
        .filter_map(|attribute| match attribute {
            SetElementAttribute::Key(DataAttribute::Value(key)) => Some(key),
            _ => None,
        })
        .collect()
}

fn elements(network: &Network, set: Set, keys: &[Vec<u8>]) -> SetElementMessage {
    let element = |key: &Vec<u8>| {
        ListAttribute::Element(vec![SetElementAttribute::Key(DataAttribute::Value(key.clone()))])
    };
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(network.table.clone()),
            SetElementList::Set(set.name.into()),
            SetElementList::Elements(keys.iter().map(element).collect()),
        ],
    }
}

/// A message about the firewall proper.
fn message(inner: NfTablesMessage) -> NetfilterMessage {
    netlink::about(NetfilterProtoFamily::Inet, inner)
}
