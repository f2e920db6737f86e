//! Network namespaces of a test, and programs that look out of them.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use condo::net::{Network, Port};
use condo::sys::bpf::interface::{Side, detach, programs};
use condo::sys::bpf::{open_program, program_name};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::frame::{self, Mac};

/// How long something that must happen may take; generous for emulated machines.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to look for an answer that must not come.
const GLANCE: Duration = Duration::from_millis(600);

/// A network namespace of its own.
pub struct Room(OwnedFd);

impl Room {
    pub fn new() -> Result<Self> {
        let make = || -> Result<Self> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::here()
        };
        std::thread::spawn(make).join().expect("a thread")
    }

    /// The namespace this thread is in.
    pub fn here() -> Result<Self> {
        Ok(Self(std::fs::File::open("/proc/thread-self/ns/net")?.into()))
    }

    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Where programs of this process find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs something inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            visit.join().expect("a thread")
        })
    }
}

/// Makes this process's namespace the host of a network.
pub fn host() -> Result<Network> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    condo::sys::interface::set_loopback_up()?;
    let network = Network::new("condo0", "condo", "10.171.0.0/16".parse()?);
    network.ensure()?;
    Ok(network)
}

/// As [`host`], with IPv6.
pub fn host_with_ipv6() -> Result<Network> {
    let network = Network {
        subnet6: Some("fd00:1:2:3::/64".parse()?),
        ..host()?
    };
    network.ensure()?;
    Ok(network)
}

/// A VPS as far as the network is concerned.
pub struct Vps {
    pub port: Port,
    pub room: Room,
    pub ears: Ears,
}

impl Vps {
    pub fn new(network: &Network, id: u8) -> Result<Self> {
        let port = Port::new(u32::from(id), address(id));
        let room = Room::new()?;
        network.attach(&port, room.fd())?;
        let ears = room.run(Ears::open)?;
        Ok(Self { port, room, ears })
    }

    /// As [`Vps::new`], with an IPv6 address.
    pub fn with_ipv6(network: &Network, id: u8) -> Result<Self> {
        let subnet = network.subnet6.context("a network with IPv6")?;
        let port = Port::new(u32::from(id), address(id));
        let port = Port {
            address6: Some(condo::net::ipam::derived6(subnet, port.mac)),
            ..port
        };
        let room = Room::new()?;
        network.attach(&port, room.fd())?;
        let ears = room.run(Ears::open)?;
        Ok(Self { port, room, ears })
    }

    pub fn ip6(&self) -> Ipv6Addr {
        self.port.address6.unwrap_or(Ipv6Addr::UNSPECIFIED)
    }

    /// Sends datagrams to a service of another until one arrives, or the time is over.
    pub fn is_heard_by(&self, other: &Self, time: Duration) -> Result<bool> {
        let service = other.room.run(|| Ok(UdpSocket::bind((other.ip6(), 0))?))?;
        service.set_read_timeout(Some(Duration::from_millis(100)))?;
        let to = service.local_addr()?;
        let own = self.room.run(|| Ok(UdpSocket::bind((self.ip6(), 0))?))?;
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            // A link that has just come up may have no route yet.
            let _ = own.send_to(b"hear me", to);
            if let Ok((_, from)) = service.recv_from(&mut [0; 16]) {
                return Ok(from.ip() == self.ip6());
            }
        }
        Ok(false)
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.port.address
    }

    /// Puts a frame on the wire, whatever it says.
    pub fn inject(&self, frame: &[u8]) -> Result<()> {
        self.room.run(|| inject("eth0", frame))
    }

    /// Puts many frames on the wire.
    pub fn flood(&self, frames: impl Iterator<Item = Vec<u8>> + Send) -> Result<()> {
        self.room.run(|| {
            let (to, socket) = (link("eth0")?, raw()?);
            for frame in frames {
                sendto(socket.as_raw_fd(), &frame, &to, MsgFlags::empty())?;
            }
            Ok(())
        })
    }

    /// Whether the address answers a ping, waiting for it as long as it takes.
    pub fn reaches(&self, to: Ipv4Addr) -> Result<bool> {
        self.room.run(|| ping(to, PATIENCE))
    }

    /// Whether the address answers a ping soon.
    pub fn glimpses(&self, to: Ipv4Addr) -> Result<bool> {
        self.room.run(|| ping(to, GLANCE))
    }

    /// Sends a datagram the proper way.
    pub fn say(&self, to: Ipv4Addr, text: &str) -> Result<()> {
        self.room.run(|| {
            UdpSocket::bind("0.0.0.0:0")?.send_to(text.as_bytes(), (to, 9))?;
            Ok(())
        })
    }
}

