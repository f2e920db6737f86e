//! The network with real packets, in network namespaces that each test makes for itself.

pub mod doors;
pub mod doors6;
pub mod frame;
pub mod others;
pub mod room;
pub mod shape;
pub mod shortcut;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use condo::error::Error;
use condo::net::{Network, Port, link_exists, routes};
use condo::sys::bpf::interface::Side;

use frame::{ARP_REPLY, ARP_REQUEST, BROADCAST, arp, carries, fragment, udp, udp6};
use room::{Ears, Room, Vps, address, host, host_with_ipv6, mac, ping, strip};

tests![
    vpss_talk_only_where_allowed in guest,
    the_outside_sees_the_host,
    the_outside_cannot_reach_in,
    forged_sources_do_not_get_through in guest,
    nobody_becomes_another_by_arp in guest,
    nobody_becomes_an_absent_address_by_arp,
    services_of_the_host_are_closed in guest,
    setting_up_at_once_is_safe,
    attach_and_detach_leave_nothing in guest,
    a_failed_attach_leaves_nothing,
    a_late_failure_undoes_all,
    a_stale_port_is_replaced,
    an_address_belongs_to_one,
    names_of_others_are_not_taken,
    foreign_rules_stay,
    flushed_rules_come_back in guest,
    dhcp_tells_what_it_has in guest,
    fragments_of_one_leave_room_for_others,
    dhcp_options_come_in_any_order in guest,
    the_first_packet_arrives in guest,
    ipv6_is_for_those_who_may in guest,
    the_outside_sees_the_host_by_ipv6,
    an_isolated_network_has_no_way_out,
    a_bridge_of_the_operators_has_ports,
    a_routed_address_is_answered_for,
    more_than_a_bridge_has_ports: 90,
    ports_of_an_older_version_move_over in guest,
    disconnected_ports_go_together,
];

const PATIENCE: Duration = Duration::from_secs(20);

fn vpss_talk_only_where_allowed() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    ensure!(a.reaches(network.gateway())?, "the gateway answers");
    ensure!(ping(a.ip(), PATIENCE)?, "the host reaches a VPS");
    ensure!(!a.glimpses(b.ip())?, "strangers do not talk");
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    ensure!(a.reaches(b.ip())? && b.reaches(a.ip())?, "friends do, both ways");
    network.disallow(&[(b.ip().into(), a.ip().into())])?;
    ensure!(!a.glimpses(b.ip())?, "and stop when told");
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    network.detach(&b.port)?;
    let c = Vps::new(&network, 3)?;
    ensure!(a.reaches(network.gateway())?);
    ensure!(
        !a.glimpses(c.ip())?,
        "the next holder of an address does not inherit its friends"
    );
    Ok(())
}

/// The outside world is a network of its own whose only tenant is our host: the host gets an uplink `eth0`, and the
/// outside's own guard against forged addresses lets only the host's address in.
pub(crate) fn outside() -> Result<(Room, Network, Port)> {
    let world = Network::new("world0", "world", "203.0.113.0/24".parse()?);
    let uplink = Port::new(900, Ipv4Addr::new(203, 0, 113, 9));
    let (room, here) = (Room::new()?, Room::here()?);
    room.run(|| {
        condo::sys::interface::set_loopback_up()?;
        world.ensure()?;
        Ok(world.attach(&uplink, here.fd())?)
    })?;
    Ok((room, world, uplink))
}

fn the_outside_sees_the_host() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (room, world, uplink) = outside()?;
    let a = Vps::new(&network, 2)?;
    let ears = room.run(Ears::open)?;
    ensure!(a.reaches(world.gateway())?, "the outside answers");
    a.say(world.gateway(), "from within")?;
    let heard = ears.until("from within")?;
    let from = heard.last().and_then(|f| frame::source(f));
    ensure!(from == Some(uplink.address), "the outside sees {from:?}");
    Ok(())
}

fn the_outside_cannot_reach_in() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (room, world, uplink) = outside()?;
    let a = Vps::new(&network, 2)?;
    // A link that has just come up may lose frames: first see that it works.
    ensure!(a.reaches(world.gateway())?);
    let macs = (room.run(|| mac("world0"))?, uplink.mac);
    room.run(|| room::inject("world0", &udp(macs, world.gateway(), a.ip(), "let me in")))?;
    // The same way with an answer that is waited for: it comes after whatever came before.
    ensure!(a.reaches(world.gateway())?);
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"the end", (a.ip(), 9))?;
    let heard = a.ears.until("the end")?;
    ensure!(
        !heard.iter().any(|f| carries(f, "let me in")),
        "a packet from outside came through"
    );
    Ok(())
}

