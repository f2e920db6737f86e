//! Memory of the kernel that a VPS makes it take, beside its limit.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use condo::host::{CgroupLayout, OWN_CGROUP2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::program::{Arg, Entry, run};
use super::tables;
use crate::harness;
use crate::vps::house::House;

tests![
    packet_rings_are_refused,
    buffers_of_sockets_are_bounded in guest,
    queues_of_packets_cannot_be_made_longer in guest,
    queues_of_uncounted_sockets_do_not_grow in guest,
    queues_stay_short_where_cgroup2_is_not_mounted,
];

/// What a VPS of these tests may have, and when an attack that gets through stops.
const LIMIT: usize = 64 << 20;
const ENOUGH: usize = LIMIT + (64 << 20);

/// Names the attack that [`from_inside`] makes.
const ATTACK: &str = "CONDO_TEST_ATTACK";
/// `cgroup.procs` files, with `:` between.
const CGROUPS: &str = "CONDO_TEST_ATTACK_CGROUPS";
/// A process of the VPS.
const VPS: &str = "CONDO_TEST_ATTACK_PID";

fn packet_rings_are_refused() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.running("sniffer", "--permit packet-rings")?;
    // socket(AF_PACKET, SOCK_RAW, 0), then setsockopt(SOL_PACKET, ring) of one page.
    for (entry, socket, set) in [(Entry::Wide, 41, 54), (Entry::Narrow, 359, 366)] {
        for ring in [5, 13] {
            let open = [17, 3, 0].map(Arg::Number);
            let option = [
                Arg::First,
                Arg::Number(263),
                Arg::Number(ring),
                Arg::Data(0),
                Arg::Number(16),
            ];
            let calls = [(socket, &open[..]), (set, &option[..])];
            let make = |name| run(&house, name, entry, &calls, &[4096, 1, 2048, 2]);
            let (refused, permitted) = (make("web")?, make("sniffer")?);
            ensure!(
                (refused, permitted) == (1, 0),
                "{entry:?}: ring {ring} fails with {refused}, a permitted one with {permitted}"
            );
        }
    }
    house.leave()
}

fn buffers_of_sockets_are_bounded() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    for kind in ["tcp", "udp"] {
        let Some(held) = attack(&house, "web", kind)? else {
            // Buffers that count as memory end whoever fills them.
            ensure!(
                house.cgroup("web")?.oom_kills()? > 0,
                "{kind}: the attacker was killed"
            );
            continue;
        };
        ensure!(held > 1 << 20, "{kind}: only {held} bytes: no attack");
        ensure!(
            held <= LIMIT,
            "{kind}: {held} bytes are held beside {LIMIT} of memory"
        );
    }
    house.leave()
}

/// What waits in them is nobody's memory, and the host may let a socket hold 4 MB.
fn queues_of_uncounted_sockets_do_not_grow() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for kind in ["netlink", "packet", "raw"] {
        let granted = attack(&house, "web", kind)?;
        // The kernel doubles what it is asked for.
        ensure!(granted == Some(2 * 212_992), "{kind}: {granted:?}");
    }
    house.running("wide", "--permit large-buffers")?;
    let (stream, wide) = (
        attack(&house, "web", "stream")?,
        attack(&house, "wide", "netlink")?,
    );
    ensure!(
        stream == wide && stream >= Some(2 * 212_992),
        "{stream:?} is not what the host lets them be, {wide:?}"
    );
    house.leave()
}

/// Fragments that wait for the rest are nobody's memory, and packets that wait for a neighbour's address.
fn queues_of_packets_cannot_be_made_longer() -> Result<()> {
    queues_stay_short(House::new()?)
}

/// Hosts with v1 controllers alone: cgroup2 is there, and nobody has mounted it.
fn queues_stay_short_where_cgroup2_is_not_mounted() -> Result<()> {
    needs!(root, hybrid);
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    harness::run(Command::new("mount").args(["--make-rprivate", "/"]))?;
    while let Some(mount) = CgroupLayout::probe()?.unified() {
        harness::run(Command::new("umount").arg(mount))?;
    }
    let house = House::new()?;
    let found = CgroupLayout::probe()?;
    ensure!(found.unified() == Some(Path::new(OWN_CGROUP2)), "{found:?}");
    queues_stay_short(house)
}

fn queues_stay_short(house: House) -> Result<()> {
    house.running("web", "--memory 64M")?;
    // In the VPS's network namespace and in one that it makes; one of its parameters can be set.
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward || exit 1
        cd /proc/sys/net
        for file in ipv4/ipfrag_high_thresh ipv6/ip6frag_high_thresh netfilter/nf_conntrack_frag6_high_thresh \
                    ipv4/neigh/*/unres_qlen* ipv6/neigh/*/unres_qlen*; do
            [ -e $file ] && echo 2000000000 > $file 2>/dev/null && echo $file
        done; true";
    for place in ["sh -c", "busybox unshare -Urn sh -c"] {
        let mut command = house.command();
        command.args(["exec", "web", "--"]);
        command.args(place.split(' ')).arg(script);
        let written = harness::run(&mut command)?;
        ensure!(written.is_empty(), "{place}: {written}");
    }
    house.leave()
}

