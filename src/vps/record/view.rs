//! A VPS and an image as they are shown: the JSON of `list` and `show` is these types.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::device::Device;
use super::domain::Domain;
use super::limits::Limits;
use super::name::Name;
use super::network::{NetworkRecord, Range};
use super::permit::Permit;
use super::policy::{Boot, Restart};
use super::schedule::Schedule;
use super::store::LastExit;
use super::traffic::Traffic;
use crate::net::filter::Filter;
use crate::net::publication::Publication;
use crate::net::{Kind, Mac};
use crate::storage::Backend;

/// What a VPS is doing, derived from facts at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VpsStatus {
    /// Its init is there and waits to be let go.
    Created,
    /// Its init runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has no init.
    Stopped,
}

impl VpsStatus {
    /// The word it is shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A VPS's disk as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// What keeps it.
    pub backend: Backend,
    /// Bytes that fit into it, where that is limited.
    pub size: Option<u64>,
    /// Bytes in use. A list tells it only where the back end counts.
    pub used: Option<u64>,
    /// Inodes that fit into it, where that is limited.
    pub inodes: Option<u64>,
    /// Inodes in use, where the back end counts them.
    pub inodes_used: Option<u64>,
}

/// A VPS as `list` and `show` present it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VpsView {
    /// Its name.
    pub name: Name,
    /// What it is doing.
    pub status: VpsStatus,
    /// The image its root disk is based on.
    pub image: String,
    /// The image of the rescue system that boots in its place, while there is one.
    pub rescue: Option<String>,
    /// Its host name.
    pub hostname: String,
    /// The address of its first interface.
    pub address: Ipv4Addr,
    /// Its interfaces with all their addresses.
    pub addresses: Vec<AddressView>,
    /// Its init as the host numbers it, while there is one.
    pub pid: Option<u32>,
    /// Seconds since its init was started, while there is one.
    pub uptime: Option<u64>,
    /// Its limits.
    pub limits: Limits,
    /// Its disk.
    pub disk: DiskView,
    /// Memory in use, in bytes, while it runs.
    pub memory_used: Option<u64>,
    /// VPSs it may talk to.
    pub allowed: Vec<Name>,
    /// What it is permitted beyond the usual.
    pub permitted: Vec<Permit>,
    /// Its plan.
    pub plan: Option<String>,
    /// The project it is in.
    #[serde(default)]
    pub project: String,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// How it comes up with the host.
    pub boot: Boot,
    /// When snapshots are taken by themselves, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Ports of the host that lead to it, as `condo publish` takes them.
    pub published: Vec<Publication>,
    /// What it lets in and out.
    pub firewall: Filter,
    /// What it has sent and received.
    pub traffic: Traffic,
    /// Devices of the host's that it may open.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Whether it is made ready for containers of its own.
    #[serde(default)]
    pub nesting: bool,
    /// Whether `sysinfo(2)` is answered with its own memory and load.
    #[serde(default)]
    pub own_sysinfo: bool,
    /// How many user and group ids it has.
    #[serde(default)]
    pub ids: u32,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// How it ended last.
    pub last_exit: Option<LastExit>,
}

/// An interface of a VPS as `list` and `show` present it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// What it is called inside.
    pub interface: String,
    /// The network it is on.
    pub network: Name,
    /// Its hardware address.
    pub mac: Mac,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, on a network that has some.
    pub ipv6: Option<Ipv6Addr>,
}

/// A network as `network list` and `network show` present it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// Its interface on the host.
    pub link: String,
    /// Its addresses.
    pub subnet: Ipv4Network,
    /// The VPSs' way out, unless they have none.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub subnet6: Option<Ipv6Network>,
    /// Largest packet in bytes, when not the kernel's default.
    pub mtu: Option<u32>,
    /// Whether its VPSs ask for names at the gateway.
    #[serde(default)]
    pub dns: bool,
    /// Where its VPSs have a name besides `NAME.condo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Addresses that only who asks for them gets.
    pub reserved: Vec<Range>,
    /// VPSs that are on it.
    pub used_by: Vec<Name>,
}

impl NetworkView {
    /// A network with the VPSs that are on it.
    pub fn new(record: NetworkRecord, used_by: Vec<Name>) -> Self {
        let network = record.network;
        Self {
            name: record.name,
            kind: network.kind,
            link: network.bridge.clone(),
            subnet: network.subnet,
            gateway: network.kind.has_a_way_out().then(|| network.gateway()),
            subnet6: network.subnet6,
            mtu: network.mtu,
            dns: network.dns,
            domain: record.domain,
            reserved: record.reserved,
            used_by,
        }
    }
}

/// An image as `image list` and `image show` present it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Its name.
    pub name: String,
    /// The machine it is for, as `uname -m` says it.
    pub architecture: String,
    /// The program and arguments of PID 1.
    pub init: Vec<String>,
    /// The signal that asks it to shut down.
    pub stop_signal: String,
    /// Bytes on disk.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// VPSs based on it.
    pub used_by: Vec<Name>,
    /// The archive, recipe or registry it was made from.
    #[serde(default)]
    pub source: String,
    /// The digest of its manifest, of one that came in layers.
    #[serde(default)]
    pub digest: Option<String>,
    /// How many layers it has that other images may share; 0 when it is in one piece.
    #[serde(default)]
    pub layers: usize,
    /// How many user ids a VPS of it has to have.
    #[serde(default)]
    pub ids: u32,
}

/// What `image prune` has taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedView {
    /// What it was, in words.
    pub what: String,
    /// Bytes on disk.
    pub size: u64,
}