pub fn address(id: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 171, 0, id)
}

/// The link address of an interface of this namespace.
pub fn link(interface: &str) -> Result<LinkAddr> {
    nix::ifaddrs::getifaddrs()?
        .filter(|i| i.interface_name == interface)
        .find_map(|i| i.address?.as_link_addr().copied())
        .with_context(|| format!("no link address of {interface}"))
}

pub fn mac(interface: &str) -> Result<Mac> {
    link(interface)?.addr().context("a hardware address")
}

fn raw() -> Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

pub fn inject(interface: &str, frame: &[u8]) -> Result<()> {
    let (to, socket) = (link(interface)?, raw()?);
    sendto(socket.as_raw_fd(), frame, &to, MsgFlags::empty())?;
    Ok(())
}

/// Takes away the programs that see what comes in by an interface or goes out by it, as an operator could.
pub fn strip(interface: &str, sides: &[Side]) -> Result<()> {
    for side in sides {
        if !detached(interface, *side, "")? {
            let place = match side {
                Side::In => "ingress",
                Side::Out => "egress",
            };
            crate::harness::run(Command::new("tc").args(["filter", "del", "dev", interface, place]))?;
        }
    }
    Ok(())
}

/// Takes away a port's fence alone.
pub fn unfence(interface: &str) -> Result<()> {
    if !detached(interface, Side::In, "condo_fence")? {
        let line = format!("filter del dev {interface} ingress pref 1");
        crate::harness::run(Command::new("tc").args(line.split(' ')))?;
    }
    Ok(())
}

/// Whether there were programs whose names begin so: kernels without lists of them have filters.
fn detached(interface: &str, side: Side, name: &str) -> Result<bool> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let mut found = false;
    for id in programs(index, side).map(|list| list.ids).unwrap_or_default() {
        let program = open_program(id)?;
        if program_name(program.as_fd())?.starts_with(name) {
            detach(index, side, program.as_fd())?;
            found = true;
        }
    }
    Ok(found)
}

/// Sends echo requests until one is answered or the time is over.
pub fn ping(to: Ipv4Addr, time: Duration) -> Result<bool> {
    let identity = 0x4c17;
    let protocol = SockProtocol::Icmp;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
    let [a, b, c, d] = to.octets();
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        let _ = sendto(
            socket.as_raw_fd(),
            &frame::echo(identity),
            &SockaddrIn::new(a, b, c, d, 0),
            MsgFlags::empty(),
        );
        let mut packet = [0; 256];
        while let Ok(length) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            let answer = packet[20] == 0 && packet[24..26] == identity.to_be_bytes();
            if length >= 28 && answer && packet[12..16] == to.octets() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Hears every frame of a namespace from the moment it is made.
pub struct Ears(OwnedFd);

impl Ears {
    pub fn open() -> Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200))?;
        Ok(Self(socket))
    }

    /// Collects what came in up to the frame that carries `text`, which must come.
    pub fn until(&self, text: &str) -> Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let mut frame = vec![0; 2048];
            if let Ok(length) = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                frame.truncate(length);
                heard.push(frame);
                if heard.last().is_some_and(|f| frame::carries(f, text)) {
                    return Ok(heard);
                }
            }
        }
        anyhow::bail!("`{text}` did not come within {PATIENCE:?}")
    }
}
