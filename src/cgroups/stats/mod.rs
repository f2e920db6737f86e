//! What a cgroup has used. Times are in microseconds, sizes in bytes; `None` is a controller that is not there.

pub(super) mod v1;
pub(super) mod v2;

use std::collections::BTreeMap;

use serde::Serialize;

use super::dir::Dir;
use crate::error::Result;

/// All measurements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory and swap.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Block devices, by number.
    pub io: Vec<Device>,
    /// Huge pages by page size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processor time, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// All of it.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Enforcement periods that have passed, where there is a quota.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In use now, page cache included.
    pub usage: u64,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// The most that was in use (v2: since Linux 5.19).
    pub peak: Option<u64>,
    /// Anonymous memory of the processes.
    pub anon: u64,
    /// Page cache.
    pub file: u64,
    /// Page cache not used of late, which goes first: what tools subtract from the usage.
    pub inactive_file: u64,
    /// The kernel's own (v2: since Linux 5.18).
    pub kernel: u64,
    /// Where it lies, in more detail.
    #[serde(skip)]
    pub parts: MemoryParts,
    /// Swap in use.
    pub swap: u64,
    /// The limit of swap alone; `None` without one.
    pub swap_limit: Option<u64>,
    /// What happened at the limits.
    pub events: MemoryEvents,
}

/// Lines of `memory.stat` that have a counterpart in `/proc/meminfo`, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Anonymous memory and tmpfs, used of late.
    pub active_anon: u64,
    /// The same, not used of late.
    pub inactive_anon: u64,
    /// Page cache used of late.
    pub active_file: u64,
    /// Locked.
    pub unevictable: u64,
    /// Mapped files.
    pub mapped: u64,
    /// tmpfs and shared memory.
    pub shmem: u64,
    /// To be written to disk.
    pub dirty: u64,
    /// Being written.
    pub writeback: u64,
    /// The kernel's own that it can give up (v2).
    pub slab_reclaimable: u64,
    /// The kernel's own that it cannot (v2).
    pub slab_unreclaimable: u64,
}

impl MemoryParts {
    /// From lines whose keys have a prefix (v1 has `total_` for the cgroup with those below); some are spelled differently there.
    fn from_stat(get: impl Fn(&str) -> u64, [mapped, dirty, writeback]: [&str; 3]) -> Self {
        Self {
            active_anon: get("active_anon"),
            inactive_anon: get("inactive_anon"),
            active_file: get("active_file"),
            unevictable: get("unevictable"),
            shmem: get("shmem"),
            slab_reclaimable: get("slab_reclaimable"),
            slab_unreclaimable: get("slab_unreclaimable"),
            mapped: get(mapped),
            dirty: get(dirty),
            writeback: get(writeback),
        }
    }
}

/// How often a limit was met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEvents {
    /// Reclaimed although below the reservation (v2).
    pub low: u64,
    /// Slowed down above `memory.high` (v2).
    pub high: u64,
    /// About to pass the limit.
    pub max: u64,
    /// Out of memory after all was tried (v2).
    pub oom: u64,
    /// Processes killed for it.
    pub oom_kill: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// How often one more was refused. Before Linux 6.10 those of cgroups below count there.
    pub refused: u64,
}

/// One block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its numbers.
    pub major: u32,
    /// Its numbers.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// In use.
    pub usage: u64,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// Allocations refused at the limit.
    pub failures: u64,
}

/// A file's text, or `None` where the kernel does not have it.
fn text(dir: &Dir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.is_gone() => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file with one number; `None` where it is missing or says `max`.
fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(text(dir, file)?.and_then(|t| t.trim().parse().ok()))
}

/// `8:0` as numbers.
fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `pids` is the same on v1 and v2.
fn pids(dir: &Dir) -> Result<Option<Pids>> {
    let Some(current) = number(dir, "pids.current")? else {
        return Ok(None);
    };
    let events = text(dir, "pids.events")?.unwrap_or_default();
    let refused = events.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    Ok(Some(Pids {
        current,
        limit: number(dir, "pids.max")?,
        refused: refused.unwrap_or_default(),
    }))
}
