//! Published ports, firewalls and bandwidth of VPSs by IPv6, with real packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use condo::net::filter::{Action, Filter};
use condo::net::{Kind, Network, Port, ipam};

use super::doors::{filter, greet, hears, is_closed, provide};
use super::room::{Ears, Room, Vps, host_with_ipv6};
use super::wire;
use crate::harness;

tests![
    a_port_is_published_by_ipv6 in guest,
    datagrams_and_ranges_go_by_ipv6,
    loopback_is_refused_at_once_by_ipv6,
    a_firewall_holds_for_ipv6 in guest,
    the_outside_reaches_routed_addresses,
];

const PATIENCE: Duration = Duration::from_secs(20);
/// The host outside, and who calls from there.
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const CALLER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The host on its network.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, 1);

fn with_outside() -> Result<(Network, Room)> {
    let network = host_with_ipv6()?;
    let world = wire([&format!("{HOST}/64"), &format!("{CALLER}/64")])?;
    Ok((network, world))
}

/// A VPS on a routed network of its own, the `number`th, with these addresses.
fn routed(number: u8, subnet6: &str) -> Result<Vps> {
    let subnet = format!("10.18{number}.0.0/24").parse()?;
    let network = Network {
        kind: Kind::Routed,
        subnet6: Some(subnet6.parse()?),
        ..Network::new(&format!("condo{number}"), "condo", subnet)
    };
    network.ensure()?;
    let port = Port::new(10 + u32::from(number), Ipv4Addr::new(10, 180 + number, 0, 2));
    let port = Port {
        address6: Some(ipam::derived6(subnet6.parse()?, port.mac)),
        ..port
    };
    let room = Room::new()?;
    network.attach(&port, room.fd())?;
    let ears = room.run(Ears::open)?;
    Ok(Vps { port, room, ears })
}

/// Those of a network that the host is on itself it answers for; others are led to it by routes of the outside's.
fn the_outside_reaches_routed_addresses() -> Result<()> {
    needs!(root, ip);
    let nat = host_with_ipv6()?;
    let world = wire([&format!("{HOST}/48"), &format!("{CALLER}/48")])?;
    let hidden = Vps::with_ipv6(&nat, 2)?;
    let (near, far) = (routed(1, "2001:db8:0:5::/64")?, routed(2, "2001:db8:9:5::/64")?);
    for led in ["2001:db8:9:5::/64", "fd00:1:2:3::/64"] {
        let line = format!("-6 route add {led} via {HOST}");
        world.run(|| harness::run(Command::new("ip").args(line.split(' '))).map(drop))?;
    }
    for vps in [&hidden, &near, &far] {
        greet(vps, 80)?;
    }
    for vps in [&near, &far] {
        let is_reached = || world.run(|| hears((vps.ip6(), 80), &format!("80 {CALLER}")));
        is_reached()?;
        provide(vps, &[], &filter(Action::Deny, &["allow in tcp 81"]))?;
        world.run(|| is_closed((vps.ip6(), 80)))?;
        provide(vps, &[], &Filter::default())?;
        is_reached()?;
        hidden.room.run(|| is_closed((vps.ip6(), 80)))?;
    }
    near.room.run(|| is_closed((far.ip6(), 80)))?;
    world.run(|| is_closed((hidden.ip6(), 80)))
}

fn a_port_is_published_by_ipv6() -> Result<()> {
    needs!(root, ip);
    let (network, world) = with_outside()?;
    let (a, b) = (Vps::with_ipv6(&network, 2)?, Vps::with_ipv6(&network, 3)?);
    greet(&a, 80)?;
    // Without an address it is both families.
    provide(&a, &["8080:80", "[2001:db8::2]:8081:80"], &Filter::default())?;
    for port in [8080, 8081] {
        world.run(|| hears((HOST, port), &format!("80 {CALLER}")))?;
        hears((HOST, port), &format!("80 {HOST}"))?;
        // A neighbour, who may not talk to it, comes as itself.
        b.room.run(|| hears((HOST, port), &format!("80 {}", b.ip6())))?;
    }
    hears((network.gateway(), 8080), &format!("80 {}", network.gateway()))?;
    hears((GATEWAY, 8080), &format!("80 {GATEWAY}"))?;
    b.room
        .run(|| hears((GATEWAY, 8080), &format!("80 {}", b.ip6())))?;
    // Itself, which can only be under the host's address.
    a.room.run(|| hears((HOST, 8080), &format!("80 {GATEWAY}")))?;
    is_closed((GATEWAY, 8081))?;
    b.room.run(|| is_closed((a.ip6(), 80)))?;
    world.run(|| is_closed((HOST, 80)))
}

