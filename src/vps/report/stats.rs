//! What VPSs use.

use serde::Serialize;

use crate::cgroups::{Cgroup, MemoryParts, Stall, Stats};
use crate::error::Result;
use crate::net::meter::Meters;
use crate::storage::Usage;
use crate::vps::record::attachment::Interface;
use crate::vps::record::instance::{Condo, shown};
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// What one VPS uses. All counters begin with its run; a stopped VPS uses nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VpsStats {
    /// Its name.
    pub name: Name,
    /// The project it is in.
    pub project: String,
    /// What it is doing.
    pub status: VpsStatus,
    /// Whether its monitor is there, which records its end and starts it again.
    pub is_watched: bool,
    /// Processor time in microseconds.
    pub cpu: u64,
    /// What of it was in user mode.
    pub cpu_user: u64,
    /// Processors that its limit has time for.
    pub processors: u32,
    /// Microseconds it waited because its processor time was used up.
    pub throttled: u64,
    /// Memory in use, in bytes, without the part of the page cache that goes first.
    pub memory: u64,
    /// Page cache, in bytes.
    pub cache: u64,
    /// What of the page cache goes first.
    pub idle_cache: u64,
    /// Anonymous memory, in bytes.
    pub anonymous: u64,
    /// Where its memory lies, in more detail.
    #[serde(skip)]
    pub parts: MemoryParts,
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
    /// How often it was refused one more.
    pub pids_refused: u64,
    /// Bytes that fit on its disk, where that is limited.
    pub disk_size: Option<u64>,
    /// Bytes in use of it, where the back end counts them.
    pub disk_used: Option<u64>,
    /// Bytes that still fit on it, where its back end knows. A file system of its own takes some of its size for itself.
    pub disk_free: Option<u64>,
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
    /// The same of each interface.
    pub interfaces: Vec<InterfaceStats>,
    /// How long its processes have waited for processors, memory and disks; where the kernel counts it.
    pub pressure: Option<Pressure>,
}

/// What went through an interface, as the VPS sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceStats {
    /// Its name inside.
    pub name: String,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
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

impl VpsStats {
    /// What a stopped VPS uses.
    pub fn stopped(name: Name, project: &str) -> Self {
        Self {
            name,
            project: project.to_owned(),
            status: VpsStatus::Stopped,
            is_watched: false,
            cpu: 0,
            cpu_user: 0,
            processors: 0,
            throttled: 0,
            memory: 0,
            cache: 0,
            idle_cache: 0,
            anonymous: 0,
            parts: MemoryParts::default(),
            memory_limit: None,
            swap: 0,
            oom_kills: 0,
            pids: 0,
            pids_limit: None,
            pids_refused: 0,
            disk_size: None,
            disk_used: None,
            disk_free: None,
            read_bytes: 0,
            write_bytes: 0,
            reads: 0,
            writes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            received_packets: 0,
            sent_packets: 0,
            interfaces: Vec::new(),
            pressure: None,
        }
    }

    fn used(self, used: &Stats) -> Self {
        let cpu = used.cpu.clone().unwrap_or_default();
        let memory = used.memory.clone().unwrap_or_default();
        Self {
            cpu: cpu.usage,
            cpu_user: cpu.user,
            throttled: cpu.throttled,
            memory: memory.usage.saturating_sub(memory.inactive_file),
            cache: memory.file,
            idle_cache: memory.inactive_file,
            anonymous: memory.anon,
            parts: memory.parts.clone(),
            swap: memory.swap,
            oom_kills: memory.events.oom_kill,
            pids: used.pids.as_ref().map_or(0, |pids| pids.current),
            pids_refused: used.pids.as_ref().map_or(0, |pids| pids.refused),
            read_bytes: used.io.iter().map(|device| device.read_bytes).sum(),
            write_bytes: used.io.iter().map(|device| device.write_bytes).sum(),
            reads: used.io.iter().map(|device| device.reads).sum(),
            writes: used.io.iter().map(|device| device.writes).sum(),
            ..self
        }
    }

