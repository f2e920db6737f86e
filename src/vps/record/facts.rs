//! What a limit is measured against: the host's processors, memory and controllers, probed once.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::time::ClockId;

use super::cpuset;
use crate::error::{Error, Result};
use crate::files;
use crate::host::{CgroupLayout, Host};

/// The host as limits see it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Processors that are online.
    pub cpus: BTreeSet<u32>,
    /// Installed memory (`MemTotal`), in bytes.
    pub memory: u64,
    /// Swap space, in bytes.
    pub swap: u64,
    /// Controllers that can be used, by their cgroup v2 names (`blkio` counts as `io`).
    pub controllers: BTreeSet<String>,
    /// Whether the kernel can limit swap apart from memory (`swapaccount=0` switches it off).
    pub swap_accounting: bool,
    /// Whether all controllers are on cgroup v2.
    pub unified: bool,
    /// The hard limit of open files, which only CAP_SYS_RESOURCE may raise.
    pub open_files: u64,
    /// Our own OOM score adjustment, which a child inherits and only CAP_SYS_RESOURCE may lower.
    pub oom_score: i32,
    /// What its clocks say now, where a VPS can have clocks of its own (`time_namespaces(7)`).
    pub clocks: Option<Clocks>,
}

/// Clocks that count from the host's boot, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Without the time the host was suspended.
    pub monotonic: i64,
    /// With it.
    pub boottime: i64,
}

impl Clocks {
    /// Reads them, if this kernel has time namespaces.
    pub fn read() -> Option<Self> {
        let seconds = |clock| rustix::time::clock_gettime(clock).tv_sec;
        files::exists(Path::new("/proc/self/ns/time")).then(|| Self {
            monotonic: seconds(ClockId::Monotonic),
            boottime: seconds(ClockId::Boottime),
        })
    }
}

impl Facts {
    /// Looks at the machine.
    pub fn probe(host: &Host) -> Result<Self> {
        let meminfo = files::read_text(Path::new("/proc/meminfo"))?;
        let oom_score = files::read_text(Path::new("/proc/self/oom_score_adj"))?;
        Ok(Self {
            cpus: cpuset::online()?,
            memory: meminfo_field(&meminfo, "MemTotal")?,
            swap: meminfo_field(&meminfo, "SwapTotal")?,
            controllers: controllers(&host.cgroups),
            swap_accounting: swap_accounting(&host.cgroups),
            unified: matches!(host.cgroups, CgroupLayout::Unified(_)),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .unwrap_or(u64::MAX),
            oom_score: oom_score.trim().parse().unwrap_or(0),
            clocks: Clocks::read(),
        })
    }
}

/// The machine's memory, in bytes.
pub fn memory() -> Result<u64> {
    meminfo_field(&files::read_text(Path::new("/proc/meminfo"))?, "MemTotal")
}

/// One line of `/proc/meminfo` (`proc_meminfo(5)`: kibibytes), in bytes.
fn meminfo_field(meminfo: &str, field: &str) -> Result<u64> {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| Error::Corrupt(format!("`/proc/meminfo` has no `{field}`")))
}

fn controllers(layout: &CgroupLayout) -> BTreeSet<String> {
    let v2 = layout
        .unified()
        .and_then(|mount| files::read_text(&mount.join("cgroup.controllers")).ok())
        .unwrap_or_default();
    let mut found: BTreeSet<String> = v2.split_whitespace().map(Into::into).collect();
    if let CgroupLayout::Hybrid { v1, .. } = layout {
        let names = v1.iter().flat_map(|h| &h.controllers);
        found.extend(names.map(|c| if c == "blkio" { "io".to_owned() } else { c.clone() }));
    }
    found
}

/// On v1 the file says so. On v2 it is in no root cgroup, so the kernel's own rule is asked: built with swap, and accounting
/// not switched off at boot.
fn swap_accounting(layout: &CgroupLayout) -> bool {
    match layout {
        CgroupLayout::Unified(_) => {
            let command_line = files::read_text(Path::new("/proc/cmdline")).unwrap_or_default();
            files::exists(Path::new("/proc/swaps")) && !switched_off(&command_line)
        }
        CgroupLayout::Hybrid { v1, .. } => v1
            .iter()
            .filter(|h| h.controllers.iter().any(|c| c == "memory"))
            .any(|h| files::exists(&h.mount.join("memory.memsw.limit_in_bytes"))),
    }
}

/// Whether the last `swapaccount=` of the kernel's command line says no.
fn switched_off(command_line: &str) -> bool {
    let mut values = command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("swapaccount="));
    values.next_back() == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24684160 kB\nMemFree: 1 kB\nSwapTotal:             0 kB\n";
        assert_eq!(meminfo_field(text, "MemTotal").unwrap(), 24_684_160 * 1024);
        assert_eq!(meminfo_field(text, "SwapTotal").unwrap(), 0);
        assert!(meminfo_field(text, "Mem").is_err());
    }

    #[test]
    fn the_last_word_on_swap_counts() {
        assert!(switched_off("quiet swapaccount=1 swapaccount=0\n"));
        assert!(!switched_off("swapaccount=0 swapaccount=1"));
        assert!(!switched_off("quiet"));
    }

    #[test]
    fn this_host_has_processors_and_memory() {
        let host = Host {
            cgroups: CgroupLayout::Hybrid {
                v1: Vec::new(),
                unified: None,
            },
            caller: crate::host::Caller::ROOT,
        };
        let facts = Facts::probe(&host).unwrap();
        assert!(!facts.cpus.is_empty() && facts.memory > 1 << 20);
        assert!(facts.controllers.is_empty() && !facts.swap_accounting);
    }
}
