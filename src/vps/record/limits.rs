//! What a VPS may use.

use serde::{Deserialize, Serialize};

use crate::net::Rates;

/// The period of the CPU quota in microseconds: the kernel's default.
pub const CPU_PERIOD: u64 = 100_000;
/// With less a few connections would stall one another.
const MIN_SOCKET_MEMORY: u64 = 8 << 20;
/// With less a small VPS would have few queues of traffic, each of which is charged with a megabyte.
const MIN_TABLE_MEMORY: u64 = 64 << 20;
/// For a VPS without a limit: half a million neighbours.
const TABLE_MEMORY: u64 = 256 << 20;

/// Limits; one that is absent does not hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Processors' worth of time, 0.5 being half of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Share of processor time under contention, 1 to 10000; 100 is what others have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u64>,
    /// Processors it may run on, in the kernel's list format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Swap in bytes, besides memory; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Tasks (processes and threads).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes read from the disk per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Bytes written to the disk per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_write: Option<u64>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_read: Option<u64>,
    /// Writes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_write: Option<u64>,
    /// Share of the disk's time under contention, 10 to 1000; 100 is what others have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u64>,
    /// Bits received from the network per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_in: Option<u64>,
    /// Bits sent to the network per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_out: Option<u64>,
    /// Bytes that may come at once after a pause, at either rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

impl Limits {
    /// What of them holds for the network.
    pub fn rates(&self) -> Rates {
        Rates {
            incoming: self.rate_in,
            outgoing: self.rate_out,
            burst: self.burst,
        }
    }

    /// Whether any limit concerns the disk, so that the device behind the VPS must be found.
    pub fn any_io(&self) -> bool {
        let all = [
            self.io_read,
            self.io_write,
            self.iops_read,
            self.iops_write,
            self.io_weight,
        ];
        all.iter().any(Option::is_some)
    }

    /// Memory for buffers of sockets where they do not count as memory (cgroup v1), in bytes: about what a machine with this much
    /// memory allows TCP and UDP (`tcp_mem`, `udp_mem`).
    pub fn socket_memory(&self) -> Option<u64> {
        self.memory.map(|memory| (memory / 4).max(MIN_SOCKET_MEMORY))
    }

    /// Memory of the kernel for tables of the network, which never counts as memory, in bytes.
    pub fn table_memory(&self) -> u64 {
        self.memory
            .map_or(TABLE_MEMORY, |memory| (memory / 4).max(MIN_TABLE_MEMORY))
    }

    /// Processor time per [`CPU_PERIOD`], in microseconds.
    pub fn cpu_quota(&self) -> Option<i64> {
        self.cpus.map(quota)
    }
}

/// The time that so many processors have per [`CPU_PERIOD`], in microseconds.
pub fn quota(cpus: f64) -> i64 {
    // The product is below 2^53 for every processor count there is, so nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    {
        (cpus * CPU_PERIOD as f64).round() as i64
    }
}
