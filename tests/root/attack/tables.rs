//! Tables of the network that no limit counts as memory.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail, ensure};
use nix::net::if_::if_nametoindex;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::memory::{attack, attack_below};
use super::program::{Arg, Entry, run};
use crate::vps::house::House;

tests![tables_of_the_network_end_at_a_budget in guest];

/// What a VPS of 64M may have them take is 64 MiB: all but the last is spent by queues of traffic, at a megabyte each.
const QUEUES: usize = 63;
/// What a neighbour is charged with, how many the last megabyte is for, and when an attack that gets through stops.
const NEIGHBOURS: usize = (1 << 20) / 512;
const ENOUGH: usize = NEIGHBOURS + 500;

// Requests, and flags of theirs: REQUEST, ACK, CREATE.
const NEW_QUEUE: u16 = 36;
const NEW_NEIGHBOUR: u16 = 28;
const NEW_ROUTE: u16 = 24;
const NEW_NEXT_HOP: u16 = 104;
const GET_LINK: u16 = 18;
const FLAGS: u16 = 1 | 4 | 0x400;

fn tables_of_the_network_end_at_a_budget() -> Result<()> {
    needs!(root, table_programs);
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.running("router", "--memory 64M --permit large-tables")?;
    ensure!(forbidden(&house, "web")?.is_empty(), "nothing is spent yet");
    let (made, free) = (
        attack(&house, "web", "tables")?,
        attack(&house, "router", "tables")?,
    );
    ensure!(
        made.is_some_and(|n| n > 1000 && n <= NEIGHBOURS),
        "{made:?} neighbours of {NEIGHBOURS}"
    );
    ensure!(free == Some(ENOUGH), "{free:?} of a router's {ENOUGH}");
    ensure!(forbidden(&house, "router")?.is_empty(), "a router's are free");
    let all = [
        "arp",
        "arp of 32 bits",
        "multicast routes",
        "multicast routes of 32 bits",
    ];
    let found = forbidden(&house, "web")?;
    ensure!(found == all, "only {found:?} are bounded");
    // Cgroups that a tenant makes are the VPS's.
    let below = attack_below(&house, "web", "tables")?;
    ensure!(below == Some(0), "{below:?} in a cgroup below");
    house.ok("restart web")?;
    ensure!(forbidden(&house, "web")?.is_empty(), "a new start begins anew");
    house.leave()
}

/// Which ways beside netlink end with `ENOSPC`.
fn forbidden(house: &House, name: &str) -> Result<Vec<&'static str>> {
    let datagram = [2, 2, 0].map(Arg::Number);
    let multicast = [2, 3, 2].map(Arg::Number);
    let neighbour = [Arg::First, Arg::Number(0x8955), Arg::Data(0)];
    let route = [
        Arg::First,
        Arg::Number(0),
        Arg::Number(204),
        Arg::Data(0),
        Arg::Number(60),
    ];
    let ways = [
        ("arp", Entry::Wide, [(41, &datagram[..]), (16, &neighbour[..])]),
        (
            "arp of 32 bits",
            Entry::Narrow,
            [(359, &datagram[..]), (54, &neighbour[..])],
        ),
        (
            "multicast routes",
            Entry::Wide,
            [(41, &multicast[..]), (54, &route[..])],
        ),
        (
            "multicast routes of 32 bits",
            Entry::Narrow,
            [(359, &multicast[..]), (366, &route[..])],
        ),
    ];
    let mut found = Vec::new();
    for (way, entry, calls) in ways {
        if run(house, name, entry, &calls, &[0; 15])? == Errno::NOSPC.raw_os_error() {
            found.push(way);
        }
    }
    Ok(found)
}

