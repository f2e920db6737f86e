//! nftables tables of condo's: whether they stand as they were written, and writing them in one batch.

use netlink_packet_core::{
    DecodeError, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NlasIterator,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DevHookNumber, Hook, HookNumber, InetHookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterProtoFamily};

use super::elements::new_set;
use super::map::{self, Map, new_map};
use super::netlink::{self, Channel, Entry, is_gone};
use super::rule::Rule;
use super::set::Set;
use crate::error::{During, Error, Result};

/// Changed whenever rules change, so that tables of older versions are found.
pub(super) const VERSION: u32 = 9;
/// What a table of condo's says of itself, whatever becomes of its rules; the mark of a version begins with it.
const OURS: &str = "condo ";

/// Where a chain is called.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// At this point of the host's IP.
    Ip(InetHookNumber),
    /// Where packets come in by this interface.
    Interface(String),
}

/// A base chain.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) at: At,
    pub(super) priority: i32,
    pub(super) rules: Vec<Rule>,
}

/// What [`Ruleset::state`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No such table.
    Missing,
    /// The rules of this version.
    Current,
    /// Rules that condo wrote, of another version, or not all of them.
    Outdated,
    /// A table that somebody else made.
    Foreign,
}

/// A table in one family, with all that is in it. Its first rule carries the mark.
#[derive(Debug)]
pub(super) struct Ruleset<'a> {
    /// Its name.
    pub(super) table: &'a str,
    pub(super) family: NetfilterProtoFamily,
    pub(super) sets: &'static [Set],
    pub(super) maps: Vec<Map>,
    pub(super) chains: Vec<Chain>,
    /// Chains that older versions had, whose rules are in others now.
    pub(super) retired: &'static [&'static str],
}

