//! Published ports and firewalls of VPSs, with real packets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use condo::net::filter::{Action, Filter, FilterRule};
use condo::net::publication::Publication;
use condo::net::{Network, Services, meter};

use super::frame::udp;
use super::outside;
use super::room::{Room, Vps, host, mac, unfence};
use crate::harness;
use crate::vps::house::eventually;

tests![
    a_published_port_is_reached_from_everywhere in guest,
    ranges_and_datagrams_are_published,
    a_port_taken_back_is_closed in guest,
    neighbours_come_by_the_published_address_as_themselves,
    a_firewall_decides_who_comes_in in guest,
    a_firewall_decides_what_goes_out,
    a_denied_connection_stops_at_once,
    a_thousand_firewalls_cost_a_packet_nothing,
    loopback_of_the_host_is_out_of_reach in guest,
    forged_sources_count_as_their_senders,
];

const PATIENCE: Duration = Duration::from_secs(5);
/// How long to look for what must not come.
const GLANCE: Duration = Duration::from_millis(500);

pub(crate) fn publications(texts: &[&str]) -> Vec<Publication> {
    texts
        .iter()
        .map(|text| text.parse().expect("a publication"))
        .collect()
}

pub(crate) fn filter(policy_in: Action, rules: &[&str]) -> Filter {
    Filter {
        incoming: policy_in,
        outgoing: Action::Allow,
        rules: rules.iter().map(|text| rule(text)).collect(),
    }
}

/// `allow in tcp 80 from 10.0.0.0/8`, with `-` for no port.
fn rule(text: &str) -> FilterRule {
    let words: Vec<&str> = text.split(' ').collect();
    let named = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        Some(words[at + 1].parse().expect("a network"))
    };
    FilterRule {
        action: words[0].parse().expect("an action"),
        direction: words[1].parse().expect("a direction"),
        protocol: words[2].parse().expect("a protocol"),
        ports: Some(words[3])
            .filter(|w| *w != "-")
            .map(|w| w.parse().expect("ports")),
        from: named("from"),
        to: named("to"),
        log: words.contains(&"log"),
    }
}

/// Puts in force what a VPS has of the host.
pub(crate) fn provide(vps: &Vps, published: &[&str], filter: &Filter) -> Result<()> {
    Ok(with(vps, &publications(published), filter, |s| s.provide())?)
}

fn with<T>(
    vps: &Vps,
    published: &[Publication],
    filter: &Filter,
    work: impl FnOnce(&Services<'_>) -> T,
) -> T {
    work(&Services {
        table: "condo",
        label: &vps.port.host_if,
        name: "web",
        addresses: &vps.port.addresses().collect::<Vec<_>>(),
        publications: published,
        filter,
    })
}

/// Answers each caller at a port of the VPS with the caller's address as the VPS sees it.
pub(crate) fn greet(vps: &Vps, port: u16) -> Result<()> {
    // Both families.
    let listener = vps
        .room
        .run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let seen = stream
                .peer_addr()
                .map(|a| a.ip().to_canonical().to_string())
                .unwrap_or_default();
            let _ = stream.write_all(format!("{port} {seen}").as_bytes());
        }
    });
    Ok(())
}

/// What is said at a place; nothing when nobody answers.
fn call(place: SocketAddr, patience: Duration) -> Result<Option<String>> {
    let Ok(mut stream) = TcpStream::connect_timeout(&place, patience) else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(patience))?;
    let mut said = String::new();
    match stream.read_to_string(&mut said) {
        Ok(_) => Ok(Some(said)),
        Err(_) => Ok(None),
    }
}

pub(crate) fn hears(place: impl Into<SocketAddr>, expected: &str) -> Result<()> {
    let place = place.into();
    let mut said = None;
    // A link that has just come up may have no route yet.
    eventually("an answer", || {
        said = call(place, PATIENCE)?;
        Ok(said.is_some())
    })
    .with_context(|| format!("{place:?} is to say {expected}"))?;
    ensure!(
        said.as_deref() == Some(expected),
        "{place:?} says {said:?} instead of {expected}"
    );
    Ok(())
}

