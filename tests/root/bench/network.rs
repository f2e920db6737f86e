//! What a VPS's network costs: bandwidth and packets next to network namespaces that a bridge or the host's routes join, with no rule
//! at all, and packets among a thousand VPSs next to those among two. All take turns, round by round.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use condo::net::filter::Action;
use condo::net::{Network, Port, Services};

use crate::harness;
use crate::net::doors::{filter, publications};
use crate::net::room::{self, Room, Vps, host};
use crate::net::shape::{Server, bits};

/// How long packets are sent without a break.
const SPELL: Duration = Duration::from_millis(400);
/// What a packet carries in bytes.
const PAYLOAD: [u8; 18] = [0; 18];
/// VPSs of the crowded host that have nothing to say.
const CROWD: u32 = 998;
/// The place where those with their own rules are compared with all others.
const OWN: &str = "condo";

/// A host, and two network namespaces that it joins.
struct Street {
    name: &'static str,
    host: Room,
    houses: [(Room, Ipv4Addr); 2],
    /// What holds namespaces and links in place.
    _rest: Vec<Room>,
}

/// Measures `rounds` rounds, and prints a table.
pub fn main(rounds: usize) -> Result<()> {
    let streets = [
        joined(false)?,
        joined(true)?,
        street(OWN, 0)?,
        street("condo, 1,000", CROWD)?,
    ];
    let mut figures = BTreeMap::<_, Vec<f64>>::new();
    for _ in 0..rounds {
        for (at, street) in streets.iter().enumerate() {
            // What the crowd costs shows in packets.
            if at < 3 {
                for (way, found) in street.bandwidth()? {
                    figures.entry((way, at)).or_default().push(found);
                }
            }
            for (way, found) in street.packets()? {
                figures.entry((way, at)).or_default().push(found);
            }
        }
    }
    for ((way, at), mut found) in figures {
        found.sort_by(f64::total_cmp);
        let (least, median, most) = (found[0], found[found.len() / 2], found[found.len() - 1]);
        println!(
            "{way:<36} {:<14} {median:>9.2} median ({least:.2} to {most:.2})",
            streets[at].name
        );
    }
    Ok(())
}

impl Street {
    /// Gbit/s of TCP, by iperf3.
    fn bandwidth(&self) -> Result<[(&'static str, f64); 3]> {
        let [(first, _), (second, to)] = &self.houses;
        let _server = Server::new(second)?;
        let found = |from: &Room, options: &[&str]| -> Result<f64> {
            Ok(from.run(|| bits(&to.to_string(), options))? / 1e9)
        };
        Ok([
            ("Gbit/s, VPS to VPS", found(first, &[])?),
            ("Gbit/s, host to VPS", found(&self.host, &[])?),
            ("Gbit/s, VPS to host", found(&self.host, &["--reverse"])?),
        ])
    }

    /// Thousands of packets a second that arrive.
    fn packets(&self) -> Result<[(&'static str, f64); 2]> {
        let [(first, _), second] = &self.houses;
        Ok([
            ("1,000 packets/s, VPS to VPS", sent(first, second)?),
            ("1,000 packets/s, host to VPS", sent(&self.host, second)?),
        ])
    }
}

fn sent(from: &Room, (room, address): &(Room, Ipv4Addr)) -> Result<f64> {
    let listener = room.run(|| Ok(UdpSocket::bind((*address, 0))?))?;
    let to = listener.local_addr()?;
    let before = room.run(received)?;
    let took = from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        let begun = Instant::now();
        while begun.elapsed() < SPELL {
            for _ in 0..64 {
                socket.send(&PAYLOAD)?;
            }
        }
        Ok(begun.elapsed())
    })?;
    let count = f64::from(u32::try_from(room.run(received)? - before)?);
    Ok(count / took.as_secs_f64() / 1e3)
}

/// Packets that `eth0` of this namespace has received.
fn received() -> Result<u64> {
    let all = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let own = all.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    let count = own.and_then(|counts| counts.split_whitespace().nth(1));
    Ok(count.context("no count of eth0")?.parse()?)
}

/// Two namespaces that the host joins without condo: by a bridge, or by its routes.
fn joined(by_bridge: bool) -> Result<Street> {
    let (host, a, b) = (Room::new()?, Room::new()?, Room::new()?);
    let ip = |line: &str| harness::run(Command::new("ip").args(line.split(' '))).map(drop);
    host.run(|| {
        condo::sys::interface::set_loopback_up()?;
        Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
    })?;
    if by_bridge {
        host.run(|| {
            ip("link add br0 type bridge")?;
            ip("address add 10.99.0.1/24 dev br0")?;
            ip("link set br0 up")
        })?;
    }
    let mut houses = Vec::new();
    for (number, room) in [(2, a), (3, b)] {
        let port = format!("p{number}");
        let own = match by_bridge {
            true => Ipv4Addr::new(10, 99, 0, number),
            false => Ipv4Addr::new(10, 99, number, 2),
        };
        room.run(|| {
            ip(&format!("link add eth0 type veth peer name {port}"))?;
            ip(&format!("address add {own}/24 dev eth0"))?;
            ip(&format!("link set {port} netns {}", host.path()))
        })?;
        host.run(|| match by_bridge {
            true => ip(&format!("link set {port} up master br0")),
            false => {
                ip(&format!("address add 10.99.{number}.1/24 dev {port}"))?;
                ip(&format!("link set {port} up"))
            }
        })?;
        room.run(|| {
            ip("link set eth0 up")?;
            match by_bridge {
                true => Ok(()),
                false => ip(&format!("route add default via 10.99.{number}.1")),
            }
        })?;
        houses.push((room, own));
    }
    let houses = houses.try_into().ok().context("two of them")?;
    let name = if by_bridge { "bridge" } else { "routes" };
    Ok(Street {
        name,
        host,
        houses,
        _rest: Vec::new(),
    })
}

/// Two VPSs that may talk to each other, and as many others as that, each with a published port and a firewall.
fn street(name: &'static str, crowd: u32) -> Result<Street> {
    let (network, host) = Room::new()?.run(|| Ok((host()?, Room::here()?)))?;
    let (a, b, rest) = host.run(|| {
        let (a, b) = (Vps::new(&network, 2)?, Vps::new(&network, 3)?);
        network.allow(&[(a.ip().into(), b.ip().into())])?;
        let rest = Room::new()?;
        (0..crowd).try_for_each(|n| move_in(&network, 1000 + n, &rest))?;
        anyhow::ensure!(
            room::ping(a.ip(), SPELL * 10)? && a.reaches(b.ip())?,
            "nobody answers"
        );
        Ok((a, b, rest))
    })?;
    let houses = [a, b].map(|vps| (vps.room, vps.port.address));
    Ok(Street {
        name,
        host,
        houses,
        _rest: vec![rest],
    })
}

fn move_in(network: &Network, id: u32, crowd: &Room) -> Result<()> {
    let [.., c, d] = u32::to_be_bytes(id);
    let port = Port {
        guest_if: format!("e{id}"),
        is_first: false,
        ..Port::new(id, Ipv4Addr::new(10, 171, c, d))
    };
    network.attach(&port, crowd.fd())?;
    let services = Services {
        table: "condo",
        label: &port.host_if,
        name: "other",
        addresses: &[IpAddr::V4(port.address)],
        publications: &publications(&[&format!("{}:80", 10_000 + id)]),
        filter: &filter(Action::Deny, &["allow in tcp 80", "allow in icmp -"]),
    };
    Ok(services.provide()?)
}
