//! Published ports: the host's that lead to a VPS, one element each, whether one port or a range.
//!
//! ```text
//! publish   prerouting   from anywhere, neighbours of the VPS included, to an address of this host:
//! reach     output       from the host itself to one of its own, but for ::1 (the kernel takes no answer for it from elsewhere):
//!                        (address . protocol . port) in @doors, (protocol . port) in @doors_any: there, with its port
//!                        (address . protocol . port) in @halls, ranges: there, with the port it has
//! return    postrouting  from a VPS to itself (@selves) and from the host's loopback: under the host's address, for the
//!                        answer would not find its way else; all others keep theirs
//! ```

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_netfilter::nftables::InetHookNumber as Hook;

use super::map::{self, Element, Family, Leads, Map, PORT, PROTOCOL, To};
use super::netlink::Entry;
use super::publication::Publication;
use super::rule::{Connection, Rule};
use super::ruleset::{At, Chain};
use super::set::address_key;

/// What one family has.
struct Maps {
    /// Single ports of one address of the host.
    doors: Map,
    /// Single ports of all its addresses.
    any: Map,
    /// Ranges that lead to the same ports.
    halls: Map,
    /// VPSs that may reach themselves by a published port.
    selves: Map,
}

const fn maps(family: Family, names: [&'static str; 4], ranges: &'static [u32]) -> Maps {
    let (kind, length) = (family.kind(), family.length());
    let ported = Leads::Value(kind << 6 | PORT, length + 4);
    let keyed = (kind << 12 | PROTOCOL << 6 | PORT, length + 8);
    Maps {
        doors: plain(names[0], keyed, ported),
        any: plain(names[1], (PROTOCOL << 6 | PORT, 8), ported),
        halls: Map {
            ranges,
            ..plain(names[2], keyed, Leads::Value(kind, length))
        },
        selves: plain(names[3], (kind << 6 | kind, length * 2), Leads::Nowhere),
    }
}

const fn plain(name: &'static str, (kind, length): (u32, u32), leads: Leads) -> Map {
    Map {
        name,
        kind,
        length,
        leads,
        ranges: &[],
    }
}

const V4: Maps = maps(Family::V4, ["doors", "doors_any", "halls", "selves"], &[4, 1, 2]);
const V6: Maps = maps(
    Family::V6,
    ["doors6", "doors6_any", "halls6", "selves6"],
    &[16, 1, 2],
);

fn of(family: Family) -> &'static Maps {
    match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    }
}

/// All maps.
pub(super) const MAPS: [Map; 8] = [
    V4.doors, V4.any, V4.halls, V4.selves, V6.doors, V6.any, V6.halls, V6.selves,
];

/// The chains that ask them.
pub(super) fn chains() -> Vec<Chain> {
    let nat = |name: &str, hook, priority, rules| Chain {
        name: name.to_owned(),
        kind: "nat",
        at: At::Ip(hook),
        priority,
        rules,
    };
    vec![
        nat("publish", Hook::PreRouting, -100, redirections()),
        nat("reach", Hook::LocalOut, -100, from_here()),
        // Before the network's own masquerading.
        nat("return", Hook::PostRouting, 90, returns()),
    ]
}

fn redirections() -> Vec<Rule> {
    let by_family = |family: Family| {
        let (maps, destination) = (of(family), [family.destination()]);
        let rule = || Rule::new().of(family).for_this_host();
        [
            rule().redirect(family, &destination, &maps.doors, true),
            rule().redirect(family, &[], &maps.any, true),
            rule().redirect(family, &destination, &maps.halls, false),
        ]
    };
    Family::ALL.into_iter().flat_map(by_family).collect()
}

/// Who asks at `::1` is to be refused at once, and not to wait for an answer that the kernel drops.
fn from_here() -> Vec<Rule> {
    let loopback = Ipv6Addr::LOCALHOST.octets();
    let mut rules = vec![
        Rule::new()
            .of(Family::V6)
            .is(Family::V6.destination(), &loopback)
            .accept(),
    ];
    rules.extend(redirections());
    rules
}

fn returns() -> Vec<Rule> {
    let itself = |family: Family| {
        let fields = [family.source(), family.destination()];
        Rule::new()
            .of(family)
            .among(&fields, &of(family).selves)
            .masquerade()
    };
    let mut rules: Vec<Rule> = Family::ALL.into_iter().map(itself).collect();
    if let Ok(loopback) = "127.0.0.0/8".parse() {
        rules.push(
            Rule::new()
                .of(Family::V4)
                .in_network(Family::V4.source(), loopback)
                .connection(Connection::Redirected)
                .masquerade(),
        );
    }
    rules
}