fn forged_sources_do_not_get_through() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b, c) = (
        Vps::new(&network, 2)?,
        Vps::new(&network, 3)?,
        Vps::new(&network, 4)?,
    );
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    network.allow(&[(c.ip().into(), b.ip().into())])?;
    ensure!(a.reaches(b.ip())? && c.reaches(b.ip())?);
    let gateway = mac("condo0")?;
    let (own, other) = ((a.port.mac, gateway), (c.port.mac, gateway));
    let unknown = ([2, 9, 9, 9, 9, 9], gateway);
    for frame in [
        udp(own, c.ip(), b.ip(), "forged"),
        udp(other, c.ip(), b.ip(), "forged"),
        udp(other, a.ip(), b.ip(), "forged"),
        udp(unknown, a.ip(), b.ip(), "forged"),
        udp(own, network.gateway(), b.ip(), "forged"),
        udp(own, Ipv4Addr::UNSPECIFIED, b.ip(), "forged"),
        udp(own, Ipv4Addr::new(8, 8, 8, 8), b.ip(), "forged"),
        // Past the host, straight to the neighbour, even between friends.
        udp((a.port.mac, b.port.mac), a.ip(), b.ip(), "forged"),
        udp((a.port.mac, BROADCAST), a.ip(), b.ip(), "forged"),
        udp6((a.port.mac, [0x33, 0x33, 0, 0, 0, 1]), "forged"),
    ] {
        a.inject(&frame)?;
    }
    // A forged end for the honest beginning of another's packet.
    c.inject(&fragment(udp(other, c.ip(), b.ip(), "01234567"), 0, true))?;
    a.inject(&fragment(udp(own, c.ip(), b.ip(), "forged.."), 2, false))?;
    a.inject(&udp(own, a.ip(), b.ip(), "honest"))?;
    let heard = b.ears.until("honest")?;
    let forged: Vec<_> = heard.iter().filter(|f| carries(f, "forged")).collect();
    ensure!(forged.is_empty(), "came through: {forged:02x?}");
    Ok(())
}

fn nobody_becomes_another_by_arp() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    ensure!(b.reaches(network.gateway())? && a.reaches(network.gateway())?);
    claim(&a, &network, b.ip())?;
    claim(&a, &network, network.gateway())?;
    // The claims were read before this ping's answer was sent.
    ensure!(a.reaches(network.gateway())?);
    let host = UdpSocket::bind("0.0.0.0:0")?;
    host.send_to(b"for b alone", (b.ip(), 9))?;
    b.ears.until("for b alone")?;
    b.say(network.gateway(), "to the gateway")?;
    host.send_to(b"the end", (a.ip(), 9))?;
    let heard = a.ears.until("the end")?;
    ensure!(
        !heard
            .iter()
            .any(|f| carries(f, "for b alone") || carries(f, "to the gateway"))
    );
    ensure!(
        b.reaches(network.gateway())? && b.reaches(a.ip())?,
        "the robbed still talks"
    );
    Ok(())
}

fn nobody_becomes_an_absent_address_by_arp() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    ensure!(a.reaches(network.gateway())?);
    let absent = address(77);
    claim(&a, &network, absent)?;
    ensure!(a.reaches(network.gateway())?);
    let host = UdpSocket::bind("0.0.0.0:0")?;
    for _ in 0..3 {
        // The host may refuse to send at all.
        let _ = host.send_to(b"for nobody", (absent, 9));
    }
    host.send_to(b"the end", (a.ip(), 9))?;
    let heard = a.ears.until("the end")?;
    ensure!(!heard.iter().any(|f| carries(f, "for nobody")));
    Ok(())
}

/// Claims an address by every ARP packet that is known to impress somebody.
fn claim(thief: &Vps, network: &Network, address: Ipv4Addr) -> Result<()> {
    let (own, gateway) = (thief.port.mac, mac("condo0")?);
    let (as_thief, nobody) = ((own, address), [0; 6]);
    for frame in [
        arp((own, BROADCAST), ARP_REQUEST, as_thief, (nobody, address)),
        arp((own, BROADCAST), ARP_REPLY, as_thief, (BROADCAST, address)),
        arp((own, gateway), ARP_REPLY, as_thief, (gateway, network.gateway())),
        arp(
            (own, BROADCAST),
            ARP_REQUEST,
            as_thief,
            (nobody, network.gateway()),
        ),
        arp((own, gateway), ARP_REQUEST, as_thief, (nobody, network.gateway())),
    ] {
        thief.inject(&frame)?;
    }
    Ok(())
}