    fn sent(self, interfaces: Vec<InterfaceStats>) -> Self {
        let sum = |value: fn(&InterfaceStats) -> u64| interfaces.iter().map(value).sum();
        Self {
            received_bytes: sum(|one| one.received_bytes),
            sent_bytes: sum(|one| one.sent_bytes),
            received_packets: sum(|one| one.received_packets),
            sent_packets: sum(|one| one.sent_packets),
            interfaces,
            ..self
        }
    }
}

/// What is looked at once for all.
struct Sight {
    meters: Meters,
    /// Of the machine, as far as this process may use them.
    processors: u32,
}

impl Condo {
    /// What these VPSs use, or all where none is named; by name.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::error::Error::NotFound) for a VPS that is not there.
    pub fn stats(&self, names: &[Name]) -> Result<Vec<VpsStats>> {
        let records = match names {
            [] => self.members()?,
            some => some
                .iter()
                .map(|name| self.store.get(name))
                .collect::<Result<_>>()?,
        };
        let all = std::thread::available_parallelism();
        let sight = Sight {
            meters: Meters::read()?,
            processors: all.map_or(1, |all| u32::try_from(all.get()).unwrap_or(1)),
        };
        self.look_at_each(&records, |condo, record| condo.stats_of(record, &sight))
    }

    fn stats_of(&self, record: &Record, sight: &Sight) -> Result<VpsStats> {
        let limits = &record.config.limits;
        let stopped = VpsStats {
            memory_limit: limits.memory,
            pids_limit: limits.pids,
            processors: processors(limits.cpus, sight.processors),
            disk_size: record.config.disk.size,
            ..VpsStats::stopped(record.name.clone(), record.project())
        };
        let Some(container) = self.container(&record.name)? else {
            return Ok(stopped);
        };
        let status = shown(container.status(&self.host));
        if status == VpsStatus::Stopped {
            return Ok(stopped);
        }
        // One that ends at this moment has used nothing.
        let cgroup = container.cgroup(&self.host).ok().flatten();
        let used = cgroup
            .as_ref()
            .and_then(|cgroup| cgroup.stats().ok())
            .unwrap_or_default();
        let disk = self.counted_disk(record);
        Ok(VpsStats {
            status,
            is_watched: self.is_watched(&record.name),
            pressure: cgroup.as_ref().and_then(pressure),
            disk_used: disk.as_ref().map(|disk| disk.used),
            disk_free: disk.and_then(|disk| disk.free),
            ..stopped.used(&used).sent(self.interfaces(record, &sight.meters))
        })
    }

    /// Only where somebody counts anyhow: to measure takes long.
    fn counted_disk(&self, record: &Record) -> Option<Usage> {
        let volume = self.volume(record);
        volume.is_counted().then(|| volume.usage().ok()).flatten()
    }

    /// What went through its ports since they were made.
    fn interfaces(&self, record: &Record, meters: &Meters) -> Vec<InterfaceStats> {
        let of_one = |interface: &Interface| {
            let (received, sent) = meters.port(&self.folders.interface(record.id, interface.number))?;
            Some(InterfaceStats {
                name: interface.name(),
                received_bytes: received.bytes,
                received_packets: received.packets,
                sent_bytes: sent.bytes,
                sent_packets: sent.packets,
            })
        };
        record.interfaces.iter().filter_map(of_one).collect()
    }
}

/// As many as `--cpus` has time for, and no less than one; all without.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of processors"
)]
fn processors(cpus: Option<f64>, all: u32) -> u32 {
    cpus.map_or(all, |cpus| cpus.ceil().max(1.0) as u32)
}

fn pressure(cgroup: &Cgroup) -> Option<Pressure> {
    Some(Pressure {
        cpu: cgroup.stall("cpu")?,
        memory: cgroup.stall("memory")?,
        io: cgroup.stall("io")?,
    })
}
