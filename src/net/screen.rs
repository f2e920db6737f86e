//! The firewalls of VPSs: a chain for each direction of each VPS that has one, found by its address.
//!
//! ```text
//! leaving    prerouting   answers and errors pass; ip saddr in @leaving: the VPS's chain, before destinations are translated
//! arriving   postrouting  the same for ip daddr in @arriving, after that: what comes by a published port has the VPS's port
//! ```
//! All packets of a direction are asked about, not only the first of each connection: what is denied stops, open or not.

use std::net::IpAddr;

use super::filter::{Action, Direction, Filter, FilterRule, Protocol};
use super::map::{self, Element, Family, Leads, Map, To};
use super::netlink::Entry;
use super::rule::{ICMP, ICMPV6, Rule};
use super::set::address_key;

/// ICMPv6 types that find routers and neighbours (RFC 4861), without which no address is worth anything.
const DISCOVERY: (u8, u8) = (133, 136);

const fn map(name: &'static str, family: Family) -> Map {
    Map {
        name,
        kind: family.kind(),
        length: family.length(),
        leads: Leads::Chain,
        ranges: &[],
    }
}

const LEAVING: [Map; 2] = [map("leaving", Family::V4), map("leaving6", Family::V6)];
const ARRIVING: [Map; 2] = [map("arriving", Family::V4), map("arriving6", Family::V6)];

/// All maps.
pub(super) const MAPS: [Map; 4] = [LEAVING[0], LEAVING[1], ARRIVING[0], ARRIVING[1]];

fn maps(direction: Direction) -> &'static [Map; 2] {
    match direction {
        Direction::In => &ARRIVING,
        Direction::Out => &LEAVING,
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::In, Direction::Out];

/// What is asked of packets that leave a VPS: `share` of those that nobody waits for.
pub(super) fn leaving(share: impl Iterator<Item = Rule>) -> Vec<Rule> {
    asking(Direction::Out, share)
}

/// What is asked of packets that arrive at a VPS.
pub(super) fn arriving() -> Vec<Rule> {
    asking(Direction::In, std::iter::empty())
}

fn asking(direction: Direction, first: impl Iterator<Item = Rule>) -> Vec<Rule> {
    let mut rules = vec![Rule::new().answering().accept(), Rule::new().relating().accept()];
    rules.extend(first);
    rules.extend(Family::ALL.into_iter().zip(maps(direction)).map(|(family, map)| {
        let field = match direction {
            Direction::In => family.destination(),
            Direction::Out => family.source(),
        };
        Rule::new().of(family).go_by(field, map)
    }));
    rules
}

/// The firewall of one VPS as the kernel has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen<'a> {
    /// What its chains are called after.
    pub(super) label: &'a str,
    /// What logs call it.
    pub(super) name: &'a str,
    pub(super) addresses: &'a [IpAddr],
    pub(super) filter: &'a Filter,
}

impl Screen<'_> {
    /// The messages that put it up in place of what there is; also where it lets all pass.
    pub(super) fn put_up(&self, table: &str) -> Vec<Entry> {
        let both = DIRECTIONS.into_iter().flat_map(|direction| {
            let mut messages = self.remove(table, direction);
            if self.is_needed(direction) {
                messages.extend(map::write_chain(
                    table,
                    &self.chain(direction),
                    &self.rules(direction),
                ));
                for (map, elements) in self.elements(direction) {
                    messages.extend(map::add(table, map, &elements));
                }
            }
            messages
        });
        both.collect()
    }

    /// The messages that take it away.
    pub(super) fn take_down(&self, table: &str) -> Vec<Entry> {
        let both = DIRECTIONS
            .into_iter()
            .flat_map(|direction| self.remove(table, direction));
        both.collect()
    }

    fn remove(&self, table: &str, direction: Direction) -> Vec<Entry> {
        let chain = self.chain(direction);
        // For the elements to lead somewhere.
        let mut messages = map::write_chain(table, &chain, &[]);
        for (map, elements) in self.elements(direction) {
            messages.extend(map::remove(table, map, &elements));
        }
        messages.extend(map::remove_chain(table, &chain));
        messages
    }

    fn is_needed(&self, direction: Direction) -> bool {
        self.filter.policy(direction) == Action::Deny || self.filter.rules_of(direction).next().is_some()
    }

    fn chain(&self, direction: Direction) -> String {
        format!("{direction}-{}", self.label)
    }

    fn elements(&self, direction: Direction) -> Vec<(&'static Map, Vec<Element>)> {
        let by_family = Family::ALL.into_iter().zip(maps(direction)).map(|(family, map)| {
            let own = self.addresses.iter().filter(|a| Family::of(**a) == family);
            let elements = own.map(|address| Element {
                key: address_key(*address),
                end: None,
                to: To::Chain(self.chain(direction)),
            });
            (map, elements.collect())
        });
        by_family.collect()
    }

    /// What is read one by one: the owner's rules in their order, and the policy at the end.
    fn rules(&self, direction: Direction) -> Vec<Rule> {
        let discovery = Rule::new()
            .carrying(ICMPV6)
            .of_types(DISCOVERY.0, DISCOVERY.1)
            .accept();
        let mut rules = vec![discovery];
        for (number, rule) in self.filter.rules.iter().enumerate() {
            if rule.direction == direction {
                rules.extend(self.written(number + 1, rule));
            }
        }
        rules.push(match self.filter.policy(direction) {
            Action::Allow => Rule::new().accept(),
            Action::Deny => Rule::new().drop(),
        });
        rules
    }

    fn written(&self, number: usize, rule: &FilterRule) -> Vec<Rule> {
        let words = format!(
            "condo {} {number} {} {}: ",
            self.name, rule.direction, rule.action
        );
        let mut rules = Vec::new();
        for protocol in protocols(rule.protocol) {
            if rule.log {
                rules.push(fitting(rule, *protocol).log(&words));
            }
            let fits = fitting(rule, *protocol);
            rules.push(match rule.action {
                Action::Allow => fits.accept(),
                Action::Deny => fits.drop(),
            });
        }
        rules
    }
}

/// The numbers of a protocol; the empty one is any.
fn protocols(protocol: Protocol) -> &'static [Option<u8>] {
    match protocol {
        Protocol::Tcp => &[Some(6)],
        Protocol::Udp => &[Some(17)],
        Protocol::Icmp => &[Some(ICMP), Some(ICMPV6)],
        Protocol::Any => &[None],
    }
}

fn fitting(rule: &FilterRule, protocol: Option<u8>) -> Rule {
    let mut fits = Rule::new();
    if let Some(network) = rule.from.or(rule.to) {
        fits = fits.of(Family::of(network.network()));
    }
    if let Some(from) = rule.from {
        fits = fits.in_network(Family::of(from.network()).source(), from);
    }
    if let Some(to) = rule.to {
        fits = fits.in_network(Family::of(to.network()).destination(), to);
    }
    if let Some(protocol) = protocol {
        fits = fits.carrying(protocol);
    }
    match rule.ports {
        Some(ports) => fits.at_ports(ports.first, ports.last),
        None => fits,
    }
}