fn services_of_the_host_are_closed() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let stream = TcpListener::bind("0.0.0.0:0")?;
    let datagram = UdpSocket::bind("0.0.0.0:9")?;
    datagram.set_nonblocking(true)?;
    let door = (network.gateway(), stream.local_addr()?.port()).into();
    let connected = a
        .room
        .run(|| Ok(TcpStream::connect_timeout(&door, Duration::from_millis(700)).is_ok()))?;
    ensure!(!connected, "a VPS connected to a service of the host");
    a.say(network.gateway(), "knock")?;
    ensure!(a.reaches(network.gateway())?, "ping is answered");
    let heard = datagram.recv_from(&mut [0; 16]);
    ensure!(heard.is_err(), "a VPS's datagram reached the host");
    // The other way round is the host's own business, answers included.
    let (address, tcp) = a.room.run(|| {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        Ok(((a.ip(), listener.local_addr()?.port()), listener))
    })?;
    TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    drop(tcp);
    Ok(())
}

fn setting_up_at_once_is_safe() -> Result<()> {
    needs!(root);
    let network = host()?;
    for _ in 0..5 {
        network.remove()?;
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        network.ensure()
                    })
                })
                .collect();
            all.into_iter().try_for_each(|t| t.join().expect("a thread"))
        })?;
    }
    let together = ruleset();
    network.remove()?;
    network.ensure()?;
    ensure!(
        ruleset() == together,
        "four times is not the same as once: {together:?}"
    );
    let a = Vps::new(&network, 2)?;
    ensure!(a.reaches(network.gateway())?);
    Ok(())
}

/// What attaching could leave behind.
#[derive(Debug, PartialEq)]
struct Traces {
    links: BTreeSet<String>,
    neighbours: String,
    routes: Vec<String>,
    rules: Option<String>,
}

fn traces() -> Result<Traces> {
    Ok(Traces {
        links: nix::ifaddrs::getifaddrs()?.map(|i| i.interface_name).collect(),
        neighbours: std::fs::read_to_string("/proc/thread-self/net/arp")?,
        routes: routes()?.iter().map(ToString::to_string).collect(),
        rules: ruleset(),
    })
}

/// What nft(8) says, where there is one, without packet counts and handles.
fn ruleset() -> Option<String> {
    let output = Command::new("nft")
        .args(["-s", "list", "ruleset"])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn attach_and_detach_leave_nothing() -> Result<()> {
    needs!(root);
    let network = host()?;
    let before = traces()?;
    for round in 0..50 {
        let a = Vps::new(&network, 2)?;
        network.allow(&[(a.ip().into(), address(9).into())])?;
        if round == 0 {
            ensure!(traces()? != before, "an attached VPS leaves traces");
        }
        network.detach(&a.port)?;
    }
    let port = Port::new(2, address(2));
    network.detach(&port)?;
    ensure!(traces()? == before, "left: {:?}\nbefore: {before:?}", traces()?);
    network.remove()?;
    network.remove()?;
    network.detach(&port)?;
    ensure!(!link_exists("condo0")?);
    ensure!(ruleset().is_none_or(|r| !r.contains("condo")));
    Ok(())
}

fn a_failed_attach_leaves_nothing() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let before = traces()?;
    // The namespace has an eth0 already.
    ensure!(network.attach(&Port::new(3, address(3)), a.room.fd()).is_err());
    ensure!(traces()? == before, "left: {:?}\nbefore: {before:?}", traces()?);
    for wrong in [network.gateway(), Ipv4Addr::new(10, 172, 0, 2)] {
        let refused = network.attach(&Port::new(3, wrong), a.room.fd());
        ensure!(
            matches!(refused.as_ref().map_err(Error::root), Err(Error::Invalid { .. })),
            "{refused:?}"
        );
    }
    ensure!(traces()? == before);
    Ok(())
}

fn a_late_failure_undoes_all() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let (room, port) = (Room::new()?, Port::new(2, address(2)));
    // The last step inside the namespace fails: there is a default route already.
    room.run(|| {
        condo::sys::interface::set_loopback_up()?;
        let output = Command::new("ip")
            .args(["route", "add", "default", "dev", "lo"])
            .output()?;
        ensure!(output.status.success());
        Ok(())
    })?;
    let before = traces()?;
    ensure!(network.attach(&port, room.fd()).is_err());
    ensure!(traces()? == before, "left: {:?}\nbefore: {before:?}", traces()?);
    ensure!(
        !room.run(|| Ok(link_exists("eth0")?))?,
        "the VPS's end is gone, too"
    );
    Ok(())
}

