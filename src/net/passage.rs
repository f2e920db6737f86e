//! A way for VPSs through Docker's firewall, in the chain that it leaves to the operator.
//!
//! Where Docker is, what is forwarded and not Docker's is dropped: `FORWARD` of the table `filter` has the policy DROP, in `ip` and,
//! where Docker does IPv6, in `ip6`. Before that the packet meets `DOCKER-USER`, which Docker makes once and never fills. There
//! stands, behind what the operator has written and before the return at the end:
//!
//! ```text
//! -o condo0 -j ACCEPT           to VPSs: who reaches one is for condo's own table to say
//! -i condo0 -o eth0 -j ACCEPT   from VPSs to the outside, for each interface that leads there
//! ```
//! Containers are on bridges: what VPSs send to them is for Docker to decide, as it does for everybody. A rule has a comment of condo's,
//! by which it is found, and is written as iptables(8) writes it, which Docker uses and which reads nothing else.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_packet_route::link::InfoKind;

use super::link::Link;
use super::netlink::{Channel, Entry, about, forgive_gone, is_gone};
use super::rule::Rule;
use super::ruleset::{comment, comment_in};
use super::{Network, link, route};
use crate::error::{During, Result};

const FAMILIES: [NetfilterProtoFamily; 2] = [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6];
const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";

impl Network {
    /// Lets this network's packets through where Docker is, and takes back what no longer applies.
    pub(super) fn open_passage(&self) -> Result<()> {
        self.set_passage(|network| network.wanted())
            .during(|| format!("let packets of `{}` through Docker's firewall", self.bridge))
    }

    /// Takes back [`Network::open_passage`].
    pub(super) fn close_passage(&self) -> Result<()> {
        self.set_passage(|_| Ok(Vec::new()))
            .during(|| format!("take the rules for `{}` out of Docker's firewall", self.bridge))
    }