/// The elements of a VPS with these addresses and publications, by the map that each belongs in.
fn elements(addresses: &[IpAddr], publications: &[Publication]) -> Vec<(&'static Map, Vec<Element>)> {
    let mut found = Vec::new();
    for family in Family::ALL {
        // The first of a family is the one that others know.
        let Some(address) = addresses.iter().find(|a| Family::of(**a) == family) else {
            continue;
        };
        let maps = of(family);
        let mut sorted: [Vec<Element>; 3] = Default::default();
        for publication in publications {
            let door = &publication.door;
            if door.host.is_some_and(|host| Family::of(host) != family) {
                continue;
            }
            let same = door.first == publication.to;
            if door.first < door.last && same {
                sorted[2].push(hall(family, *address, publication));
                continue;
            }
            let place = if door.host.is_some() { 0 } else { 1 };
            sorted[place].extend((door.first..=door.last).zip(publication.to..).map(|(from, to)| {
                Element {
                    key: [
                        door.host.map(address_key).unwrap_or_default(),
                        service(publication, from),
                    ]
                    .concat(),
                    end: None,
                    to: To::Value([address_key(*address), padded(to)].concat()),
                }
            }));
        }
        let [doors, any, halls] = sorted;
        if !publications.is_empty() {
            let own = address_key(*address);
            let itself = Element {
                key: [own.clone(), own].concat(),
                end: None,
                to: To::Nowhere,
            };
            found.push((&maps.selves, vec![itself]));
        }
        found.extend([(&maps.doors, doors), (&maps.any, any), (&maps.halls, halls)]);
    }
    found
}

/// A range; of all addresses of the host where it names none.
fn hall(family: Family, address: IpAddr, publication: &Publication) -> Element {
    let door = &publication.door;
    let length = family.length() as usize;
    let (lowest, highest) = match door.host {
        Some(host) => (address_key(host), address_key(host)),
        None => (vec![0; length], vec![0xff; length]),
    };
    Element {
        key: [lowest, service(publication, door.first)].concat(),
        end: Some([highest, service(publication, door.last)].concat()),
        to: To::Value(address_key(address)),
    }
}

/// Protocol and port, each in a register of its own.
fn service(publication: &Publication, port: u16) -> Vec<u8> {
    [padded_byte(publication.door.transport.number()), padded(port)].concat()
}

fn padded_byte(byte: u8) -> Vec<u8> {
    vec![byte, 0, 0, 0]
}

fn padded(port: u16) -> Vec<u8> {
    let [a, b] = port.to_be_bytes();
    vec![a, b, 0, 0]
}

/// The messages that open what is published.
pub(super) fn open(table: &str, addresses: &[IpAddr], publications: &[Publication]) -> Vec<Entry> {
    let all = elements(addresses, publications);
    all.iter()
        .flat_map(|(map, some)| map::add(table, map, some))
        .collect()
}

/// The messages that close it.
pub(super) fn close(table: &str, addresses: &[IpAddr], publications: &[Publication]) -> Vec<Entry> {
    let all = elements(addresses, publications);
    all.iter()
        .flat_map(|(map, some)| map::remove(table, map, some))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(publications: &[&str]) -> Vec<(&'static str, usize)> {
        let addresses = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let publications: Vec<_> = publications.iter().map(|text| text.parse().unwrap()).collect();
        elements(&addresses, &publications)
            .into_iter()
            .filter(|(_, some)| !some.is_empty())
            .map(|(map, some)| (map.name, some.len()))
            .collect()
    }

    #[test]
    fn there_is_one_element_for_a_port_or_a_range() {
        assert!(counts(&[]).is_empty());
        assert_eq!(
            counts(&["8080:80", "127.0.0.1:22:22", "5000-9000:5000-9000/udp"]),
            [
                ("selves", 1),
                ("doors", 1),
                ("doors_any", 1),
                ("halls", 1),
                ("selves6", 1),
                ("doors6_any", 1),
                ("halls6", 1)
            ]
        );
        // A range that is moved has as many as it has ports.
        assert_eq!(
            counts(&["[::1]:8000-8009:80-89"]),
            [("selves", 1), ("selves6", 1), ("doors6", 10)]
        );
    }

    #[test]
    fn keys_are_as_long_as_the_maps_say() {
        let addresses = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let texts = [
            "80:80",
            "10.0.0.1:81:80",
            "[::1]:82:80",
            "90-99:90-99",
            "[::1]:100-110:100-110",
        ];
        let publications: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for (map, some) in elements(&addresses, &publications) {
            for element in some {
                assert_eq!(element.key.len(), map.length as usize, "{}", map.name);
                assert!(element.end.is_none_or(|end| end.len() == map.length as usize));
                match (map.leads, element.to) {
                    (Leads::Value(_, length), To::Value(value)) => assert_eq!(value.len(), length as usize),
                    (Leads::Nowhere, To::Nowhere) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