fn a_stale_port_is_replaced() -> Result<()> {
    needs!(root);
    let network = host()?;
    let dead = Vps::new(&network, 2)?;
    let b = Vps::new(&network, 3)?;
    // Nobody detached the first: its namespace lives on, as that of a process that will not die.
    let a = Vps::new(&network, 2)?;
    network.allow(&[(a.ip().into(), b.ip().into())])?;
    ensure!(a.reaches(network.gateway())? && a.reaches(b.ip())?);
    ensure!(
        !dead.room.run(|| link_exists("eth0").map_err(Into::into))?,
        "the old end is gone"
    );
    network.detach(&a.port)?;
    ensure!(!link_exists(&a.port.host_if)?);
    Ok(())
}

fn an_address_belongs_to_one() -> Result<()> {
    needs!(root);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let (second, room) = (Port::new(3, a.ip()), Room::new()?);
    let refused = network.attach(&second, room.fd());
    ensure!(
        matches!(
            refused.as_ref().map_err(Error::root),
            Err(Error::Exists { kind: "address", .. })
        ),
        "{refused:?}"
    );
    network.detach(&second)?;
    ensure!(
        a.reaches(network.gateway())? && ping(a.ip(), PATIENCE)?,
        "the holder is not disturbed"
    );
    Ok(())
}

fn names_of_others_are_not_taken() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (room, _, uplink) = outside()?;
    // A bridge, but not condo's: its hardware address is another.
    let other = Network {
        bridge: "eth0".into(),
        ..network.clone()
    };
    let refused = other.ensure();
    ensure!(
        matches!(refused.as_ref().map_err(Error::root), Err(Error::Exists { .. })),
        "{refused:?}"
    );
    network.ensure()?;
    // A port's name that another bridge's port has.
    let (taken, inner) = (
        Port {
            host_if: uplink.host_if,
            ..Port::new(901, address(4))
        },
        Room::new()?,
    );
    room.run(|| {
        network.ensure()?;
        let refused = network.attach(&taken, inner.fd());
        ensure!(
            matches!(refused.as_ref().map_err(Error::root), Err(Error::Exists { .. })),
            "{refused:?}"
        );
        network.detach(&taken)?;
        ensure!(link_exists(&taken.host_if)?, "neither attach nor detach touch it");
        Ok(())
    })
}

fn foreign_rules_stay() -> Result<()> {
    needs!(root, nft);
    let network = host()?;
    network.remove()?;
    let foreign = "
        table inet admin {
            set s { type ipv4_addr; elements = { 10.171.0.2, 1.2.3.4 }; }
            chain input { type filter hook input priority 0; policy accept; ip saddr @s counter accept; }
        }
        table ip condo { chain c { tcp dport 22 accept; }; }
        table bridge b { chain forward { type filter hook forward priority 0; }; }
        ";
    nft(&[foreign])?;
    let before = nft(&["-j", "list", "ruleset"])?;
    network.ensure()?;
    let a = Vps::new(&network, 2)?;
    network.allow(&[(a.ip().into(), address(3).into())])?;
    let all = nft(&["-j", "list", "ruleset"])?;
    ensure!(all.contains("antispoof"), "the oracle sees our rules");
    network.detach(&a.port)?;
    network.remove()?;
    let after = nft(&["-j", "list", "ruleset"])?;
    ensure!(before == after, "before: {before}\nafter: {after}");

    nft(&["add table inet condo; add chain inet condo antispoof"])?;
    let before = nft(&["-j", "list", "ruleset"])?;
    let refused = network.ensure();
    ensure!(
        matches!(refused.as_ref().map_err(Error::root), Err(Error::Exists { .. })),
        "{refused:?}"
    );
    network.remove()?;
    ensure!(
        nft(&["-j", "list", "ruleset"])? == before,
        "a table of the same name is not ours"
    );
    Ok(())
}

fn flushed_rules_come_back() -> Result<()> {
    needs!(root, nft);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let before = ruleset();
    nft(&["flush ruleset"])?;
    network.ensure()?;
    ensure!(!a.glimpses(network.gateway())?, "unknown until entered again");
    network.restore(std::slice::from_ref(&a.port), &[])?;
    network.restore(std::slice::from_ref(&a.port), &[])?;
    ensure!(ruleset() == before);
    ensure!(a.reaches(network.gateway())?);
    // Rules of another version are replaced, and who is entered stays.
    nft(&["flush chain inet condo leaving"])?;
    ensure!(ruleset() != before && !network.stands()?);
    network.ensure()?;
    ensure!(network.stands()?);
    ensure!(a.reaches(network.gateway())?);
    Ok(())
}

