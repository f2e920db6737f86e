//! The firewall's sets: one element per tenant, one per pair in each order.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetDescription, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::netlink::{Channel, Entry, is_gone};
use super::rule::{pair_of, tenant_key};
use super::{Network, Port};
use crate::error::{During, Result};

/// Elements per message: attributes count their length in 16 bits, and a longer list would overflow silently (CVE-2021-43784).
const ELEMENTS: usize = 500;
/// A named set: its name, the data type nft(8) shows (six bits a part) and the key's length in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    /// Its name.
    pub(super) name: &'static str,
    kind: u32,
    length: u32,
    /// Whether packets enter elements, and after how many seconds without one they go; 0 is never.
    by_packets: Option<u64>,
}

const IPV4_TYPE: u32 = 7;
const ETHER_TYPE: u32 = 9;
/// Who is who: hardware address and address of every VPS that is attached.
pub(super) const TENANTS: Set = Set {
    name: "tenants",
    kind: ETHER_TYPE << 6 | IPV4_TYPE,
    length: 12,
    by_packets: None,
};
/// The addresses of the same VPSs.
pub(super) const ADDRESSES: Set = Set {
    name: "addresses",
    kind: IPV4_TYPE,
    length: 4,
    by_packets: None,
};
/// Who may talk to whom, each pair in both orders.
pub(super) const PAIRS: Set = Set {
    name: "pairs",
    kind: IPV4_TYPE << 6 | IPV4_TYPE,
    length: 8,
    by_packets: None,
};
/// How many connections each VPS has; only sources that are in the set of tenants come to be in it.
pub(super) const CONNECTIONS: Set = Set {
    name: "connections",
    kind: IPV4_TYPE,
    length: 4,
    by_packets: Some(0),
};
/// On whose behalf the host has lately sent to which neighbour of its own.
pub(super) const HOPS: Set = Set {
    name: "hops",
    kind: IPV4_TYPE << 6 | IPV4_TYPE,
    length: 8,
    by_packets: Some(60),
};
/// How fast each VPS makes the host look for neighbours.
pub(super) const SEEKERS: Set = Set {
    name: "seekers",
    kind: IPV4_TYPE,
    length: 4,
    by_packets: Some(0),
};
/// As many elements as packets may enter; the sources of all are tenants.
const BY_PACKETS: u32 = 65_535;

/// The message that makes a set; one that is there already keeps its elements.
pub(super) fn new_set(network: &Network, set: Set, id: u32) -> Entry {
    let mut attributes = vec![
        SetAttribute::Table(network.table.clone()),
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

    /// Adds the tenants of these ports; those that are there already are left.
    pub(super) fn admit(self, ports: &[&Port]) -> Self {
        let tenants: Vec<_> = ports.iter().map(|p| tenant_key(p.mac, p.address)).collect();
        let addresses: Vec<_> = ports.iter().map(|p| p.address.octets().to_vec()).collect();
        self.add(TENANTS, &tenants).add(ADDRESSES, &addresses)
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
pub(super) fn pairs_with(
    channel: &mut Channel,
    network: &Network,
    address: Ipv4Addr,
) -> Result<Vec<Vec<u8>>> {
    let query = SetElementMessage {
        attributes: vec![
            SetElementList::Table(network.table.clone()),
            SetElementList::Set(PAIRS.name.into()),
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
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), inner)
}
