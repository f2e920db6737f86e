//! By the network: frames past the fence, tables that are shared, and what is left when somebody takes the firewall away.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness;
use crate::net::frame::{ARP_REPLY, ARP_REQUEST, BROADCAST, Mac};
use crate::net::frame::{
    arp, carries, datagram, discovery, ip6, tagged, too_long, udp, udp_ports, with_option,
};
use crate::net::nft;
use crate::net::room::{Ears, Room, Vps, address, host, host_with_ipv6, mac, strip};
use condo::net::Network;
use condo::sys::bpf::interface::Side;

tests![
    frames_past_the_bridge_reach_nobody in guest,
    what_is_no_plain_packet_is_dropped in guest,
    invented_senders_leave_no_neighbours in guest,
    a_search_for_neighbours_of_the_host_is_bounded in guest,
    one_vps_leaves_connections_for_others in guest,
    a_forged_icmp_is_not_believed in guest,
    a_flush_of_all_rules_opens_nothing in guest,
    a_port_without_its_fence_reaches_nothing in guest,
    the_next_tenant_gets_no_packets_of_the_last in guest,
    forged_ipv6_reaches_nobody in guest,
];

/// Groups that a bridge does not forward but hands to the host, as input of the port.
fn link_local() -> impl Iterator<Item = Mac> {
    (0..16).map(|last| [0x01, 0x80, 0xc2, 0, 0, last])
}

/// A service of the host at the port that forged frames are sent to.
fn service() -> Result<UdpSocket> {
    let service = UdpSocket::bind("0.0.0.0:9")?;
    service.set_nonblocking(true)?;
    Ok(service)
}

fn unheard(service: &UdpSocket) -> Result<()> {
    let mut heard = [0; 64];
    match service.recv_from(&mut heard) {
        Ok((length, from)) => anyhow::bail!(
            "the host's service heard `{}` from {from}",
            String::from_utf8_lossy(&heard[..length])
        ),
        Err(_) => Ok(()),
    }
}

fn frames_past_the_bridge_reach_nobody() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let service = service()?;
    ensure!(a.reaches(network.gateway())? && b.reaches(network.gateway())?);
    for to in link_local() {
        for from in [a.ip(), b.ip(), Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::LOCALHOST] {
            a.inject(&udp((a.port.mac, to), from, network.gateway(), "forged"))?;
        }
        a.inject(&udp((a.port.mac, to), a.ip(), b.ip(), "forged"))?;
        a.inject(&udp((a.port.mac, to), a.ip(), Ipv4Addr::LOCALHOST, "forged"))?;
    }
    // What came before this was seen by the host before this was.
    ensure!(a.reaches(network.gateway())?);
    unheard(&service)?;
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"the end", (b.ip(), 9))?;
    let heard = b.ears.until("the end")?;
    ensure!(
        !heard.iter().any(|f| carries(f, "forged")),
        "a neighbour heard it"
    );
    Ok(())
}

fn what_is_no_plain_packet_is_dropped() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    ensure!(a.reaches(b.ip())?);
    let macs = (a.port.mac, mac("condo0")?);
    let honest = || udp(macs, a.ip(), b.ip(), "forged");
    for frame in [
        tagged(honest(), [0x81, 0], 0),
        tagged(honest(), [0x81, 0], 7),
        tagged(honest(), [0x88, 0xa8], 7),
        tagged(tagged(honest(), [0x81, 0], 7), [0x81, 0], 0),
        with_option(honest()),
        udp(macs, a.ip(), Ipv4Addr::new(224, 0, 0, 1), "forged"),
        udp((a.port.mac, BROADCAST), a.ip(), Ipv4Addr::BROADCAST, "forged"),
        honest()[..20].to_vec(),
    ] {
        a.inject(&frame)?;
    }
    a.inject(&udp(macs, a.ip(), b.ip(), "honest"))?;
    let heard = b.ears.until("honest")?;
    ensure!(!heard.iter().any(|f| carries(f, "forged")), "one came through");
    // The host's own IP saw none of them either: it would have counted them.
    Ok(())
}