fn dhcp_tells_what_it_has() -> Result<()> {
    needs!(root, busybox);
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let script = crate::harness::tempdir().join("script");
    let text = "#!/bin/sh\n[ $1 = bound ] && echo \"$ip $subnet $router $serverid $lease $dns\"; exit 0\n";
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let ask = |more: &[&str]| {
        a.room.run(|| {
            let mut client = Command::new("busybox");
            client
                .args(["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s"])
                .arg(&script)
                .args(more);
            crate::harness::run(&mut client)
        })
    };
    let servers: Vec<String> = condo::net::resolvers().iter().map(ToString::to_string).collect();
    let told = format!(
        "10.171.0.2 255.255.0.0 10.171.0.1 10.171.0.1 4294967295 {}",
        servers.join(" ")
    );
    ensure!(ask(&[])?.trim() == told, "{}", ask(&[])?);
    // Somebody else's address is not to be had, and answers that are asked to be broadcast come too.
    ensure!(ask(&["-r", "10.171.0.9", "-B"])?.trim() == told);
    ensure!(a.reaches(network.gateway())?, "asking changes nothing");
    Ok(())
}

/// What the host waits for is bounded for each VPS, well below what there is room for.
fn fragments_of_one_leave_room_for_others() -> Result<()> {
    needs!(root, busybox);
    const SENT: u16 = 20_000;
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    let macs = (a.port.mac, mac("condo0")?);
    let lone = |number: u16| {
        let mut frame = udp(macs, a.ip(), network.gateway(), &"x".repeat(1400));
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        fragment(frame, 0, true)
    };
    a.flood((0..SENT).map(lone))?;
    let waiting = || -> Result<u64> {
        let all = std::fs::read_to_string("/proc/thread-self/net/sockstat")?;
        let line = all.lines().find_map(|line| line.strip_prefix("FRAG: inuse "));
        Ok(line
            .context("FRAG")?
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse()?)
    };
    let held = waiting()?;
    ensure!((100..u64::from(SENT) / 4).contains(&held), "{held} of {SENT}");
    let gateway = network.gateway().to_string();
    b.room.run(|| {
        crate::harness::run(Command::new("busybox").args(["ping", "-c1", "-W5", "-s4000", &gateway]))
    })?;
    Ok(())
}

/// dhcpcd asks for an address before it says that it asks; udhcpc and others do not.
fn dhcp_options_come_in_any_order() -> Result<()> {
    let network = host()?;
    let a = Vps::new(&network, 2)?;
    let client = a.room.run(|| Ok(UdpSocket::bind("0.0.0.0:68")?))?;
    let answer = |options: &[u8], patience| answer(&a, &client, options, patience);
    let wanted = [50, 4, 10, 171, 0, 2];
    let mut many: Vec<u8> = (1..=7).flat_map(|_| [60, 2, b'm', b'e']).collect();
    many.extend([53, 1, 3]);
    for (options, kind) in [
        ([&wanted[..], &[53, 1, 3, 255]].concat(), 5),
        ([&[61, 1, 0], &wanted[..], &[53, 1, 1, 255]].concat(), 2),
        (many, 5),
    ] {
        // A question or its answer may be lost where queues are full, and clients ask again.
        let came = (0..PATIENCE.as_secs())
            .find_map(|_| answer(&options, Duration::from_secs(1)).transpose())
            .transpose()?;
        ensure!(came == Some(kind), "{options:?}: {came:?}");
    }
    // No kind, one that is longer, options that go past the end.
    for options in [
        &[60, 1, 0, 255][..],
        &[53, 2, 1, 1],
        &[60, 200, 53, 1, 1],
        &[53, 1],
    ] {
        ensure!(
            answer(options, Duration::from_millis(100))?.is_none(),
            "{options:?}"
        );
    }
    Ok(())
}

/// When a port is attached, the kernel has done what it leaves to a worker as the second end of a pair comes up: until then packets are lost
/// without a word. The worker needs a lock, which others hold here.
fn the_first_packet_arrives() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let busy = Room::new()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            busy.run(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let add = ["link", "add", "other", "type", "bridge"];
                    crate::harness::run(Command::new("ip").args(add))?;
                    crate::harness::run(Command::new("ip").args(["link", "del", "other"]))?;
                }
                Ok(())
            })
        });
        let all = (2..42).try_for_each(|id| {
            let a = Vps::new(&network, id)?;
            let client = a.room.run(|| Ok(UdpSocket::bind("0.0.0.0:68")?))?;
            let came = answer(&a, &client, &[53, 1, 1, 255], Duration::from_secs(5))?;
            ensure!(came == Some(2), "the {id}th: {came:?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        all.and(others.join().expect("no panic"))
    })
}