fn datagrams_and_ranges_go_by_ipv6() -> Result<()> {
    needs!(root, ip);
    let (network, world) = with_outside()?;
    let a = Vps::with_ipv6(&network, 2)?;
    for port in [5000, 5999, 90] {
        greet(&a, port)?;
    }
    let published = ["5000-5999:5000-5999", "7000-7009:90-99", "53:5353/udp"];
    provide(&a, &published, &Filter::default())?;
    for (port, inside) in [(5000, 5000), (5999, 5999), (7000, 90)] {
        world.run(|| hears((HOST, port), &format!("{inside} {CALLER}")))?;
    }
    world.run(|| is_closed((HOST, 6000)))?;
    let socket = a.room.run(|| Ok(UdpSocket::bind("[::]:5353")?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let caller = world.run(|| Ok(UdpSocket::bind("[::]:0")?))?;
    caller.set_read_timeout(Some(PATIENCE))?;
    // Connected: an answer from another address than the published one would not come.
    caller.connect((HOST, 53))?;
    caller.send(b"who?")?;
    let mut buffer = [0; 32];
    let (length, from) = socket.recv_from(&mut buffer)?;
    ensure!(
        &buffer[..length] == b"who?" && from.ip() == IpAddr::from(CALLER),
        "{from}"
    );
    socket.send_to(b"you", from)?;
    let length = caller.recv(&mut buffer)?;
    ensure!(&buffer[..length] == b"you");
    Ok(())
}

/// The kernel takes no answer for `::1` from another interface than `lo`. Who asks there is told so at once, and goes on to 127.0.0.1
/// or finds a program of the host.
fn loopback_is_refused_at_once_by_ipv6() -> Result<()> {
    needs!(root);
    let network = host_with_ipv6()?;
    let a = Vps::with_ipv6(&network, 2)?;
    greet(&a, 80)?;
    provide(&a, &["8080:80", "9000-9999:9000-9999"], &Filter::default())?;
    for port in [8080, 9090] {
        let refused = std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port));
        let kind = refused.map(drop).map_err(|e| e.kind());
        ensure!(
            kind == Err(std::io::ErrorKind::ConnectionRefused),
            "port {port}: {kind:?}"
        );
    }
    let own = TcpListener::bind((Ipv6Addr::LOCALHOST, 8080))?;
    std::net::TcpStream::connect(own.local_addr()?)?;
    hears((Ipv4Addr::LOCALHOST, 8080), &format!("80 {}", network.gateway()))
}

fn a_firewall_holds_for_ipv6() -> Result<()> {
    needs!(root, ip);
    let (network, world) = with_outside()?;
    let (a, b) = (Vps::with_ipv6(&network, 2)?, Vps::with_ipv6(&network, 3)?);
    network.allow(&[(a.ip6().into(), b.ip6().into())])?;
    for port in [80, 81] {
        greet(&a, port)?;
        greet(&b, port)?;
    }
    let published = ["8080:80", "8081:81"];
    let rules = |rules: &[&str], policy| provide(&a, &published, &filter(policy, rules));
    rules(&["allow in tcp 80 from 2001:db8::/64"], Action::Deny)?;
    world.run(|| hears((HOST, 8080), &format!("80 {CALLER}")))?;
    world.run(|| is_closed((HOST, 8081)))?;
    b.room.run(|| is_closed((a.ip6(), 80)))?;
    // What it begins itself is answered, and neighbours are found whatever the policy.
    a.room.run(|| hears((b.ip6(), 81), &format!("81 {}", a.ip6())))?;
    let from_b = format!("allow in tcp 80-81 from {}/128", b.ip6());
    rules(&[&from_b], Action::Deny)?;
    b.room.run(|| hears((a.ip6(), 81), &format!("81 {}", b.ip6())))?;
    world.run(|| is_closed((HOST, 8081)))?;
    // A rule about IPv4 says nothing about IPv6, and one about neither holds for both.
    rules(
        &["deny in tcp 80 from 0.0.0.0/0", "deny in tcp 81"],
        Action::Allow,
    )?;
    world.run(|| hears((HOST, 8080), &format!("80 {CALLER}")))?;
    world.run(|| is_closed((HOST, 8081)))?;
    // The other way.
    let to_b = format!("deny out tcp 80 to {}/128", b.ip6());
    rules(&[&to_b], Action::Allow)?;
    a.room.run(|| is_closed((b.ip6(), 80)))?;
    a.room.run(|| hears((b.ip6(), 81), &format!("81 {}", a.ip6())))
}
