//! What VPSs use.

use serde::Serialize;

use crate::cgroups::{Cgroup, Stall, Stats};
use crate::error::Result;
use crate::net::meter::{Count, Meters};
use crate::vps::record::instance::{Condo, shown};
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// What one VPS uses. All counters begin with its run; a stopped VPS uses nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VpsStats {
    /// Its name.
    pub name: Name,
    /// What it is doing.
    pub status: VpsStatus,
    /// Processor time in microseconds.
    pub cpu: u64,
    /// Microseconds it waited because its processor time was used up.
    pub throttled: u64,
    /// Memory in use, in bytes, without the part of the page cache that goes first.
    pub memory: u64,
    /// Page cache, in bytes.
    pub cache: u64,
    /// Its limit of memory in bytes.
    pub memory_limit: Option<u64>,
    /// Swap in use, in bytes.
    pub swap: u64,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How many it may have.
    pub pids_limit: Option<u64>,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
    /// Bytes received from the network.
    pub received_bytes: u64,
    /// Bytes sent to the network.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// How long its processes have waited for processors, memory and disks; where the kernel counts it.
    pub pressure: Option<Pressure>,
}

/// How long the processes of a VPS have waited for what others had, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// For processors.
    pub cpu: Stall,
    /// For memory.
    pub memory: Stall,
    /// For disks.
    pub io: Stall,
}

impl Condo {
    /// What these VPSs use, or all where none is named; by name.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::error::Error::NotFound) for a VPS that is not there.
    pub fn stats(&self, names: &[Name]) -> Result<Vec<VpsStats>> {
        let records = match names {
            [] => self.store.list()?,
            some => some
                .iter()
                .map(|name| self.store.get(name))
                .collect::<Result<_>>()?,
        };
        let meters = Meters::read()?;
        records
            .iter()
            .map(|record| self.stats_of(record, &meters))
            .collect()
    }

    fn stats_of(&self, record: &Record, meters: &Meters) -> Result<VpsStats> {
        let container = self.container(&record.name)?;
        let status = container.as_ref().map_or(VpsStatus::Stopped, |container| {
            shown(container.status(&self.host))
        });
        let running = container.filter(|_| status != VpsStatus::Stopped);
        let cgroup = running.and_then(|container| container.cgroup(&self.host).ok().flatten());
        // One that ends at this moment has used nothing.
        let used = cgroup
            .as_ref()
            .and_then(|cgroup| cgroup.stats().ok())
            .unwrap_or_default();
        let told = told(record, status, &used);
        if status == VpsStatus::Stopped {
            return Ok(told);
        }
        let (received, sent) = self.flow(record, meters);
        Ok(VpsStats {
            received_bytes: received.bytes,
            received_packets: received.packets,
            sent_bytes: sent.bytes,
            sent_packets: sent.packets,
            pressure: cgroup.as_ref().and_then(pressure),
            ..told
        })
    }

    /// What went through its ports since they were made: received and sent.
    fn flow(&self, record: &Record, meters: &Meters) -> (Count, Count) {
        let mut both = (Count::default(), Count::default());
        let ports = record
            .interfaces
            .iter()
            .map(|interface| self.folders.interface(record.id, interface.number));
        for (received, sent) in ports.filter_map(|port| meters.port(&port)) {
            both.0 += received;
            both.1 += sent;
        }
        both
    }
}

fn pressure(cgroup: &Cgroup) -> Option<Pressure> {
    Some(Pressure {
        cpu: cgroup.stall("cpu")?,
        memory: cgroup.stall("memory")?,
        io: cgroup.stall("io")?,
    })
}

fn told(record: &Record, status: VpsStatus, used: &Stats) -> VpsStats {
    let cpu = used.cpu.clone().unwrap_or_default();
    let memory = used.memory.clone().unwrap_or_default();
    let pids = used.pids.clone().unwrap_or_default();
    VpsStats {
        name: record.name.clone(),
        status,
        cpu: cpu.usage,
        throttled: cpu.throttled,
        memory: memory.usage.saturating_sub(memory.inactive_file),
        cache: memory.file,
        memory_limit: record.config.limits.memory,
        swap: memory.swap,
        oom_kills: memory.events.oom_kill,
        pids: pids.current,
        pids_limit: record.config.limits.pids,
        read_bytes: used.io.iter().map(|device| device.read_bytes).sum(),
        write_bytes: used.io.iter().map(|device| device.write_bytes).sum(),
        reads: used.io.iter().map(|device| device.reads).sum(),
        writes: used.io.iter().map(|device| device.writes).sum(),
        received_bytes: 0,
        sent_bytes: 0,
        received_packets: 0,
        sent_packets: 0,
        pressure: None,
    }
}
