//! Limits as another implementation reads them: the crate cgroups-rs, which knows both layouts and shares no line with condo.
//!
//! It is given a directory that exists and asked for values. Nothing is called that creates, writes, moves or deletes, and
//! dropping it does nothing.

use anyhow::{Context, Result};
use cgroups_rs::blkio::{BlkIoController, BlkIoData};
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::{Cgroup, MaxValue, hierarchies};

/// What it found. -1 is "no limit".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether that was on cgroup v2.
    pub v2: bool,
    /// Microseconds in each period.
    pub quota: i64,
    /// Microseconds.
    pub period: u64,
    /// `cpu.shares` on v1, `cpu.weight` on v2.
    pub weight: u64,
    /// Ranges of processors.
    pub cpus: Vec<(u64, u64)>,
    /// Ranges of memory nodes.
    pub mems: Vec<(u64, u64)>,
    /// Bytes.
    pub memory: i64,
    /// The soft limit on v1, the protection on v2, in bytes.
    pub reservation: i64,
    /// Bytes of memory and swap together on v1, of swap alone on v2, where the crate takes no limit for 0.
    pub swap: i64,
    /// Processes and threads.
    pub pids: i64,
    /// Bytes and operations a second of the devices that have a limit; on v1 only, because the crate has no `io.max`.
    pub io: Option<Throttle>,
}

/// Rates by direction and unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    pub read_bps: Vec<u64>,
    pub write_bps: Vec<u64>,
    pub read_iops: Vec<u64>,
    pub write_iops: Vec<u64>,
}

/// Reads the limits of a cgroup by its path from the root of every hierarchy.
///
/// # Errors
/// When the directory is not there, or has not the files of a controller.
pub fn read(path: &str) -> Result<Found> {
    // Joined to each mount point; an absolute path would replace it.
    let cgroup = Cgroup::load(hierarchies::auto(), path.trim_start_matches('/'));
    let cpu: &CpuController = cgroup.controller_of().context("no cpu controller")?;
    let cpuset: &CpuSetController = cgroup.controller_of().context("no cpuset controller")?;
    let memory: &MemController = cgroup.controller_of().context("no memory controller")?;
    let pids: &PidController = cgroup.controller_of().context("no pids controller")?;
    let io: &BlkIoController = cgroup.controller_of().context("no io controller")?;
    // First of all: for memory the crate panics where the directory is not there.
    let quota = cpu.cfs_quota()?;
    let (set, bytes, v2) = (cpuset.cpuset(), memory.memory_stat(), cgroup.v2());
    Ok(Found {
        v2,
        quota,
        period: cpu.cfs_period()?,
        weight: cpu.shares()?,
        cpus: set.cpus,
        mems: set.mems,
        memory: limit(bytes.limit_in_bytes),
        reservation: limit(bytes.soft_limit_in_bytes),
        swap: limit(memory.memswap().limit_in_bytes),
        pids: match pids.get_pid_max()? {
            MaxValue::Max => -1,
            MaxValue::Value(n) => n,
        },
        io: (!v2).then(|| throttle(io)),
    })
}

/// The kernel's word for no limit on v1 is the last page below 2^63.
fn limit(bytes: i64) -> i64 {
    if bytes > i64::MAX - 65_536 { -1 } else { bytes }
}

fn throttle(io: &BlkIoController) -> Throttle {
    let rates = |devices: Vec<BlkIoData>| devices.iter().map(|device| device.data).collect();
    let all = io.blkio().throttle;
    Throttle {
        read_bps: rates(all.read_bps_device),
        write_bps: rates(all.write_bps_device),
        read_iops: rates(all.read_iops_device),
        write_iops: rates(all.write_iops_device),
    }
}