/// The kind of the answer to one question with these options, which has a number of its own as the answer has.
fn answer(a: &Vps, client: &UdpSocket, options: &[u8], patience: Duration) -> Result<Option<u8>> {
    static ASKED: AtomicU32 = AtomicU32::new(1);
    let number = ASKED.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut question = vec![0; 240];
    question[..4].copy_from_slice(&[1, 1, 6, 0]);
    question[4..8].copy_from_slice(&number);
    question[28..34].copy_from_slice(&a.port.mac);
    question[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    question.extend(options);
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let frame = udp((a.port.mac, BROADCAST), from, to, &" ".repeat(question.len()));
    let mut frame = frame::udp_ports(frame, 68, 67);
    frame[42..].copy_from_slice(&question);
    a.inject(&frame)?;
    client.set_read_timeout(Some(patience))?;
    let mut answer = [0; 600];
    while client.recv(&mut answer).is_ok() {
        if answer[4..8] == number {
            return Ok(Some(answer[242]));
        }
    }
    Ok(None)
}

fn ipv6_is_for_those_who_may() -> Result<()> {
    needs!(root);
    let network = host_with_ipv6()?;
    let (a, b) = (Vps::with_ipv6(&network, 2)?, Vps::with_ipv6(&network, 3)?);
    ensure!(
        !a.is_heard_by(&b, Duration::from_millis(600))?,
        "strangers do not talk"
    );
    let pair = [(a.ip6().into(), b.ip6().into())];
    network.allow(&pair)?;
    ensure!(
        a.is_heard_by(&b, PATIENCE)? && b.is_heard_by(&a, PATIENCE)?,
        "friends do"
    );
    network.disallow(&pair)?;
    ensure!(
        !b.is_heard_by(&a, Duration::from_millis(600))?,
        "and stop when told"
    );
    condo::net::forget(&[a.ip6().into()])?;
    network.detach(&a.port)?;
    network.detach(&b.port)?;
    network.remove()?;
    ensure!(!link_exists("condo0")?);
    Ok(())
}

/// The host and a network behind its `eth0`: nothing between them but a wire.
pub(crate) fn wire(addresses: [&str; 2]) -> Result<Room> {
    let world = Room::new()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&world.fd());
    let ip = |line: &str| crate::harness::run(Command::new("ip").args(line.split(' '))).map(drop);
    ip(&format!(
        "link add eth0 type veth peer name eth0 netns /proc/{}/fd/{fd}",
        std::process::id()
    ))?;
    let own = |address: &str| -> Result<()> {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("addr add {address} dev eth0{nodad}"))?;
        ip("link set eth0 up")
    };
    own(addresses[0])?;
    world.run(|| own(addresses[1]))?;
    Ok(world)
}

fn the_outside_sees_the_host_by_ipv6() -> Result<()> {
    needs!(root, ip);
    let network = host_with_ipv6()?;
    let world = wire(["2001:db8::2/64", "2001:db8::1/64"])?;
    let a = Vps::with_ipv6(&network, 2)?;
    let service = world.run(|| Ok(UdpSocket::bind("[::]:0")?))?;
    service.set_read_timeout(Some(Duration::from_millis(200)))?;
    let to = (
        "2001:db8::1".parse::<std::net::Ipv6Addr>()?,
        service.local_addr()?.port(),
    );
    let own = a.room.run(|| Ok(UdpSocket::bind((a.ip6(), 0))?))?;
    for _ in 0..50 {
        let _ = own.send_to(b"from within", to);
        if let Ok((_, from)) = service.recv_from(&mut [0; 16]) {
            ensure!(from.ip().to_string() == "2001:db8::2", "the outside sees {from}");
            return Ok(());
        }
    }
    anyhow::bail!("nothing came through")
}