    /// Whether all of it is there and nothing more, or no Docker.
    pub(super) fn passes(&self) -> Result<bool> {
        let mut channel = Channel::netfilter()?;
        for family in FAMILIES {
            if let Some(chain) = Chain::read(&mut channel, family)?
                && !self.change(&chain, &self.wanted()?).is_empty()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn set_passage(&self, wanted: impl Fn(&Self) -> Result<Vec<Passage>>) -> Result<()> {
        if self.kind.is_bridged() {
            return Ok(());
        }
        let mut channel = Channel::netfilter()?;
        for family in FAMILIES {
            let Some(chain) = Chain::read(&mut channel, family)? else {
                continue;
            };
            let change = self.change(&chain, &wanted(self)?);
            if !change.is_empty() {
                // Docker may take its chains away meanwhile.
                forgive_gone(channel.batch(change))?;
            }
        }
        Ok(())
    }

    /// The rules that this network is to have.
    fn wanted(&self) -> Result<Vec<Passage>> {
        let mut all = vec![Passage {
            comment: format!("{}to", self.mark()),
            rule: Rule::new().leaving_by(&self.bridge).counted().accept(),
        }];
        if self.kind.has_a_way_out() {
            all.extend(outward()?.into_iter().map(|uplink| {
                Passage {
                    comment: format!("{}from, by {uplink}", self.mark()),
                    rule: Rule::new()
                        .coming_by(&self.bridge)
                        .leaving_by(&uplink)
                        .counted()
                        .accept(),
                }
            }));
        }
        Ok(all)
    }

    /// What the comments of this network's rules begin with.
    fn mark(&self) -> String {
        format!("condo {}: ", self.bridge)
    }

    /// The messages that make a chain have these rules of this network and no others.
    fn change(&self, chain: &Chain, wanted: &[Passage]) -> Vec<Entry> {
        let mark = self.mark();
        let (mut kept, mut entries) = (Vec::new(), Vec::new());
        for (handle, said) in &chain.rules {
            let Some(said) = said.as_deref().filter(|said| said.starts_with(&mark)) else {
                continue;
            };
            if kept.contains(&said) || !wanted.iter().any(|passage| passage.comment == said) {
                entries.push(chain.remove(*handle));
            }
            kept.push(said);
        }
        let missing = wanted
            .iter()
            .filter(|passage| !kept.contains(&passage.comment.as_str()));
        entries.extend(missing.map(|passage| chain.add(passage)));
        entries
    }
}

/// A rule, and by what it is found.
struct Passage {
    comment: String,
    rule: Rule,
}

/// Interfaces by which packets leave this host. Those that lead to containers, virtual machines or VPSs are bridges or veth pairs,
/// and none of them has a default route.
fn outward() -> Result<Vec<String>> {
    let mut channel = Channel::route()?;
    let default = route::default_links(&mut channel)?;
    let leads_outside = |link: &Link| {
        let leads_inside = matches!(
            link.kind,
            Some(InfoKind::Bridge | InfoKind::Veth | InfoKind::Dummy | InfoKind::Ifb)
        );
        !link.is_loopback && (!leads_inside || default.contains(&link.index))
    };
    let all = link::all(&mut channel)?.into_iter();
    let mut names: Vec<String> = all
        .filter(|(_, link)| leads_outside(link))
        .map(|(name, _)| name)
        .collect();
    names.sort();
    Ok(names)
}

/// The chain that Docker leaves to the operator.
struct Chain {
    family: NetfilterProtoFamily,
    /// Handles and comments.
    rules: Vec<(u64, Option<String>)>,
    /// The handle of the return at the end.
    end: Option<u64>,
}

impl Chain {
    /// Nothing where there is no Docker.
    fn read(channel: &mut Channel, family: NetfilterProtoFamily) -> Result<Option<Self>> {
        let named = ChainMessage {
            attributes: vec![
                ChainAttribute::Table(TABLE.into()),
                ChainAttribute::Name(CHAIN.into()),
            ],
        };
        match channel.request(about(family, NfTablesMessage::GetChain(named)), 0) {
            Err(e) if is_gone(&e) => return Ok(None),
            other => other.during(|| format!("look up the firewall chain `{CHAIN}`"))?,
        };
        let query = NfTablesMessage::GetRule(RuleMessage { attributes: place() });
        let answers = match channel.request(about(family, query), NLM_F_DUMP) {
            Err(e) if is_gone(&e) => return Ok(None),
            other => other.during(|| format!("list the firewall chain `{CHAIN}`"))?,
        };
        let mut chain = Self {
            family,
            rules: Vec::new(),
            end: None,
        };
        for answer in answers {
            chain.take(answer);
        }
        Ok(Some(chain))
    }

    fn take(&mut self, answer: NetfilterMessage) {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = answer.inner else {
            return;
        };
        let (mut handle, mut said, mut ends) = (0, None, false);
        for attribute in rule.attributes {
            match attribute {
                RuleAttribute::Handle(number) => handle = number,
                RuleAttribute::UserData(data) => said = comment_in(&data),
                RuleAttribute::Expressions(expressions) => ends = only_returns(&expressions),
                _ => {}
            }
        }
        // Only the last one is the end.
        self.end = ends.then_some(handle);
        self.rules.push((handle, said));
    }

    fn add(&self, passage: &Passage) -> Entry {
        let mut attributes = place();
        // Without the flag to append, a position is the rule to come before.
        let flags = match self.end {
            Some(end) => {
                attributes.push(RuleAttribute::Position(end));
                NLM_F_CREATE
            }
            None => NLM_F_CREATE | NLM_F_APPEND,
        };
        attributes.push(RuleAttribute::UserData(comment(&passage.comment)));
        attributes.push(RuleAttribute::Expressions(passage.rule.expressions().to_vec()));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        (about(self.family, message), flags)
    }

    fn remove(&self, handle: u64) -> Entry {
        let mut attributes = place();
        attributes.push(RuleAttribute::Handle(handle));
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        (about(self.family, message), 0)
    }
}

fn place() -> Vec<RuleAttribute> {
    vec![
        RuleAttribute::Table(TABLE.into()),
        RuleAttribute::Chain(CHAIN.into()),
    ]
}

/// Whether a rule returns whatever the packet is: it may count, and asks nothing.
fn only_returns(expressions: &[ListAttribute<ExpressionAttribute>]) -> bool {
    let parts = expressions.iter().filter_map(|expression| match expression {
        ListAttribute::Element(attributes) => attributes.iter().find_map(|attribute| match attribute {
            ExpressionAttribute::Data(data) => Some(data),
            _ => None,
        }),
        _ => None,
    });
    let mut returns = false;
    for part in parts {
        match part {
            Expressions::Immediate(attributes) => returns = attributes.iter().any(is_return),
            Expressions::Other { expression_type, .. } if expression_type == "counter" => {}
            _ => return false,
        }
    }
    returns
}

fn is_return(attribute: &Immediate) -> bool {
    let returning = VerdictAttribute::Code(Verdict::Return);
    matches!(attribute, Immediate::Data(DataAttribute::Verdict(verdict)) if verdict.contains(&returning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(comments: &[&str], end: bool) -> Chain {
        let rules = (1..).zip(comments.iter().map(|text| Some((*text).to_owned())));
        Chain {
            family: NetfilterProtoFamily::IPv4,
            rules: rules.collect(),
            end: end.then_some(99),
        }
    }

    fn passages(comments: &[&str]) -> Vec<Passage> {
        let of = |comment: &&str| Passage {
            comment: (*comment).to_owned(),
            rule: Rule::new().accept(),
        };
        comments.iter().map(of).collect()
    }

    /// Handles that are removed, and how many rules are added.
    fn change(there: &[&str], wanted: &[&str]) -> (Vec<u64>, usize) {
        let network = Network::new("condo0", "condo", "10.0.0.0/16".parse().unwrap());
        let entries = network.change(&chain(there, true), &passages(wanted));
        let handle = |message: &RuleMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Handle(handle) => Some(*handle),
                _ => None,
            })
        };
        let (mut removed, mut added) = (Vec::new(), 0);
        for (message, _) in entries {
            match message.inner {
                NetfilterMessageInner::NfTables(NfTablesMessage::DeleteRule(rule)) => {
                    removed.extend(handle(&rule));
                }
                NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(_)) => added += 1,
                other => panic!("{other:?}"),
            }
        }
        (removed, added)
    }

    #[test]
    fn only_what_differs_is_changed() {
        let (to, eth0, eth1) = (
            "condo condo0: to",
            "condo condo0: from, by eth0",
            "condo condo0: from, by eth1",
        );
        assert_eq!(change(&[], &[to, eth0]), (vec![], 2));
        assert_eq!(change(&[to, eth0], &[to, eth0]), (vec![], 0));
        assert_eq!(change(&["the operator's", to, eth0], &[to, eth1]), (vec![3], 1));
        // Twice, by two commands at once.
        assert_eq!(change(&[to, to], &[to]), (vec![2], 0));
        // Another network's.
        assert_eq!(change(&["condo condo01: to", to], &[]), (vec![2], 0));
    }
}
