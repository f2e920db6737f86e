//! The `inet` table of a network: who may send what, one element per tenant and nothing linear.
//!
//! ```text
//! antispoof   prerouting   from the bridge: (ether saddr . ip saddr) in @tenants, or dropped; so is all IPv6
//! input       input        from the bridge to the host: known connections and ping, the rest dropped
//! forward     forward      VPS to VPS: (ip saddr . ip daddr) in @pairs, or dropped
//!                          VPS to link-local (the cloud's metadata service): dropped
//!                          anybody to VPS: known connections and redirected ports, the rest dropped
//! deliver     postrouting  to the bridge: ip daddr in @addresses and no ICMP redirect, or dropped
//! masquerade  postrouting  VPS to outside: under the host's address
//! ```
//! VPS to VPS needs no connection tracking: pairs are entered both ways, so taking a pair away cuts what is open.
//! Whatever does not touch the bridge is accepted in the first rule of each chain; other tables have their own say.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use super::Network;
use super::elements::{ADDRESSES, PAIRS, TENANTS, new_set};
use super::netlink::{Channel, is_gone};
use super::rule::{Connection, DESTINATION, ETHER_SOURCE, Rule, SOURCE};
use crate::error::{During, Result};

/// Changed whenever the rules below change, so that [`state`] finds tables of older versions.
const VERSION: u32 = 1;
/// The chain whose first rule carries the mark of this version and its settings.
const MARKED: &str = "antispoof";
/// `ICMP_REDIRECT` and `ICMP_ECHO`.
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;

/// A base chain.
struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: InetHookNumber,
    priority: i32,
    rules: Vec<Rule>,
}

impl Chain {
    fn filter(name: &'static str, hook: InetHookNumber, priority: i32, rules: Vec<Rule>) -> Self {
        Self {
            name,
            kind: "filter",
            hook,
            priority,
            rules,
        }
    }
}

/// What [`state`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No such table.
    Missing,
    /// The rules of this version with the network's settings.
    Current,
    /// Rules that condo wrote, of another version or with other settings.
    Outdated,
    /// A table that somebody else made.
    Foreign,
}

/// A message and its flags.
pub(super) type Entry = (NetfilterMessage, u16);

/// Looks at the table of the network.
pub(super) fn state(channel: &mut Channel, network: &Network) -> Result<State> {
    let table = TableMessage {
        attributes: vec![TableAttribute::Name(network.table.clone())],
    };
    match channel.request(message(NfTablesMessage::GetTable(table)), 0) {
        Err(e) if is_gone(&e) => return Ok(State::Missing),
        other => other.during(|| format!("look up the firewall table `{}`", network.table))?,
    };
    let rules = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(network.table.clone()),
            RuleAttribute::Chain(MARKED.into()),
        ],
    };
    let answers = channel
        .request(message(NfTablesMessage::GetRule(rules)), NLM_F_DUMP)
        .during(|| format!("list the firewall table `{}`", network.table))?;
    let found = answers.into_iter().find_map(comment_of);
    Ok(match found {
        Some(text) if text == mark(network) => State::Current,
        Some(text) if text.starts_with("condo ") => State::Outdated,
        _ => State::Foreign,
    })
}

/// Creates the table, or replaces the rules of an older one and leaves the sets' elements: one batch, the same however often.
pub(super) fn create(channel: &mut Channel, network: &Network) -> Result<()> {
    let mut batch = vec![table(network)];
    batch.extend(
        [TENANTS, ADDRESSES, PAIRS]
            .iter()
            .zip(1..)
            .map(|(set, id)| new_set(network, *set, id)),
    );
    for chain in chains(network) {
        batch.push(new_chain(network, &chain));
        batch.push(flush_chain(network, chain.name));
        batch.extend(
            chain
                .rules
                .into_iter()
                .map(|rule| new_rule(network, chain.name, rule)),
        );
    }
    channel
        .batch(batch)
        .during(|| format!("create the firewall table `{}`", network.table))
}

/// Deletes the table and all in it.
pub(super) fn delete(channel: &mut Channel, network: &Network) -> Result<()> {
    let table = TableMessage {
        attributes: vec![TableAttribute::Name(network.table.clone())],
    };
    channel
        .batch(vec![(message(NfTablesMessage::DeleteTable(table)), 0)])
        .during(|| format!("delete the firewall table `{}`", network.table))
}