/// Runs [`from_inside`] in the cgroup and the network of a VPS; what it counted, unless it was killed.
pub(super) fn attack(house: &House, name: &str, kind: &str) -> Result<Option<usize>> {
    attack_from(house, name, kind, "")
}

/// The same in a cgroup that is made below that of the VPS.
pub(super) fn attack_below(house: &House, name: &str, kind: &str) -> Result<Option<usize>> {
    attack_from(house, name, kind, "below")
}

fn attack_from(house: &House, name: &str, kind: &str, below: &str) -> Result<Option<usize>> {
    let paths = house.cgroup(name)?.paths();
    let mut cgroups = Vec::new();
    for dir in paths.values().map(|dir| dir.join(below)) {
        std::fs::create_dir_all(&dir)?;
        cgroups.push(dir.join("cgroup.procs").display().to_string());
    }
    let mut attacker = Command::new(std::env::current_exe()?);
    attacker
        .env(ATTACK, kind)
        .env(CGROUPS, cgroups.join(":"))
        .env(VPS, house.init(name)?.to_string());
    let output = attacker.output()?;
    if output.status.signal() == Some(Signal::SIGKILL as i32) {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim()
        .parse()
        .map(Some)
        .with_context(|| format!("{output:?}"))
}

/// As a process of a VPS, does what the environment asks for, and prints how many bytes the kernel holds. Returns false where
/// nothing is asked.
pub fn from_inside() -> Result<bool> {
    let Ok(kind) = std::env::var(ATTACK) else {
        return Ok(false);
    };
    for procs in std::env::var(CGROUPS)?.split(':') {
        std::fs::write(procs, "0")?;
    }
    let network = std::fs::File::open(format!("/proc/{}/ns/net", std::env::var(VPS)?))?;
    setns(&network, CloneFlags::CLONE_NEWNET)?;
    let held = match kind.as_str() {
        "tcp" => fill_tcp()?,
        "udp" => fill_udp()?,
        "tables" => tables::spend()?,
        other => granted(other)?,
    };
    println!("{held}");
    Ok(true)
}

/// How large the smaller one of a socket's buffers becomes that are asked to be very large.
fn granted(kind: &str) -> Result<usize> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, getsockopt, socket};
    let (family, kind, protocol) = match kind {
        "netlink" => (
            AddressFamily::Netlink,
            SockType::Raw,
            Some(SockProtocol::NetlinkRoute),
        ),
        "packet" => (AddressFamily::Packet, SockType::Raw, None),
        "raw" => (AddressFamily::Inet, SockType::Raw, Some(SockProtocol::Icmp)),
        _ => (AddressFamily::Inet, SockType::Stream, None),
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::RcvBuf, &(1 << 28))?;
    setsockopt(&socket, sockopt::SndBuf, &(1 << 28))?;
    Ok(getsockopt(&socket, sockopt::RcvBuf)?.min(getsockopt(&socket, sockopt::SndBuf)?))
}

/// Connections that nobody reads from.
fn fill_tcp() -> Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut held, mut open) = (0, Vec::new());
    let junk = vec![0; 1 << 18];
    for _ in 0..200 {
        let mut sender = TcpStream::connect(listener.local_addr()?)?;
        let (receiver, _) = listener.accept()?;
        setsockopt(&sender, sockopt::SndBuf, &(1 << 24))?;
        setsockopt(&receiver, sockopt::RcvBuf, &(1 << 24))?;
        sender.set_nonblocking(true)?;
        loop {
            match sender.write(&junk) {
                Ok(n) => held += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        open.push((sender, receiver));
        if held > ENOUGH {
            break;
        }
    }
    Ok(held)
}

/// Datagrams that nobody reads, until we count them.
fn fill_udp() -> Result<usize> {
    let mut open = Vec::new();
    for _ in 0..600 {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        setsockopt(&socket, sockopt::RcvBuf, &(1 << 20))?;
        socket.set_nonblocking(true)?;
        let own = socket.local_addr()?;
        // Those that find no room are dropped.
        for _ in 0..10 {
            let _ = socket.send_to(&[0; 32_000], own);
        }
        open.push(socket);
    }
    let mut buffer = vec![0; 1 << 16];
    let mut held = 0;
    for socket in open {
        while let Ok(n) = socket.recv(&mut buffer) {
            held += n;
        }
    }
    Ok(held)
}