pub(crate) fn is_closed(place: impl Into<SocketAddr>) -> Result<()> {
    let place = place.into();
    let said = call(place, GLANCE)?;
    ensure!(said.is_none(), "{place:?} says {said:?}");
    Ok(())
}

/// The host with an uplink, whose address outside is 203.0.113.9.
fn with_outside() -> Result<(Network, Room, Ipv4Addr)> {
    let network = host()?;
    let (room, _, uplink) = outside()?;
    Ok((network, room, uplink.address))
}

fn a_published_port_is_reached_from_everywhere() -> Result<()> {
    needs!(root);
    let (network, world, uplink) = with_outside()?;
    let a = Vps::new(&network, 2)?;
    greet(&a, 80)?;
    provide(&a, &["8080:80", "127.0.0.1:8081:80"], &Filter::default())?;
    // The source is kept, from outside and from the host.
    world.run(|| hears((uplink, 8080), "80 203.0.113.1"))?;
    hears((uplink, 8080), &format!("80 {uplink}"))?;
    hears((network.gateway(), 8080), &format!("80 {}", network.gateway()))?;
    // From loopback it cannot be.
    hears((Ipv4Addr::LOCALHOST, 8080), &format!("80 {}", network.gateway()))?;
    hears((Ipv4Addr::LOCALHOST, 8081), &format!("80 {}", network.gateway()))?;
    world.run(|| is_closed((uplink, 8081)))?;
    world.run(|| is_closed((uplink, 80)))
}

