//! Maps of the firewall: where packets of a VPS go by, one element each, and chains that belong to one VPS.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetDescription, SetElementAttribute, SetElementList, SetElementMessage, SetFlags,
    SetMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterProtoFamily};

use super::netlink::{self, Entry};
use super::rule::Rule;

/// Elements per message: attributes count their length in 16 bits (CVE-2021-43784), and those of maps are the longest.
const ELEMENTS: usize = 200;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of an address.
    pub(super) const fn length(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// What nft(8) calls an address of it.
    pub(super) const fn kind(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }
}

/// What nft(8) calls a protocol and a port.
pub(super) const PROTOCOL: u32 = 12;
pub(super) const PORT: u32 = 13;

/// What an element leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leads {
    /// To nothing: the map is a set.
    Nowhere,
    /// To another chain.
    Chain,
    /// To a value of this kind (as nft(8) shows it) and length.
    Value(u32, u32),
}

/// A named map: what its keys are (six bits a part, as nft(8) shows them) and how long, and what they lead to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub(super) name: &'static str,
    pub(super) kind: u32,
    pub(super) length: u32,
    pub(super) leads: Leads,
    /// Where keys are ranges: the length of each part.
    pub(super) ranges: &'static [u32],
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// The last key of a range.
    pub(super) end: Option<Vec<u8>>,
    pub(super) to: To,
}

/// Where an element leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Nowhere,
    Chain(String),
    Value(Vec<u8>),
}

/// The message that makes a map; one that is there already keeps its elements.
pub(super) fn new_map(table: &str, map: &Map, id: u32) -> Entry {
    let mut flags = SetFlags::empty();
    let mut attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(map.name.into()),
        SetAttribute::KeyType(map.kind),
        SetAttribute::KeyLen(map.length),
        SetAttribute::Id(id),
    ];
    match map.leads {
        Leads::Nowhere => {}
        Leads::Chain => {
            flags |= SetFlags::Map;
            // NFT_DATA_VERDICT.
            attributes.push(SetAttribute::DataType(0xffff_ff00));
        }
        Leads::Value(kind, length) => {
            flags |= SetFlags::Map;
            attributes.extend([SetAttribute::DataType(kind), SetAttribute::DataLen(length)]);
        }
    }
    if !map.ranges.is_empty() {
        flags |= SetFlags::Interval | SetFlags::Concat;
        // NFTA_SET_FIELD_LEN in NFTA_LIST_ELEM.
        let part = |length: &u32| {
            let field = DefaultNla::new(1, length.to_be_bytes().to_vec());
            DefaultNla::new(1 | NLA_F_NESTED, bytes_of(&[field]))
        };
        let parts = map.ranges.iter().map(part).collect();
        attributes.push(SetAttribute::Description(vec![SetDescription::Concat(parts)]));
    }
    attributes.push(SetAttribute::Flags(flags));
    let message = NfTablesMessage::NewSet(SetMessage { attributes });
    (about(message), NLM_F_CREATE)
}

/// The messages that add elements; those that are there already are left.
pub(super) fn add(table: &str, map: &Map, elements: &[Element]) -> Vec<Entry> {
    let messages = elements.chunks(ELEMENTS).map(|some| {
        let message = NfTablesMessage::NewSetElement(listed(table, map, some));
        (about(message), NLM_F_CREATE)
    });
    messages.collect()
}

/// The messages that remove elements. Each is added first: removing one that is not there would fail and take the batch with it.
pub(super) fn remove(table: &str, map: &Map, elements: &[Element]) -> Vec<Entry> {
    let mut messages = add(table, map, elements);
    messages.extend(elements.chunks(ELEMENTS).map(|some| {
        let message = NfTablesMessage::DeleteSetElement(listed(table, map, some));
        (about(message), 0)
    }));
    messages
}

fn listed(table: &str, map: &Map, elements: &[Element]) -> SetElementMessage {
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.to_owned()),
            SetElementList::Set(map.name.into()),
            SetElementList::Elements(elements.iter().map(written).collect()),
        ],
    }
}

fn written(element: &Element) -> ListAttribute<SetElementAttribute> {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(
        element.key.clone(),
    ))];
    if let Some(end) = &element.end {
        // NFTA_DATA_VALUE.
        attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(1, end.clone())]));
    }
    let data = match &element.to {
        To::Nowhere => None,
        To::Value(value) => Some(DataAttribute::Value(value.clone())),
        To::Chain(chain) => Some(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(Verdict::Goto),
            VerdictAttribute::Chain(chain.clone()),
        ])),
    };
    attributes.extend(data.map(SetElementAttribute::Data));
    ListAttribute::Element(attributes)
}

/// The messages that make a chain which elements lead to, with these rules and no others.
pub(super) fn write_chain(table: &str, chain: &str, rules: &[Rule]) -> Vec<Entry> {
    let mut messages = vec![new_chain(table, chain), flush(table, chain)];
    messages.extend(rules.iter().map(|rule| {
        let mut attributes = place(table, chain);
        attributes.push(RuleAttribute::Expressions(rule.expressions().to_vec()));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        (about(message), NLM_F_CREATE | NLM_F_APPEND)
    }));
    messages
}

/// The messages that remove a chain which nothing leads to any more; one that is not there is made first.
pub(super) fn remove_chain(table: &str, chain: &str) -> Vec<Entry> {
    let named = ChainMessage {
        attributes: chain_named(table, chain),
    };
    vec![
        new_chain(table, chain),
        flush(table, chain),
        (about(NfTablesMessage::DeleteChain(named)), 0),
    ]
}

fn new_chain(table: &str, chain: &str) -> Entry {
    let named = ChainMessage {
        attributes: chain_named(table, chain),
    };
    (about(NfTablesMessage::NewChain(named)), NLM_F_CREATE)
}

fn flush(table: &str, chain: &str) -> Entry {
    let attributes = place(table, chain);
    (about(NfTablesMessage::DeleteRule(RuleMessage { attributes })), 0)
}

fn place(table: &str, chain: &str) -> Vec<RuleAttribute> {
    vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
    ]
}

fn chain_named(table: &str, chain: &str) -> Vec<ChainAttribute> {
    vec![
        ChainAttribute::Table(table.to_owned()),
        ChainAttribute::Name(chain.to_owned()),
    ]
}

fn bytes_of(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

fn about(inner: NfTablesMessage) -> NetfilterMessage {
    netlink::about(NetfilterProtoFamily::Inet, inner)
}