impl Ruleset<'_> {
    /// Makes the table what it should be, unless it is.
    ///
    /// # Errors
    /// [`Error::Exists`] when somebody else made a table of this name.
    pub(super) fn ensure(self, channel: &mut Channel) -> Result<()> {
        match self.state(channel)? {
            State::Current => Ok(()),
            State::Missing | State::Outdated => self.write(channel),
            State::Foreign => Err(Error::Exists {
                kind: "nftables table",
                name: format!("{} {}", self.family_name(), self.table),
            }),
        }
    }

    /// Removes the table, if condo made it.
    pub(super) fn remove(&self, channel: &mut Channel) -> Result<()> {
        match self.state(channel)? {
            State::Current | State::Outdated => {
                let table = NfTablesMessage::DeleteTable(self.named());
                match channel.batch(vec![(self.message(table), 0)]) {
                    Err(e) if is_gone(&e) => Ok(()),
                    other => other.during(|| format!("delete the firewall table `{}`", self.table)),
                }
            }
            State::Missing | State::Foreign => Ok(()),
        }
    }

    /// Looks at the table. It is current with our mark on a rule and with as many rules as we wrote: whoever flushes chains
    /// flushes some of them.
    pub(super) fn state(&self, channel: &mut Channel) -> Result<State> {
        let table: Vec<Said> = match channel.ask(self.message(NfTablesMessage::GetTable(self.named())), 0) {
            Err(e) if is_gone(&e) => return Ok(State::Missing),
            other => other.during(|| format!("look up the firewall table `{}`", self.table))?,
        };
        let mut rules = Vec::new();
        for chain in &self.chains {
            rules.extend(self.rules_of(channel, chain)?);
        }
        let whole = rules.len() == self.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
        let said: Vec<String> = table
            .into_iter()
            .chain(rules)
            .filter_map(|Said(text)| text)
            .collect();
        Ok(match () {
            () if whole && said.contains(&self.mark()) => State::Current,
            () if said.iter().any(|text| text.starts_with(OURS)) => State::Outdated,
            () => State::Foreign,
        })
    }

    /// The rules of a chain; none where there is no such chain. Those of single VPSs are in chains of their own.
    fn rules_of(&self, channel: &mut Channel, chain: &Chain) -> Result<Vec<Said>> {
        let query = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(self.table.to_owned()),
                RuleAttribute::Chain(chain.name.clone()),
            ],
        });
        match channel.ask(self.message(query), NLM_F_DUMP) {
            Err(e) if is_gone(&e) => Ok(Vec::new()),
            other => other.during(|| format!("list the firewall table `{}`", self.table)),
        }
    }

    /// Creates the table, or replaces the rules of an older one and leaves the sets' elements: one batch, the same however often.
    fn write(self, channel: &mut Channel) -> Result<()> {
        let mut about = self.named();
        about.attributes.push(TableAttribute::UserData(comment(OURS)));
        let mut batch = vec![(self.message(NfTablesMessage::NewTable(about)), NLM_F_CREATE)];
        let sets = self.sets.iter().zip(1..);
        batch.extend(sets.map(|(set, id)| new_set(self.table, *set, id)));
        let maps = self.maps.iter().zip(1001..);
        batch.extend(maps.map(|(map, id)| new_map(self.table, map, id)));
        let retired = self.retired.iter();
        batch.extend(retired.flat_map(|chain| map::remove_chain(self.table, chain)));
        let mut mark = Some(comment(&self.mark()));
        for chain in &self.chains {
            batch.push(self.new_chain(chain));
            batch.push(self.flush_chain(chain));
            for rule in &chain.rules {
                batch.push(self.new_rule(chain, rule, mark.take()));
            }
        }
        channel
            .batch(batch)
            .during(|| format!("create the firewall table `{}`", self.table))
    }

    fn mark(&self) -> String {
        format!("{OURS}{VERSION}")
    }

    fn family_name(&self) -> &'static str {
        match self.family {
            NetfilterProtoFamily::NetDev => "netdev",
            _ => "inet",
        }
    }

    fn named(&self) -> TableMessage {
        TableMessage {
            attributes: vec![TableAttribute::Name(self.table.to_owned())],
        }
    }

    fn message(&self, inner: NfTablesMessage) -> NetfilterMessage {
        netlink::about(self.family, inner)
    }

    fn new_chain(&self, chain: &Chain) -> Entry {
        let mut hook = vec![Hook::Priority(chain.priority.cast_unsigned())];
        match &chain.at {
            At::Ip(point) => hook.push(Hook::Number(HookNumber::Inet(*point))),
            At::Interface(name) => hook.extend([
                Hook::Number(match self.family {
                    NetfilterProtoFamily::NetDev => HookNumber::Dev(DevHookNumber::Ingress),
                    _ => HookNumber::Inet(InetHookNumber::Ingress),
                }),
                Hook::NetDeviceName(name.clone()),
            ]),
        }
        let attributes = vec![
            ChainAttribute::Table(self.table.to_owned()),
            ChainAttribute::Name(chain.name.clone()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Policy(1),
            ChainAttribute::Type(chain.kind.into()),
        ];
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        (self.message(message), NLM_F_CREATE)
    }

    fn flush_chain(&self, chain: &Chain) -> Entry {
        let attributes = vec![
            RuleAttribute::Table(self.table.to_owned()),
            RuleAttribute::Chain(chain.name.clone()),
        ];
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        (self.message(message), 0)
    }

    fn new_rule(&self, chain: &Chain, rule: &Rule, comment: Option<Vec<u8>>) -> Entry {
        let mut attributes = vec![
            RuleAttribute::Table(self.table.to_owned()),
            RuleAttribute::Chain(chain.name.clone()),
        ];
        attributes.extend(comment.map(RuleAttribute::UserData));
        attributes.push(RuleAttribute::Expressions(rule.expressions().to_vec()));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        (self.message(message), NLM_F_CREATE | NLM_F_APPEND)
    }
}

/// What a table or a rule says of itself, and nothing else of it. To read the rest takes a third of a start: the packet library writes out the
/// bytes of every list, and of every list in it, for the error that there might be.
#[derive(Debug)]
struct Said(Option<String>);

impl NetlinkDeserializable for Said {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, DecodeError> {
        // NFT_MSG_NEWTABLE; NFTA_TABLE_USERDATA and NFTA_RULE_USERDATA, behind struct nfgenmsg.
        let kind = if header.message_type & 0xff == 0 { 6 } else { 7 };
        let attributes = NlasIterator::new(payload.get(4..).unwrap_or_default());
        let data = attributes.flatten().find(|attribute| attribute.kind() == kind);
        Ok(Self(data.and_then(|data| comment_in(data.value()))))
    }
}

/// A comment as nft(8) stores it in the user data of a rule or a table: type 0, a length byte, and the text with its NUL.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![0, length];
    data.extend(text.bytes().take(usize::from(length) - 1));
    data.push(0);
    data
}

/// What [`comment`] has stored.
pub(super) fn comment_in(data: &[u8]) -> Option<String> {
    let text = data.strip_prefix(&[0])?.get(1..)?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
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
