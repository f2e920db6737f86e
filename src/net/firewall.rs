//! The tables of a network: who may send what, one element per tenant and nothing linear.
//!
//! ```text
//! inet     antispoof   prerouting   from a port itself, past its link: dropped
//!                                   from the bridge: (ether saddr . ip saddr) in @tenants, or dropped; parts of packets faster
//!                                   than a VPS may make the host wait for the rest (@fragments), dropped
//!          input       input        from the bridge to the host: answers, ping and, at @resolvers, questions for names, the rest
//!                                   dropped
//!          forward     forward      VPS to VPS: (ip saddr . ip daddr) in @pairs, or by a redirected port, or dropped
//!                                   VPS to link-local (the cloud's metadata service): dropped
//!                                   VPS to outside: faster than a VPS may make the host look for neighbours (@seekers) in
//!                                   vain (@hops has those that it has sent to), dropped
//!                                   anybody to VPS: known connections and, within its share, redirected ports, or dropped
//!          deliver     postrouting  to the bridge: ip daddr in @addresses and no ICMP redirect, or dropped
//!          masquerade  postrouting  VPS to outside: under the host's address
//!          publish …   see publish
//!          leaving     prerouting   from the bridge: new connections beyond a VPS's share (@connections) are dropped; see screen
//!          arriving    postrouting  see screen
//!          gate-LINK   ingress      of the bridge, one for each network: a mark, so that the table is seen to be there
//! netdev   gate        ingress      of the bridge, right behind: what the fence has made somebody else's packet is the host's
//!                                   again where it has the mark
//! ```
//! Each chain costs a packet as much as some rules, so those that are asked at one place, with nobody's between, are one.
//!
//! Only the netdev family can make a packet the host's, and only the mark tells it of the other table: with either of them
//! deleted the gate is closed. Marks of tenants end where a packet leaves their namespace.
//! TCP of a pair is marked, so that its connection is known for a moment and does not come here again before (see shortcut).
//! VPS to VPS needs no connection tracking: pairs are entered both ways, so taking a pair away cuts what is open.
//! What relates to a connection (ICMP errors) is let through to VPSs but not to the host, whose path MTU is nothing that a
//! tenant may have an opinion on. Whatever does not touch the bridge is accepted in the first rules of each chain; other
//! tables have their own say.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::InetHookNumber;

use super::link::PORTS;
use super::rule::{Connection, DESTINATION, DESTINATION6, ETHER_SOURCE, Field, Rule, SOURCE, SOURCE6};
use super::ruleset::{At, Chain, Ruleset};
use super::set::{self, Family, LINKS, OPEN, OUTWARD, RESOLVERS, V4, V6};
use super::shortcut::KNOWN;
use super::{publish, screen};

/// `ICMP_REDIRECT` and `ICMP_ECHO`, `NDISC_REDIRECT` and `ICMPV6_ECHO_REQUEST`.
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
const REDIRECT6: u8 = 137;
const ECHO_REQUEST6: u8 = 128;
/// What packets have between the two halves of a gate (`condo` in ASCII, as far as there is room).
const PASSED: u32 = 0x636f_6e64;
/// Names are asked for by both.
const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS: u16 = 53;
/// Where Amazon's machines find their metadata by IPv6: a private address, unlike all others.
const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Connections that a VPS may have at a time, those that are over and still remembered included. The kernel remembers 65,536
/// or more in all, and as many share the host's address towards one server: a VPS comes near neither.
const SHARE: u32 = 4096;
/// How many neighbours of the host's, on the networks that it is on itself, a VPS may begin to send to: a second, and at
/// once. Each takes a place in a table of 1024 (`gc_thresh3`) for seconds, whether it is there or not. A gateway is one.
const NEIGHBOURS: (u64, u32) = (8, 64);
/// How many fragments a VPS may send, a second and at once. The host puts packets together to know their connections, and waits half
/// a minute for what is missing, in a room that all share (see `sysctl::FRAGMENTS`): a sixth of it for one VPS.
const FRAGMENTS: (u64, u32) = (128, 512);
/// Headers of IPv6: of a fragment, and one that may hide it.
const FRAGMENT6: u8 = 44;
const OPTIONS6: u8 = 60;