/// The host's neighbours and routes.
fn known6() -> Result<String> {
    let ask = |what: &str| harness::run(Command::new("ip").args(["-6", what, "show"]));
    Ok(ask("neigh")? + &ask("route")?)
}

/// The fragment header (RFC 8200, section 4.5) of what is 16 bytes into a UDP datagram, and the rest of it.
const FRAGMENT: &[u8] = &[
    17, 0, 0, 16, 0, 0, 0, 7, b'f', b'o', b'r', b'g', b'e', b'd', b'.', b'.',
];

/// What a VPS sends in the name of others, and past the gateway.
fn in_other_names(a: &Vps, b: &Vps, c: &Vps) -> Result<Vec<Vec<u8>>> {
    let (gateway, own) = (mac("condo0")?, a.port.mac);
    let all: Mac = [0x33, 0x33, 0, 0, 0, 1];
    let group: Ipv6Addr = "ff02::1".parse()?;
    let link_local: Ipv6Addr = "fe80::1".parse()?;
    let host: Ipv6Addr = "fd00:1:2:3::1".parse()?;
    let text = || datagram("forged");
    Ok(vec![
        // Sources of others, of the host, of nobody and of the link.
        ip6((own, gateway), (c.ip6(), b.ip6()), 17, &text()),
        ip6((c.port.mac, gateway), (c.ip6(), b.ip6()), 17, &text()),
        ip6((own, gateway), (host, b.ip6()), 17, &text()),
        ip6((own, gateway), (Ipv6Addr::UNSPECIFIED, b.ip6()), 17, &text()),
        ip6((own, gateway), (link_local, b.ip6()), 17, &text()),
        // Past the gateway, and to groups.
        ip6((own, b.port.mac), (a.ip6(), b.ip6()), 17, &text()),
        ip6((own, all), (a.ip6(), group), 17, &text()),
        ip6((own, gateway), (a.ip6(), group), 17, &text()),
        ip6((own, gateway), (a.ip6(), link_local), 17, &text()),
        // A later fragment, in another's name and for the neighbour itself.
        ip6((own, gateway), (c.ip6(), b.ip6()), 44, FRAGMENT),
        ip6((own, b.port.mac), (a.ip6(), b.ip6()), 44, FRAGMENT),
        // An extension header for routers.
        ip6(
            (own, gateway),
            (a.ip6(), b.ip6()),
            0,
            &[17, 0, 1, 4, 0, 0, 0, 0, b'f', b'o', b'r', b'g', b'e', b'd'],
        ),
    ])
}

/// What a VPS sends that is for routers and neighbours to say.
fn in_a_routers_name(a: &Vps, b: &Vps) -> Result<Vec<Vec<u8>>> {
    let (gateway, own) = (mac("condo0")?, a.port.mac);
    let all: Mac = [0x33, 0x33, 0, 0, 0, 1];
    let groups: [Ipv6Addr; 2] = ["ff02::1".parse()?, "ff02::2".parse()?];
    let link_local: Ipv6Addr = "fe80::1".parse()?;
    let host: Ipv6Addr = "fd00:1:2:3::1".parse()?;
    Ok(vec![
        // Advertisements of a router and of neighbours, and a redirect: to all, to the gateway, to the neighbour.
        ip6(
            (own, all),
            (link_local, groups[0]),
            58,
            &discovery(134, link_local, own, "forged"),
        ),
        ip6(
            (own, gateway),
            (a.ip6(), b.ip6()),
            58,
            &discovery(134, link_local, own, "forged"),
        ),
        ip6(
            (own, all),
            (a.ip6(), groups[0]),
            58,
            &discovery(136, b.ip6(), own, "forged"),
        ),
        ip6(
            (own, gateway),
            (a.ip6(), host),
            58,
            &discovery(136, b.ip6(), own, "forged"),
        ),
        ip6(
            (own, b.port.mac),
            (link_local, b.ip6()),
            58,
            &discovery(136, link_local, own, "forged"),
        ),
        ip6(
            (own, gateway),
            (a.ip6(), b.ip6()),
            58,
            &discovery(137, host, own, "forged"),
        ),
        ip6(
            (own, all),
            (a.ip6(), groups[1]),
            58,
            &discovery(133, host, own, "forged"),
        ),
        ip6(
            (own, all),
            (link_local, groups[0]),
            58,
            &discovery(135, b.ip6(), own, "forged"),
        ),
    ])
}