/// As a process of a VPS, spends all there is on queues and neighbours, and then tries everything else. Returns how many neighbours
/// were made.
pub(super) fn spend() -> Result<usize> {
    let route = open(None)?;
    let queue = message(NEW_QUEUE, &[0; 20]);
    let queues = (0..QUEUES)
        .filter(|_| ask(&route, &queue) != Err(Errno::NOSPC))
        .count();
    let index = if_nametoindex("eth0")?;
    let mut made = 0;
    while made < ENOUGH {
        match ask(&route, &neighbour(2, index, made)) {
            Ok(()) => made += 1,
            Err(Errno::NOSPC) => break,
            Err(e) => bail!("neighbour {made}: {e}"),
        }
    }
    let is_free = made == ENOUGH;
    ensure!(queues == QUEUES || made == 0, "only {queues} queues");
    let (ipsec, generic) = (open(Some(netlink::XFRM))?, open(Some(netlink::GENERIC))?);
    let others = bounded(index);
    let mut tries: Vec<_> = others
        .iter()
        .map(|(what, request)| (*what, &route, request))
        .collect();
    let (association, peers) = (message(0x10, &[0; 224]), message(30, &[0; 100]));
    tries.push(("association", &ipsec, &association));
    tries.push(("peers", &generic, &peers));
    for (what, socket, request) in tries {
        let refused = ask(socket, request) == Err(Errno::NOSPC);
        ensure!(refused != is_free, "{what}: refused is {refused}");
    }
    for (what, kind, body) in [
        ("interface", 16, [0; 20]),
        ("address", 20, [0; 20]),
        ("route", NEW_ROUTE, [2; 20]),
        ("rule", 32, [0; 20]),
        ("question", GET_LINK, [0; 20]),
        ("removal", NEW_NEIGHBOUR + 1, [0; 20]),
    ] {
        let done = ask(&route, &message(kind, &body));
        ensure!(done != Err(Errno::NOSPC), "{what} is refused");
    }
    Ok(made)
}

/// One of everything that has a bound.
fn bounded(index: u32) -> Vec<(&'static str, Vec<u8>)> {
    let family = |family: u8, kind: u16, length: usize| {
        let mut body = vec![0; length];
        body[0] = family;
        message(kind, &body)
    };
    let question = message(GET_LINK, &[0; 16]);
    vec![
        ("entry of a bridge", neighbour(7, index, 0)),
        ("neighbour of IPv6", neighbour(10, index, 0)),
        ("next hop", family(2, NEW_NEXT_HOP, 16)),
        ("group of next hops", family(0, NEW_NEXT_HOP, 16)),
        ("queue", message(NEW_QUEUE, &[0; 20])),
        ("class", message(40, &[0; 20])),
        ("filter", message(44, &[0; 20])),
        ("action", message(48, &[0; 20])),
        ("label", message(72, &[0; 20])),
        ("multicast group", message(84, &[0; 20])),
        ("chain", message(100, &[0; 20])),
        ("VLANs of a port", family(7, 19, 16)),
        ("multicast route", family(128, NEW_ROUTE, 12)),
        ("route of many hops", family(2, NEW_ROUTE, 200)),
        (
            "neighbour behind a question",
            [question.clone(), neighbour(2, index, 0)].concat(),
        ),
        (
            "neighbour behind many",
            [question.repeat(300), neighbour(2, index, 0)].concat(),
        ),
    ]
}

/// `struct ndmsg` for a permanent one, its address and that of the link.
fn neighbour(family: u8, index: u32, number: usize) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(0x80_u32.to_le_bytes());
    body.extend([8, 0, 1, 0, 10, 200]);
    body.extend((number as u16).to_be_bytes());
    body.extend([10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
    message(NEW_NEIGHBOUR, &body)
}

/// `struct nlmsghdr` and what follows it.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut all = (16 + body.len() as u32).to_ne_bytes().to_vec();
    all.extend([kind.to_ne_bytes(), FLAGS.to_ne_bytes()].concat());
    all.extend([0; 8]);
    all.extend(body);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

fn open(protocol: Option<Protocol>) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        protocol,
    )?)
}

/// The error of sending it, or the one that is answered first.
fn ask(socket: &OwnedFd, request: &[u8]) -> rustix::io::Result<()> {
    send(socket, request, SendFlags::empty())?;
    let mut answer = [0; 8192];
    let mut first = None;
    // All that was answered is there when the sender goes on.
    while let Ok((n, _)) = recv(socket, &mut answer, RecvFlags::DONTWAIT) {
        let error = answer[..n].get(16..20).and_then(|bytes| bytes.try_into().ok());
        first = first.or(error.map(i32::from_ne_bytes));
    }
    match first {
        Some(error) if error < 0 => Err(Errno::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}