/// One address family: its sets, and where its packets have their addresses.
#[derive(Debug, Clone, Copy)]
struct Version {
    sets: Family,
    source: Field,
    destination: Field,
    /// What a rule about it begins with.
    about: fn(Rule) -> Rule,
}

const VERSIONS: [Version; 2] = [
    Version {
        sets: V4,
        source: SOURCE,
        destination: DESTINATION,
        about: Rule::ipv4,
    },
    Version {
        sets: V6,
        source: SOURCE6,
        destination: DESTINATION6,
        about: Rule::ipv6,
    },
];

/// The firewall proper, which is the same whatever networks there are.
pub(super) fn rules(table: &str) -> Ruleset<'_> {
    Ruleset {
        table,
        family: NetfilterProtoFamily::Inet,
        sets: &set::ALL,
        maps: [&publish::MAPS[..], &screen::MAPS[..]].concat(),
        retired: &["fragments", "share"],
        chains: chains().into_iter().chain(publish::chains()).collect(),
    }
}

/// The gate of a network, in a table of its link's name; it needs the link to be there.
pub(super) fn gate(link: &str) -> Ruleset<'_> {
    let open = vec![
        Rule::new().marked(PASSED).mark(0).for_us().accept(),
        Rule::new().arp().for_us(),
    ];
    Ruleset {
        table: link,
        family: NetfilterProtoFamily::NetDev,
        sets: &[],
        maps: Vec::new(),
        retired: &[],
        chains: vec![coming_in("gate".to_owned(), link, 0, open)],
    }
}

/// What opens the gate of a network, in the table of the firewall proper.
pub(super) fn opener<'a>(table: &'a str, link: &str) -> Ruleset<'a> {
    let mark = vec![Rule::new().mark(PASSED)];
    Ruleset {
        table,
        family: NetfilterProtoFamily::Inet,
        sets: &[],
        maps: Vec::new(),
        retired: &[],
        chains: vec![coming_in(opener_of(link), link, -10, mark)],
    }
}

/// The chain of [`opener`].
pub(super) fn opener_of(link: &str) -> String {
    format!("gate-{link}")
}

fn coming_in(name: String, link: &str, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        kind: "filter",
        at: At::Interface(link.to_owned()),
        priority,
        rules,
    }
}

fn filter(name: &str, hook: InetHookNumber, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        kind: "filter",
        at: At::Ip(hook),
        priority,
        rules,
    }
}

/// A rule for each address family.
fn each(make: impl Fn(Version) -> Rule) -> impl Iterator<Item = Rule> {
    VERSIONS.map(make).into_iter()
}

/// The rules, in the order in which a packet meets them.
fn chains() -> Vec<Chain> {
    let mut antispoof = vec![
        Rule::new().in_group(PORTS).drop(),
        Rule::new().not_from(LINKS).accept(),
        Rule::new().loopback().drop(),
    ];
    let own = |rule: Rule, v: Version| rule.in_set(&[ETHER_SOURCE, v.source], v.sets.tenants);
    let part = |rule: Rule, v| own(rule, v).oftener(FRAGMENTS, v.source, v.sets.fragments).drop();
    let ethernet = || Rule::new().ethernet();
    let [v4, v6] = VERSIONS;
    antispoof.extend([
        part(ethernet().fragment(), v4),
        own(ethernet().ipv4(), v4).accept(),
        part(ethernet().header6(FRAGMENT6), v6),
        part(ethernet().header6(OPTIONS6), v6),
        own(ethernet().ipv6(), v6).accept(),
        Rule::new().drop(),
    ]);
    let share = each(|v| {
        (v.about)(Rule::new().connection(Connection::New).from(LINKS))
            .beyond(SHARE, v.source, v.sets.connections)
            .drop()
    });
    let mut deliver = vec![
        Rule::new().not_to(LINKS).accept(),
        Rule::new().icmp(REDIRECT).drop(),
        Rule::new().icmp6(REDIRECT6).drop(),
    ];
    deliver.extend(each(|v| {
        (v.about)(Rule::new())
            .in_set(&[v.destination], v.sets.addresses)
            .accept()
    }));
    deliver.push(Rule::new().drop());
    let masquerade = each(|v| {
        (v.about)(Rule::new().not_to(LINKS))
            .in_set(&[v.source], v.sets.hidden)
            .masquerade()
    });
    use InetHookNumber as Hook;
    vec![
        // Before reassembly (-400), so that no forged fragment joins another's packet, and before connection tracking (-200).
        filter("antispoof", Hook::PreRouting, -450, antispoof),
        // After connection tracking, before destinations are translated (-100).
        filter("leaving", Hook::PreRouting, -140, screen::leaving(share)),
        // Before sources are translated (100).
        filter("arriving", Hook::PostRouting, -10, screen::arriving()),
        filter("input", Hook::LocalIn, 0, input()),
        filter("forward", Hook::Forward, 0, forward()),
        filter("deliver", Hook::PostRouting, 0, deliver),
        Chain {
            name: "masquerade".to_owned(),
            kind: "nat",
            at: At::Ip(Hook::PostRouting),
            priority: 100,
            rules: masquerade.collect(),
        },
    ]
}