fn forged_ipv6_reaches_nobody() -> Result<()> {
    needs!(root, ip);
    let network = host_with_ipv6()?;
    let [a, b, c] = [
        Vps::with_ipv6(&network, 2)?,
        Vps::with_ipv6(&network, 3)?,
        Vps::with_ipv6(&network, 4)?,
    ];
    network.allow(&[(a.ip6().into(), b.ip6().into()), (c.ip6().into(), b.ip6().into())])?;
    ensure!(a.is_heard_by(&b, Duration::from_secs(20))? && c.is_heard_by(&b, Duration::from_secs(20))?);
    let (gateway, own) = (mac("condo0")?, a.port.mac);
    let before = known6()?;
    let forged = in_other_names(&a, &b, &c)?;
    for frame in forged.into_iter().chain(in_a_routers_name(&a, &b)?) {
        a.inject(&frame)?;
    }
    a.inject(&ip6((own, gateway), (a.ip6(), b.ip6()), 17, &datagram("honest")))?;
    let heard = b.ears.until("honest")?;
    ensure!(
        !heard.iter().any(|f| carries(f, "forged")),
        "a neighbour heard it"
    );
    ensure!(known6()? == before, "the host believes it: {}", known6()?);
    ensure!(a.is_heard_by(&b, Duration::from_secs(20))? && c.is_heard_by(&b, Duration::from_secs(20))?);
    Ok(())
}

fn neighbours() -> Result<usize> {
    Ok(std::fs::read_to_string("/proc/thread-self/net/arp")?
        .lines()
        .count())
}

fn invented_senders_leave_no_neighbours() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    ensure!(a.reaches(network.gateway())?);
    let before = neighbours()?;
    let (own, gateway) = (a.port.mac, mac("condo0")?);
    let bridge = (gateway, network.gateway());
    a.flood((0..200).flat_map(|n| {
        let invented = Ipv4Addr::new(10, 171, 9, n);
        let claims = [BROADCAST, gateway, [0x01, 0x80, 0xc2, 0, 0, 0]].map(|to| {
            [
                arp((own, to), ARP_REQUEST, (own, invented), bridge),
                arp((own, to), ARP_REPLY, (own, invented), bridge),
                arp((own, to), ARP_REQUEST, ([2, 9, 9, 9, 9, n], a.ip()), bridge),
            ]
        });
        // Nor do those that it looks for.
        let sought = udp((own, gateway), a.ip(), invented, "who is there");
        claims.into_iter().flatten().chain([sought])
    }))?;
    ensure!(a.reaches(network.gateway())?);
    ensure!(
        neighbours()? == before,
        "{} neighbours, {before} before",
        neighbours()?
    );
    Ok(())
}

fn a_search_for_neighbours_of_the_host_is_bounded() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let world = internet()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let resolver = resolver(&world)?;
    ensure!(a.room.run(|| is_answered(resolver))?);
    let before = neighbours()?;
    let macs = (a.port.mac, mac("condo0")?);
    let absent = (1..=2).flat_map(|c| (1..=250).map(move |d| Ipv4Addr::new(198, 51, 100 + c, d)));
    a.flood(absent.map(|to| udp(macs, a.ip(), to, "who is there")))?;
    ensure!(
        a.room.run(|| is_answered(resolver))?,
        "whom it knows it still reaches"
    );
    ensure!(b.room.run(|| is_answered(resolver))? && is_answered(resolver)?);
    let new = neighbours()? - before;
    ensure!((20..200).contains(&new), "{new} new neighbours");
    Ok(())
}

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A network behind this host's `eth0` with a server in it: nothing between them but a wire.
fn internet() -> Result<Room> {
    let world = Room::new()?;
    let fd = world.fd().as_raw_fd();
    let ip = |line: &str| harness::run(Command::new("ip").args(line.split(' '))).map(drop);
    let peer = format!("/proc/{}/fd/{fd}", std::process::id());
    ip(&format!("link add eth0 type veth peer name eth0 netns {peer}"))?;
    ip(&format!("addr add {HOST}/16 dev eth0"))?;
    ip("link set eth0 up")?;
    world.run(|| {
        ip(&format!("addr add {SERVER}/16 dev eth0"))?;
        ip("link set eth0 up")
    })?;
    Ok(world)
}

