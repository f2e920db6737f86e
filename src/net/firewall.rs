//! The tables of a network: who may send what, one element per tenant and nothing linear.
//!
//! ```text
//! inet     antispoof   prerouting   from a port itself, past the bridge: dropped
//!                                   from the bridge: (ether saddr . ip saddr) in @tenants, or dropped; so is all IPv6
//!          share       prerouting   from the bridge: new connections beyond a VPS's share (@connections) are dropped
//!          input       input        from the bridge to the host: answers and ping, the rest dropped
//!          forward     forward      VPS to VPS: (ip saddr . ip daddr) in @pairs, or dropped
//!                                   VPS to link-local (the cloud's metadata service): dropped
//!                                   VPS to outside: faster than a VPS may make the host look for neighbours (@seekers) in
//!                                   vain (@hops has those that it has sent to), dropped
//!                                   anybody to VPS: known connections and, within its share, redirected ports, or dropped
//!          deliver     postrouting  to the bridge: ip daddr in @addresses and no ICMP redirect, or dropped
//!          masquerade  postrouting  VPS to outside: under the host's address
//! netdev   gate        ingress      of the bridge: what the fence has made somebody else's packet is the host's again
//! ```
//! VPS to VPS needs no connection tracking: pairs are entered both ways, so taking a pair away cuts what is open.
//! What relates to a connection (ICMP errors) is let through to VPSs but not to the host, whose path MTU is nothing that a
//! tenant may have an opinion on. Whatever does not touch the bridge is accepted in the first rules of each chain; other
//! tables have their own say.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::InetHookNumber;

use super::Network;
use super::elements::{ADDRESSES, CONNECTIONS, HOPS, PAIRS, SEEKERS, TENANTS};
use super::link::PORTS;
use super::rule::{Connection, DESTINATION, ETHER_SOURCE, Rule, SOURCE};
use super::ruleset::{At, Chain, Ruleset};

/// `ICMP_REDIRECT` and `ICMP_ECHO`.
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
/// Connections that a VPS may have at a time, those that are over and still remembered included. The kernel remembers 65,536
/// or more in all, and as many share the host's address towards one server: a VPS comes near neither.
const SHARE: u32 = 4096;
/// How many neighbours of the host's, on the networks that it is on itself, a VPS may begin to send to: a second, and at
/// once. Each takes a place in a table of 1024 (`gc_thresh3`) for seconds, whether it is there or not. A gateway is one.
const NEIGHBOURS: (u64, u32) = (8, 64);

/// The firewall proper.
pub(super) fn rules(network: &Network) -> Ruleset<'_> {
    Ruleset {
        network,
        family: NetfilterProtoFamily::Inet,
        sets: &[TENANTS, ADDRESSES, PAIRS, CONNECTIONS, HOPS, SEEKERS],
        chains: chains(network),
    }
}

/// The gate, which needs the bridge to be there.
pub(super) fn gate(network: &Network) -> Ruleset<'_> {
    let open = Chain {
        name: "gate",
        kind: "filter",
        at: At::Interface(network.bridge.clone()),
        priority: 0,
        rules: vec![Rule::new().for_us()],
    };
    Ruleset {
        network,
        family: NetfilterProtoFamily::NetDev,
        sets: &[],
        chains: vec![open],
    }
}

fn filter(name: &'static str, hook: InetHookNumber, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        kind: "filter",
        at: At::Ip(hook),
        priority,
        rules,
    }
}

/// The rules, in the order in which a packet meets them.
fn chains(network: &Network) -> Vec<Chain> {
    let bridge = network.bridge.as_str();
    let antispoof = vec![
        Rule::new().in_group(PORTS).drop(),
        Rule::new().not_from(bridge).accept(),
        Rule::new()
            .ethernet()
            .ipv4()
            .in_set(&[ETHER_SOURCE, SOURCE], TENANTS.name)
            .accept(),
        Rule::new().drop(),
    ];
    let share = vec![
        Rule::new()
            .from(bridge)
            .connection(Connection::New)
            .ipv4()
            .beyond(SHARE, SOURCE, CONNECTIONS.name)
            .drop(),
    ];
    let input = vec![
        Rule::new().not_from(bridge).accept(),
        Rule::new().connection(Connection::Established).accept(),
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
    use InetHookNumber as Hook;
    vec![
        // Before reassembly (-400), so that no forged fragment joins another's packet, and before connection tracking (-200).
        filter("antispoof", Hook::PreRouting, -450, antispoof),
        // After connection tracking.
        filter("share", Hook::PreRouting, -150, share),
        filter("input", Hook::LocalIn, 0, input),
        filter("forward", Hook::Forward, 0, forward(bridge)),
        filter("deliver", Hook::PostRouting, 0, deliver),
        Chain {
            name: "masquerade",
            kind: "nat",
            at: At::Ip(Hook::PostRouting),
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
    let outside = || Rule::new().from(bridge).not_to(bridge).leaving_ethernet().ipv4();
    rules.extend([
        outside().next_hop_in_set(SOURCE, HOPS.name).accept(),
        outside().oftener(NEIGHBOURS, SOURCE, SEEKERS.name).drop(),
        outside().enter_next_hop(SOURCE, HOPS.name),
        Rule::new().not_to(bridge).accept(),
        Rule::new().connection(Connection::Known).accept(),
        Rule::new()
            .connection(Connection::New)
            .ipv4()
            .beyond(SHARE, DESTINATION, CONNECTIONS.name)
            .drop(),
        Rule::new().connection(Connection::Redirected).accept(),
        Rule::new().drop(),
    ]);
    rules
}