/// What VPSs may say to the host.
fn input() -> Vec<Rule> {
    let question = |protocol: u8| {
        Rule::new()
            .from(LINKS)
            .ipv4()
            .in_set(&[DESTINATION], RESOLVERS)
            .carrying(protocol)
            .at_ports(DNS, DNS)
            .accept()
    };
    vec![
        Rule::new().not_from(LINKS).accept(),
        Rule::new().connection(Connection::Established).accept(),
        Rule::new().from(OUTWARD).icmp(ECHO_REQUEST).accept(),
        Rule::new().from(OUTWARD).icmp6(ECHO_REQUEST6).accept(),
        question(UDP),
        question(TCP),
        Rule::new().drop(),
    ]
}

fn forward() -> Vec<Rule> {
    let paired = |v: Version, rule: Rule| {
        (v.about)(rule.from(LINKS).to(LINKS)).in_set(&[v.source, v.destination], v.sets.pairs)
    };
    // The next packets of the connection may take the shortcut.
    let tcp = |v| {
        paired(v, Rule::new().carrying(TCP))
            .untranslated()
            .mark(KNOWN)
            .accept()
    };
    let mut rules: Vec<Rule> = each(tcp).collect();
    rules.extend(each(|v| paired(v, Rule::new()).accept()));
    // By a published port neighbours reach each other as everybody does.
    rules.push(Rule::new().from(LINKS).to(LINKS).not_redirected().drop());
    rules.push(Rule::new().from(LINKS).not_from(OUTWARD).drop());
    let metadata = METADATA6.octets();
    rules.push(Rule::new().from(LINKS).ipv6().is(DESTINATION6, &metadata).drop());
    if let Ok(link_local) = Ipv4Network::new(Ipv4Addr::new(169, 254, 0, 0), 16) {
        rules.push(
            Rule::new()
                .from(LINKS)
                .ipv4()
                .within(DESTINATION, link_local)
                .drop(),
        );
    }
    let outside = |v: Version| (v.about)(Rule::new().from(LINKS).not_to(LINKS).leaving_ethernet());
    rules.extend(each(|v| {
        outside(v).next_hop_in_set(v.source, v.sets.hops).accept()
    }));
    rules.extend(each(|v| {
        outside(v).oftener(NEIGHBOURS, v.source, v.sets.seekers).drop()
    }));
    rules.extend(each(|v| outside(v).enter_next_hop(v.source, v.sets.hops)));
    rules.push(Rule::new().not_to(LINKS).accept());
    rules.push(Rule::new().connection(Connection::Known).accept());
    rules.extend(each(|v| {
        (v.about)(Rule::new().connection(Connection::New))
            .beyond(SHARE, v.destination, v.sets.connections)
            .drop()
    }));
    rules.extend([
        Rule::new().to(OPEN).accept(),
        Rule::new().connection(Connection::Redirected).accept(),
        Rule::new().drop(),
    ]);
    rules
}