fn ranges_and_datagrams_are_published() -> Result<()> {
    needs!(root, nft);
    let (network, world, uplink) = with_outside()?;
    let a = Vps::new(&network, 2)?;
    for port in [5000, 5999, 90] {
        greet(&a, port)?;
    }
    provide(
        &a,
        &["5000-5999:5000-5999", "7000-7009:90-99", "53:5353/udp"],
        &Filter::default(),
    )?;
    for (port, inside) in [(5000, 5000), (5999, 5999), (7000, 90)] {
        world.run(|| hears((uplink, port), &format!("{inside} 203.0.113.1")))?;
    }
    world.run(|| is_closed((uplink, 6000)))?;
    // One element for a range that stays where it is.
    let listed = harness::run(Command::new("nft").args(["list", "map", "inet", "condo", "halls"]))?;
    ensure!(listed.matches("5000-5999").count() == 1, "{listed}");
    let socket = a.room.run(|| Ok(UdpSocket::bind("0.0.0.0:5353")?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let answer = world.run(|| {
        let caller = UdpSocket::bind("0.0.0.0:0")?;
        caller.set_read_timeout(Some(PATIENCE))?;
        caller.connect((uplink, 53))?;
        caller.send(b"who?")?;
        let mut buffer = [0; 32];
        let (length, from) = socket.recv_from(&mut buffer)?;
        ensure!(
            &buffer[..length] == b"who?" && from.ip() == IpAddr::from([203, 0, 113, 1]),
            "{from}"
        );
        socket.send_to(b"you", from)?;
        // Connected: an answer from another address than the published one would not come.
        let length = caller.recv(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    })?;
    ensure!(answer == b"you");
    Ok(())
}

fn a_port_taken_back_is_closed() -> Result<()> {
    needs!(root, nft);
    let (network, world, uplink) = with_outside()?;
    let a = Vps::new(&network, 2)?;
    greet(&a, 80)?;
    let (all, open) = (
        publications(&["8080:80", "8081:80", "90-99:90-99"]),
        Filter::default(),
    );
    with(&a, &all, &open, |s| s.provide())?;
    // Again, as after somebody flushed half of it.
    with(&a, &all, &open, |s| s.provide())?;
    with(&a, &all[1..], &open, |s| s.close(&all[..1]))?;
    world.run(|| is_closed((uplink, 8080)))?;
    world.run(|| hears((uplink, 8081), "80 203.0.113.1"))?;
    with(&a, &all[1..], &filter(Action::Deny, &["deny out any -"]), |s| {
        s.provide()
    })?;
    with(&a, &all[1..], &open, |s| s.withdraw())?;
    with(&a, &all[1..], &open, |s| s.withdraw())?;
    world.run(|| is_closed((uplink, 8081)))?;
    let table = harness::run(Command::new("nft").args(["list", "table", "inet", "condo"]))?;
    for left in ["8081", "90-99", "in-vc2", "out-vc2"] {
        ensure!(!table.contains(left), "{left} is left: {table}");
    }
    Ok(())
}

fn neighbours_come_by_the_published_address_as_themselves() -> Result<()> {
    needs!(root);
    let (network, _world, uplink) = with_outside()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    greet(&a, 80)?;
    provide(&a, &["8080:80"], &Filter::default())?;
    ensure!(b.reaches(network.gateway())?);
    b.room.run(|| hears((uplink, 8080), &format!("80 {}", b.ip())))?;
    b.room
        .run(|| hears((network.gateway(), 8080), &format!("80 {}", b.ip())))?;
    b.room.run(|| is_closed((a.ip(), 80)))?;
    // Itself, which can only be under the host's address.
    a.room
        .run(|| hears((uplink, 8080), &format!("80 {}", network.gateway())))?;
    // Past its owner's firewall nobody comes, by whichever address.
    let but_b = filter(Action::Allow, &[&format!("deny in tcp 80 from {}", b.ip())]);
    provide(&a, &["8080:80"], &but_b)?;
    b.room.run(|| is_closed((uplink, 8080)))?;
    b.room.run(|| is_closed((network.gateway(), 8080)))?;
    a.room
        .run(|| hears((uplink, 8080), &format!("80 {}", network.gateway())))
}

fn a_firewall_decides_who_comes_in() -> Result<()> {
    needs!(root);
    let (network, world, uplink) = with_outside()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    for port in [80, 81] {
        greet(&a, port)?;
        greet(&b, port)?;
    }
    let published = ["8080:80", "8081:81"];
    let from_b = format!("allow in tcp 80-81 from {}", b.ip());
    provide(
        &a,
        &published,
        &filter(Action::Deny, &[&from_b, "allow in tcp 80", "allow in icmp -"]),
    )?;
    world.run(|| hears((uplink, 8080), "80 203.0.113.1"))?;
    world.run(|| is_closed((uplink, 8081)))?;
    is_closed((a.ip(), 81))?;
    ensure!(b.reaches(a.ip())?, "ping is let in");
    b.room.run(|| hears((a.ip(), 81), &format!("81 {}", b.ip())))?;
    // What it begins itself is answered.
    a.room.run(|| hears((b.ip(), 81), &format!("81 {}", a.ip())))?;
    ensure!(a.reaches(network.gateway())?);
    // The first rule that fits decides.
    provide(
        &a,
        &published,
        &filter(
            Action::Allow,
            &["deny in tcp - from 203.0.113.0/24", "allow in any -"],
        ),
    )?;
    world.run(|| is_closed((uplink, 8080)))?;
    b.room.run(|| hears((a.ip(), 80), &format!("80 {}", b.ip())))?;
    // None: all is as before.
    provide(&a, &published, &Filter::default())?;
    world.run(|| hears((uplink, 8081), "81 203.0.113.1"))
}

fn a_firewall_decides_what_goes_out() -> Result<()> {
    needs!(root, nft);
    let (network, _world, uplink) = with_outside()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let outside = Ipv4Addr::new(203, 0, 113, 1);
    greet(&b, 80)?;
    provide(&b, &["8080:80"], &Filter::default())?;
    let greeting = format!("80 {}", a.ip());
    a.room.run(|| hears((uplink, 8080), &greeting))?;
    ensure!(a.reaches(outside)?);
    let rules = [
        &format!("deny out icmp - to {outside}/32 log"),
        &format!("deny out tcp 8080 to {uplink}/32"),
    ];
    provide(&a, &[], &filter(Action::Allow, &rules.map(String::as_str)))?;
    ensure!(!a.glimpses(outside)?, "a ping gets out");
    ensure!(a.reaches(network.gateway())?);
    // It is about the address that the VPS sends to, whatever that leads to.
    a.room.run(|| is_closed((uplink, 8080)))?;
    a.room.run(|| hears((network.gateway(), 8080), &greeting))?;
    let chain = harness::run(Command::new("nft").args(["list", "chain", "inet", "condo", "out-vc2"]))?;
    ensure!(
        chain.contains(r#"log prefix "condo web 1 out deny: ""#),
        "{chain}"
    );
    let closed = Filter {
        outgoing: Action::Deny,
        ..Filter::default()
    };
    provide(&a, &[], &closed)?;
    ensure!(!a.glimpses(network.gateway())?);
    // It is still reached, and answers.
    ensure!(super::ping(a.ip(), PATIENCE)?);
    Ok(())
}

fn a_denied_connection_stops_at_once() -> Result<()> {
    needs!(root);
    let (network, world, uplink) = with_outside()?;
    let a = Vps::new(&network, 2)?;
    let listener = a.room.run(|| Ok(TcpListener::bind("0.0.0.0:80")?))?;
    provide(&a, &["8080:80"], &Filter::default())?;
    let mut caller = world.run(|| Ok(TcpStream::connect((uplink, 8080))?))?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 1];
    caller.write_all(b"1")?;
    server.read_exact(&mut buffer)?;
    // A change that does not concern it changes nothing for it.
    provide(&a, &["8080:80"], &filter(Action::Deny, &["allow in tcp 80"]))?;
    caller.write_all(b"2")?;
    server
        .read_exact(&mut buffer)
        .context("an allowed connection was cut")?;
    provide(&a, &["8080:80"], &filter(Action::Deny, &[]))?;
    caller.write_all(b"3")?;
    server.set_read_timeout(Some(GLANCE))?;
    ensure!(server.read(&mut buffer).is_err(), "a denied connection goes on");
    Ok(())
}

/// Rules of others are in chains of theirs, which no packet of this VPS goes through.
fn a_thousand_firewalls_cost_a_packet_nothing() -> Result<()> {
    needs!(root, nft);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let rules = filter(Action::Deny, &["allow in tcp 80", "allow in icmp -"]);
    for n in 0..1000_u32 {
        let address = IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 171, 1, 0)) + n));
        let services = Services {
            table: "condo",
            label: &format!("x{n}"),
            name: "other",
            addresses: &[address],
            publications: &[],
            filter: &rules,
        };
        services.provide()?;
    }
    let rules = harness::run(Command::new("nft").args(["list", "chain", "inet", "condo", "arriving"]))?;
    ensure!(rules.lines().count() < 12, "{rules}");
    ensure!(network.stands()?, "the table is taken for a damaged one");
    ensure!(a.reaches(network.gateway())?);
    Ok(())
}