/// Answers questions in the outside world.
fn resolver(world: &Room) -> Result<SocketAddrV4> {
    let socket = world.run(|| Ok(UdpSocket::bind((SERVER, 53))?))?;
    std::thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if &question[..length] == b"answer" {
                let _ = socket.send_to(b"here", from);
            }
        }
    });
    Ok(SocketAddrV4::new(SERVER, 53))
}

/// Whether somebody in this namespace gets an answer, given several attempts.
fn is_answered(resolver: SocketAddrV4) -> Result<bool> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    for _ in 0..10 {
        socket.send_to(b"answer", resolver)?;
        if socket.recv_from(&mut [0; 16]).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn one_vps_leaves_connections_for_others() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let world = internet()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let resolver = resolver(&world)?;
    ensure!(a.room.run(|| is_answered(resolver))? && b.room.run(|| is_answered(resolver))?);
    // What nobody answers is forgotten after half a minute, and a slow machine takes longer for all of it.
    std::fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "600")?;
    // Every port to which the host could translate.
    let question = udp((a.port.mac, mac("condo0")?), a.ip(), SERVER, "x");
    a.flood((1024..=u16::MAX).map(|port| udp_ports(question.clone(), port, 53)))?;
    let ears = Ears::open()?;
    a.inject(&udp((a.port.mac, mac("condo0")?), a.ip(), SERVER, "the last"))?;
    ears.until("the last")?;
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
    let count: u32 = count.trim().parse()?;
    ensure!((4000..4200).contains(&count), "{count} connections");
    ensure!(
        b.room.run(|| is_answered(resolver))?,
        "a neighbour gets no answer"
    );
    ensure!(is_answered(resolver)?, "the host gets no answer");
    Ok(())
}

fn a_forged_icmp_is_not_believed() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let world = internet()?;
    let a = Vps::new(&network, 2)?;
    let resolver = resolver(&world)?;
    ensure!(is_answered(resolver)? && a.reaches(network.gateway())?);
    // A conversation of the host's, which the attacker has guessed.
    let socket = UdpSocket::bind((HOST, 4000))?;
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.send(b"answer")?;
    socket.recv(&mut [0; 16])?;
    let sent = (SocketAddrV4::new(HOST, 4000), resolver);
    let macs = (a.port.mac, mac("condo0")?);
    for target in [HOST, network.gateway()] {
        a.inject(&too_long(macs, (a.ip(), target), sent, 600))?;
    }
    ensure!(a.reaches(network.gateway())?);
    let route = harness::run(Command::new("ip").args(["route", "get", &SERVER.to_string()]))?;
    ensure!(!route.contains("mtu"), "the host's path has changed: {route}");
    Ok(())
}

fn a_flush_of_all_rules_opens_nothing() -> Result<()> {
    needs!(root, nft, tc);
    let network = host()?;
    let (a, b, c) = (
        Vps::new(&network, 2)?,
        Vps::new(&network, 3)?,
        Vps::new(&network, 4)?,
    );
    network.allow(&[(a.ip().into(), c.ip().into())])?;
    let service = service()?;
    ensure!(a.reaches(network.gateway())? && b.reaches(network.gateway())? && a.reaches(c.ip())?);
    ensure!(network.stands()?);
    strip("condo0", &[Side::In, Side::Out])?;
    ensure!(!network.stands()?, "the bridge without its fence is not noticed");
    network.ensure()?;
    for wreck in [
        &["flush ruleset"][..],
        &["flush table inet condo", "flush table netdev condo0"],
        &["delete table netdev condo0"],
        &["delete table inet condo"],
    ] {
        nft(&[&wreck.join("; ")])?;
        ensure!(!network.stands()?, "`{wreck:?}` is not noticed");
        knock(&network, &a, &b)?;
        unheard(&service)?;
        network.restore(
            &[a.port.clone(), b.port.clone(), c.port.clone()],
            &[(a.ip().into(), c.ip().into())],
        )?;
        ensure!(network.stands()?);
        ensure!(
            a.reaches(network.gateway())? && a.reaches(c.ip())?,
            "not all is back"
        );
        unheard(&service)?;
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"the end", (b.ip(), 9))?;
        let heard = b.ears.until("the end")?;
        ensure!(!heard.iter().any(|f| carries(f, "knock")), "a neighbour heard it");
    }
    Ok(())
}