fn an_isolated_network_has_no_way_out() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let world = wire(["198.51.100.2/24", "198.51.100.1/24"])?;
    let inner = Network {
        kind: condo::net::Kind::Isolated,
        ..Network::new("condo1", "condo", "10.172.0.0/24".parse()?)
    };
    inner.ensure()?;
    let on = |id: u32, last: u8| -> Result<(Port, Room)> {
        let (port, room) = (Port::new(id, Ipv4Addr::new(10, 172, 0, last)), Room::new()?);
        inner.attach(&port, room.fd())?;
        Ok((port, room))
    };
    let ((a, room), (b, _other)) = (on(12, 2)?, on(13, 3)?);
    let free = Vps::new(&network, 2)?;
    inner.allow(&[(a.address.into(), b.address.into())])?;
    ensure!(room.run(|| ping(b.address, PATIENCE))?, "who may talk does");
    ensure!(ping(a.address, PATIENCE)?, "the host reaches it");
    let server = Ipv4Addr::new(198, 51, 100, 1);
    ensure!(free.reaches(server)?, "others have a way out");
    // A way that a tenant makes for himself leads nowhere.
    room.run(|| {
        let line = "route add default via 10.172.0.1";
        crate::harness::run(Command::new("ip").args(line.split(' '))).map(drop)
    })?;
    for to in [
        server,
        network.gateway(),
        inner.gateway(),
        free.ip(),
        Ipv4Addr::new(198, 51, 100, 2),
    ] {
        ensure!(
            !room.run(|| ping(to, Duration::from_millis(600)))?,
            "{to} is reached"
        );
    }
    // One network goes, and the other stays.
    inner.detach(&a)?;
    inner.detach(&b)?;
    inner.retire()?;
    ensure!(!link_exists("condo1")? && network.stands()? && free.reaches(server)?);
    drop(world);
    Ok(())
}

fn a_bridge_of_the_operators_has_ports() -> Result<()> {
    needs!(root, ip);
    let network = host()?;
    let ip = |line: &str| crate::harness::run(Command::new("ip").args(line.split(' '))).map(drop);
    ip("link add br0 type bridge")?;
    let world = wire(["192.0.2.9/32", "192.0.2.1/24"])?;
    ip("link set eth0 master br0")?;
    ip("link set br0 up")?;
    let lan = Network {
        kind: condo::net::Kind::Bridged,
        ..Network::new("br0", "condo", "192.0.2.0/24".parse()?)
    };
    lan.ensure()?;
    let (port, room) = (Port::new(12, Ipv4Addr::new(192, 0, 2, 50)), Room::new()?);
    lan.attach(&port, room.fd())?;
    let router = Ipv4Addr::new(192, 0, 2, 1);
    ensure!(room.run(|| ping(router, PATIENCE))?, "the router is reached");
    ensure!(world.run(|| ping(port.address, PATIENCE))?, "and reaches it");
    let ears = world.run(Ears::open)?;
    let router_mac = world.run(|| mac("eth0"))?;
    for (from, hardware) in [
        (Ipv4Addr::new(192, 0, 2, 77), port.mac),
        (port.address, [2, 9, 9, 9, 9, 9]),
    ] {
        room.run(|| room::inject("eth0", &udp((hardware, router_mac), from, router, "forged")))?;
    }
    room.run(|| {
        room::inject(
            "eth0",
            &udp((port.mac, router_mac), port.address, router, "honest"),
        )
    })?;
    let heard = ears.until("honest")?;
    ensure!(
        !heard.iter().any(|f| carries(f, "forged")),
        "a forged packet came through"
    );
    lan.detach(&port)?;
    lan.retire()?;
    ensure!(link_exists("br0")? && !link_exists(&port.host_if)? && network.stands()?);
    Ok(())
}

fn a_routed_address_is_answered_for() -> Result<()> {
    needs!(root, ip);
    let _network = host()?;
    let world = wire(["198.51.100.2/24", "198.51.100.1/24"])?;
    let public = Network {
        kind: condo::net::Kind::Routed,
        ..Network::new("condo1", "condo", "198.51.100.64/27".parse()?)
    };
    public.ensure()?;
    let (port, room) = (Port::new(12, Ipv4Addr::new(198, 51, 100, 70)), Room::new()?);
    public.attach(&port, room.fd())?;
    ensure!(
        world.run(|| ping(port.address, PATIENCE))?,
        "the outside finds it here"
    );
    let server = Ipv4Addr::new(198, 51, 100, 1);
    let ears = world.run(Ears::open)?;
    ensure!(room.run(|| ping(server, PATIENCE))?);
    room.run(|| {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"as I am", (server, 9))?;
        Ok(())
    })?;
    let heard = ears.until("as I am")?;
    ensure!(
        heard.last().and_then(|f| frame::source(f)) == Some(port.address),
        "it has its own address"
    );
    public.detach(&port)?;
    let proxies = crate::harness::run(Command::new("ip").args(["neigh", "show", "proxy"]))?;
    ensure!(proxies.trim().is_empty(), "left: {proxies}");
    Ok(())
}