/// CVE-2020-8558: published ports at 127.0.0.1 need `route_localnet`.
fn loopback_of_the_host_is_out_of_reach() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let service = UdpSocket::bind("127.0.0.1:9")?;
    service.set_nonblocking(true)?;
    let forged = udp(
        (a.port.mac, mac("condo0")?),
        a.ip(),
        Ipv4Addr::LOCALHOST,
        "forged",
    );
    let unheard = || -> Result<()> {
        a.inject(&forged)?;
        ensure!(a.reaches(network.gateway())?);
        ensure!(
            service.recv(&mut [0; 16]).is_err(),
            "the host's loopback hears a VPS"
        );
        Ok(())
    };
    unheard()?;
    // Without the fence there is still the rule.
    unfence(&a.port.host_if)?;
    unheard().context("without the fence")
}

fn forged_sources_count_as_their_senders() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let sent = |vps: &Vps| -> Result<u64> {
        let readings = meter::read(std::slice::from_ref(&vps.port.host_if))?;
        Ok(readings.iter().map(|reading| reading.outgoing.packets).sum())
    };
    ensure!(a.reaches(network.gateway())? && b.reaches(network.gateway())?);
    let before = (sent(&a)?, sent(&b)?);
    let forged = udp((b.port.mac, mac("condo0")?), b.ip(), network.gateway(), "forged");
    a.flood((0..100).map(|_| forged.clone()))?;
    ensure!(a.reaches(network.gateway())?);
    // It sends some itself.
    ensure!(sent(&b)? < before.1 + 50, "{} of another", sent(&b)? - before.1);
    ensure!(sent(&a)? >= before.0 + 100);
    Ok(())
}