/// Sends what no rule stands against now, and waits until the host has seen the last of it.
fn knock(network: &Network, a: &Vps, b: &Vps) -> Result<()> {
    let ears = Ears::open()?;
    let macs = (a.port.mac, mac("condo0")?);
    for to in [network.gateway(), b.ip(), Ipv4Addr::LOCALHOST] {
        for from in [a.ip(), b.ip(), Ipv4Addr::new(8, 8, 8, 8)] {
            a.inject(&udp(macs, from, to, "knock"))?;
        }
    }
    a.inject(&udp(macs, a.ip(), network.gateway(), "knock for the last time"))?;
    ears.until("for the last time").map(drop)
}

fn a_port_without_its_fence_reaches_nothing() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let service = service()?;
    ensure!(a.reaches(network.gateway())?);
    strip(&a.port.host_if, &[Side::In])?;
    for to in link_local() {
        a.inject(&udp((a.port.mac, to), a.ip(), network.gateway(), "forged"))?;
    }
    ensure!(
        !a.glimpses(network.gateway())?,
        "a port without its fence leads somewhere"
    );
    network.restore(std::slice::from_ref(&a.port), &[])?;
    ensure!(a.reaches(network.gateway())?);
    unheard(&service)
}

fn the_next_tenant_gets_no_packets_of_the_last() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let world = internet()?;
    // Among many connections, those of one address are looked for in another way.
    [0, 7000]
        .into_iter()
        .try_for_each(|others| inherits_nothing(&network, &world, others))
}

fn inherits_nothing(network: &Network, world: &Room, others: u16) -> Result<()> {
    let a = Vps::new(network, 2)?;
    // Each time another: the host may remember who answered by the last one.
    let (from, to) = (4000 + others, 4001 + others);
    ensure!(a.reaches(SERVER)?);
    let server = world.run(|| Ok(UdpSocket::bind((SERVER, 53))?))?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    a.room.run(|| {
        let client = UdpSocket::bind((address(2), from))?;
        client.send_to(b"hello", (SERVER, 53))?;
        server.recv_from(&mut [0; 16]).context("the first packet")?;
        // An answer makes it a connection that packets belong to.
        server.send_to(b"hello", (HOST, from))?;
        client.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(client.recv(&mut [0; 16]).map(drop)?)
    })?;
    // And one of the host's with the tenant.
    let host = UdpSocket::bind((network.gateway(), to))?;
    host.send_to(b"hello", (a.ip(), 9))?;
    a.ears.until("hello")?;
    let known = || -> Result<String> {
        Ok(std::fs::read_to_string(
            "/proc/sys/net/netfilter/nf_conntrack_count",
        )?)
    };
    ensure!(known()?.trim() != "0");
    for port in 0..others {
        host.send_to(b"hello", (network.gateway(), 20_000 + port))?;
    }
    network.detach(&a.port)?;
    condo::net::forget(&[a.ip().into()])?;
    let next = Vps::new(network, 2)?;
    ensure!(next.reaches(network.gateway())?);
    server.send_to(b"late", (HOST, from))?;
    // The same way, after it.
    ensure!(next.reaches(SERVER)?);
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"the end", (next.ip(), 9))?;
    let heard = next.ears.until("the end")?;
    ensure!(
        !heard.iter().any(|f| carries(f, "late")),
        "the next tenant heard it"
    );
    network.detach(&next.port)?;
    Ok(())
}
