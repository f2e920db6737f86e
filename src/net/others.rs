//! Firewalls of others, as far as they decide about packets of VPSs.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::netlink::{Channel, about, is_gone};
use crate::error::{During, Result};

/// `NF_DROP`.
const DROP: u32 = 0;

/// A base chain that decides about forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    /// The family and the name of its table: `ip filter`.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// Base chains where a forwarded packet is dropped unless a rule lets it pass, and that have no rule which names the link. What
/// condo's own tables accept they drop all the same.
///
/// # Errors
/// Those of the netlink socket.
pub fn dropping(link: &str) -> Result<Vec<DroppingChain>> {
    let mut channel = Channel::netfilter()?;
    let all = NfTablesMessage::GetChain(ChainMessage {
        attributes: Vec::new(),
    });
    let answers = match channel.request(about(NetfilterProtoFamily::Unspec, all), NLM_F_DUMP) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        other => other.during(|| "list firewall chains")?,
    };
    let mut found = Vec::new();
    for answer in answers {
        let family = answer.header.family;
        if let Some((table, name)) = dropped_by(&answer)
            && !names(&mut channel, family, &table, link)?
        {
            found.push(DroppingChain {
                table: format!("{} {table}", family_name(family)),
                name,
            });
        }
    }
    Ok(found)
}

/// Table and name of a chain, when it is one of those and IP's.
fn dropped_by(answer: &NetfilterMessage) -> Option<(String, String)> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &answer.inner else {
        return None;
    };
    let (mut table, mut name, mut is_forward, mut is_closed) = (None, None, false, false);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(text) => table = Some(text.clone()),
            ChainAttribute::Name(text) => name = Some(text.clone()),
            ChainAttribute::Policy(policy) => is_closed = *policy == DROP,
            ChainAttribute::Hook(parts) => {
                let forward = Hook::Number(HookNumber::Inet(InetHookNumber::Forward));
                is_forward = parts.contains(&forward);
            }
            _ => {}
        }
    }
    let is_ip = matches!(
        answer.header.family,
        NetfilterProtoFamily::Inet | NetfilterProtoFamily::IPv4 | NetfilterProtoFamily::IPv6
    );
    (is_ip && is_forward && is_closed).then_some(())?;
    Some((table?, name?))
}

/// Whether a rule of the table compares an interface with this one: somebody has thought of us, in this chain or one it calls.
fn names(channel: &mut Channel, family: NetfilterProtoFamily, table: &str, link: &str) -> Result<bool> {
    let query = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(table.to_owned())],
    });
    let rules = match channel.request(about(family, query), NLM_F_DUMP) {
        Err(e) if is_gone(&e) => return Ok(false),
        other => other.during(|| format!("list the firewall table `{table}`"))?,
    };
    // By its text within the rule, for the name is a comparison's value, or a part of one of iptables' matches.
    let needle = link.as_bytes();
    Ok(rules.iter().any(|rule| {
        let mut bytes = vec![0; netlink_packet_core::Emitable::buffer_len(rule)];
        netlink_packet_core::Emitable::emit(rule, &mut bytes);
        bytes.windows(needle.len()).any(|part| part == needle)
    }))
}

fn family_name(family: NetfilterProtoFamily) -> &'static str {
    match family {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        _ => "inet",
    }
}