/// The rules, in the order in which a packet meets them.
fn chains(network: &Network) -> Vec<Chain> {
    let bridge = network.bridge.as_str();
    let antispoof = vec![
        Rule::new().not_from(bridge).accept().comment(mark(network)),
        Rule::new()
            .ethernet()
            .ipv4()
            .in_set(&[ETHER_SOURCE, SOURCE], TENANTS.name)
            .accept(),
        Rule::new().drop(),
    ];
    let input = vec![
        Rule::new().not_from(bridge).accept(),
        Rule::new().connection(Connection::Known).accept(),
        Rule::new().icmp(ECHO_REQUEST).accept(),
        Rule::new().drop(),
    ];
    let deliver = vec![
        Rule::new().not_to(bridge).accept(),
        Rule::new().icmp(REDIRECT).drop(),
        Rule::new().ipv4().in_set(&[DESTINATION], ADDRESSES.name).accept(),
        Rule::new().drop(),
    ];
    let masquerade = vec![
        Rule::new()
            .not_to(bridge)
            .ipv4()
            .within(SOURCE, network.subnet)
            .masquerade(),
    ];
    use InetHookNumber as At;
    vec![
        // Before reassembly (-400), so that no forged fragment joins another's packet, and before connection tracking (-200).
        Chain::filter(MARKED, At::PreRouting, -450, antispoof),
        Chain::filter("input", At::LocalIn, 0, input),
        Chain::filter("forward", At::Forward, 0, forward(bridge)),
        Chain::filter("deliver", At::PostRouting, 0, deliver),
        Chain {
            name: "masquerade",
            kind: "nat",
            hook: At::PostRouting,
            priority: 100,
            rules: masquerade,
        },
    ]
}

fn forward(bridge: &str) -> Vec<Rule> {
    let mut rules = vec![
        Rule::new()
            .from(bridge)
            .to(bridge)
            .ipv4()
            .in_set(&[SOURCE, DESTINATION], PAIRS.name)
            .accept(),
        Rule::new().from(bridge).to(bridge).drop(),
    ];
    if let Ok(link_local) = Ipv4Network::new(Ipv4Addr::new(169, 254, 0, 0), 16) {
        rules.push(
            Rule::new()
                .from(bridge)
                .ipv4()
                .within(DESTINATION, link_local)
                .drop(),
        );
    }
    rules.extend([
        Rule::new().not_to(bridge).accept(),
        Rule::new().connection(Connection::Known).accept(),
        Rule::new().connection(Connection::Redirected).accept(),
        Rule::new().drop(),
    ]);
    rules
}

fn mark(network: &Network) -> String {
    format!("condo {VERSION}: {} {}", network.bridge, network.subnet)
}

fn comment_of(answer: NetfilterMessage) -> Option<String> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = answer.inner else {
        return None;
    };
    rule.attributes.into_iter().find_map(|attribute| match attribute {
        RuleAttribute::UserData(data) => comment_in(&data),
        _ => None,
    })
}

/// A comment as nft(8) stores it in a rule's user data: type 0, a length byte, and the text with its NUL.
fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![0, length];
    data.extend(text.bytes().take(usize::from(length) - 1));
    data.push(0);
    data
}

fn comment_in(data: &[u8]) -> Option<String> {
    let text = data.strip_prefix(&[0])?.get(1..)?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

/// A message about tables of family `inet`.
pub(super) fn message(inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), inner)
}

fn table(network: &Network) -> Entry {
    let attributes = vec![TableAttribute::Name(network.table.clone())];
    (
        message(NfTablesMessage::NewTable(TableMessage { attributes })),
        NLM_F_CREATE,
    )
}

fn new_chain(network: &Network, chain: &Chain) -> Entry {
    let attributes = vec![
        ChainAttribute::Table(network.table.clone()),
        ChainAttribute::Name(chain.name.into()),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Inet(chain.hook)),
            Hook::Priority(chain.priority.cast_unsigned()),
        ]),
        ChainAttribute::Policy(1),
        ChainAttribute::Type(chain.kind.into()),
    ];
    (
        message(NfTablesMessage::NewChain(ChainMessage { attributes })),
        NLM_F_CREATE,
    )
}

fn flush_chain(network: &Network, chain: &str) -> Entry {
    let attributes = vec![
        RuleAttribute::Table(network.table.clone()),
        RuleAttribute::Chain(chain.into()),
    ];
    (
        message(NfTablesMessage::DeleteRule(RuleMessage { attributes })),
        0,
    )
}

fn new_rule(network: &Network, chain: &str, rule: Rule) -> Entry {
    let mut attributes = vec![
        RuleAttribute::Table(network.table.clone()),
        RuleAttribute::Chain(chain.into()),
    ];
    if let Some(text) = &rule.comment {
        attributes.push(RuleAttribute::UserData(comment(text)));
    }
    attributes.push(RuleAttribute::Expressions(rule.into_expressions()));
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    (
        message(NfTablesMessage::NewRule(RuleMessage { attributes })),
        flags,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_back() {
        assert_eq!(comment_in(&comment("condo 1: x")).as_deref(), Some("condo 1: x"));
        assert_eq!(comment_in(&[]), None);
        assert_eq!(comment_in(&[1, 2, b'x', 0]), None);
    }
}