/// A bridge has 1,023 ports.
fn more_than_a_bridge_has_ports() -> Result<()> {
    needs!(root);
    let network = host()?;
    let first = Vps::new(&network, 2)?;
    let crowd = Room::new()?;
    for id in 1000..2100 {
        let [.., c, d] = u32::to_be_bytes(id);
        let port = Port {
            guest_if: format!("e{id}"),
            is_first: false,
            ..Port::new(id, Ipv4Addr::new(10, 171, c, d))
        };
        network
            .attach(&port, crowd.fd())
            .with_context(|| format!("port {}", id - 998))?;
    }
    let last = Vps::new(&network, 3)?;
    ensure!(
        ping(first.ip(), PATIENCE)? && ping(last.ip(), PATIENCE)?,
        "the host reaches both"
    );
    ensure!(!last.glimpses(first.ip())?, "strangers do not talk");
    network.allow(&[(first.ip().into(), last.ip().into())])?;
    ensure!(first.reaches(last.ip())? && last.reaches(first.ip())?);
    // Gone with the link, in one go.
    network.detach(&last.port)?;
    ensure!(!first.glimpses(last.ip())? && first.reaches(network.gateway())?);
    Ok(())
}

fn disconnected_ports_go_together() -> Result<()> {
    needs!(root);
    let network = host()?;
    let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
    ensure!(a.reaches(network.gateway())? && b.reaches(network.gateway())?);
    network.disconnect(&a.port)?;
    network.disconnect(&b.port)?;
    ensure!(!a.glimpses(network.gateway())?, "it leads nowhere any more");
    ensure!(link_exists(&a.port.host_if)? && link_exists(&b.port.host_if)?);
    // Whoever was killed here is no obstacle to the next start.
    let a = Vps::new(&network, 2)?;
    condo::net::sweep()?;
    condo::net::sweep()?;
    ensure!(!link_exists(&b.port.host_if)?, "swept");
    ensure!(a.reaches(network.gateway())?, "what is in use stays");
    Ok(())
}

/// Version 0.1 made every VPS's interface a port of the bridge, and had no map of ports.
fn ports_of_an_older_version_move_over() -> Result<()> {
    needs!(root, ip, tc);
    let network = host_with_ipv6()?;
    let (a, b) = (Vps::with_ipv6(&network, 2)?, Vps::with_ipv6(&network, 3)?);
    let pair = [(a.ip().into(), b.ip().into())];
    network.allow(&pair)?;
    let run = |line: &str| {
        let mut words = line.split(' ');
        crate::harness::run(Command::new(words.next().unwrap_or_default()).args(words))
    };
    strip("condo0", &[Side::Out])?;
    for port in [&a.port, &b.port] {
        let name = &port.host_if;
        run(&format!("ip link set {name} arp on group 5656659 master condo0"))?;
        run(&format!(
            "bridge link set dev {name} isolated on learning off flood off mcast_flood off bcast_flood off"
        ))?;
        let mac: Vec<String> = port.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        run(&format!(
            "bridge fdb replace {} dev {name} master static",
            mac.join(":")
        ))?;
    }
    ensure!(a.reaches(network.gateway())? && a.reaches(b.ip())?, "as before");
    ensure!(!network.stands()?, "that it is an older one is noticed");
    network.ensure()?;
    ensure!(a.reaches(b.ip())? && ping(b.ip(), PATIENCE)?, "what runs goes on");
    let c = Vps::with_ipv6(&network, 4)?;
    ensure!(c.reaches(network.gateway())?, "beside what is new");
    network.restore(&[a.port.clone(), b.port.clone(), c.port.clone()], &pair)?;
    ensure!(
        network.stands()? && run("bridge link show")?.is_empty(),
        "no port is left"
    );
    ensure!(a.reaches(b.ip())? && b.reaches(a.ip())? && ping(a.ip(), PATIENCE)?);
    ensure!(c.reaches(network.gateway())? && !c.glimpses(a.ip())?);
    network.allow(&[(a.ip6().into(), b.ip6().into())])?;
    ensure!(a.is_heard_by(&b, PATIENCE)? && b.is_heard_by(&a, PATIENCE)?);
    network.detach(&a.port)?;
    ensure!(!link_exists(&a.port.host_if)?);
    Ok(())
}

pub(crate) fn nft(args: &[&str]) -> Result<String> {
    let output = Command::new("nft").args(args).output()?;
    ensure!(
        output.status.success(),
        "nft {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
