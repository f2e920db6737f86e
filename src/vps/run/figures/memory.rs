//! Memory and swap, as `free` and `top` read them.

use std::fmt::Write;

use crate::cgroups::{Memory, Stats};

/// `/proc/meminfo` (`proc_meminfo(5)`); the host's own without a limit.
pub(super) fn meminfo(stats: &Stats, host: &str) -> String {
    let Some(memory) = &stats.memory else {
        return host.to_owned();
    };
    let Some(limit) = memory.limit else {
        return host.to_owned();
    };
    let total = limit.min(field(host, "MemTotal"));
    let parts = &memory.parts;
    let free = total.saturating_sub(memory.usage);
    let files = parts.active_file + memory.inactive_file;
    // What can be had without swapping: what is free, and what the kernel gives up first.
    let available = (free + files + parts.slab_reclaimable).min(total);
    let (swap, swap_free) = swap(memory, host);
    let slab = parts.slab_reclaimable + parts.slab_unreclaimable;
    let mut text = String::with_capacity(1536);
    for (name, bytes) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", memory.file),
        ("SwapCached", 0),
        ("Active", parts.active_anon + parts.active_file),
        ("Inactive", parts.inactive_anon + memory.inactive_file),
        ("Active(anon)", parts.active_anon),
        ("Inactive(anon)", parts.inactive_anon),
        ("Active(file)", parts.active_file),
        ("Inactive(file)", memory.inactive_file),
        ("Unevictable", parts.unevictable),
        ("Mlocked", 0),
        ("SwapTotal", swap),
        ("SwapFree", swap_free),
        ("Dirty", parts.dirty),
        ("Writeback", parts.writeback),
        ("AnonPages", memory.anon),
        ("Mapped", parts.mapped),
        ("Shmem", parts.shmem),
        ("KReclaimable", parts.slab_reclaimable),
        ("Slab", slab),
        ("SReclaimable", parts.slab_reclaimable),
        ("SUnreclaim", parts.slab_unreclaimable),
        ("CommitLimit", total + swap),
        ("Committed_AS", memory.anon + parts.shmem),
        ("VmallocTotal", field(host, "VmallocTotal")),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("Hugepagesize", field(host, "Hugepagesize")),
    ] {
        let name = format!("{name}:");
        let _ = writeln!(text, "{name:<16}{:>8} kB", bytes / 1024);
    }
    text
}

/// `/proc/swaps`: one area as large as the limit.
pub(super) fn swaps(stats: &Stats, host: &str) -> String {
    let limited = stats.memory.as_ref().filter(|memory| memory.swap_limit.is_some());
    let Some(memory) = limited else {
        return host.to_owned();
    };
    let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
    // Where the host has none, neither has the VPS.
    let areas = host.lines().skip(1);
    let there: u64 = areas
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    let size = (memory.swap_limit.unwrap_or_default() / 1024).min(there);
    if size > 0 {
        let used = (memory.swap / 1024).min(size);
        let _ = writeln!(text, "none\t\t\t\t\tvirtual\t\t{size}\t\t{used}\t\t0");
    }
    text
}

/// Swap, and how much of it is free.
fn swap(memory: &Memory, host: &str) -> (u64, u64) {
    let there = field(host, "SwapTotal");
    match memory.swap_limit {
        Some(limit) => {
            let total = limit.min(there);
            (total, total.saturating_sub(memory.swap))
        }
        None => (there, field(host, "SwapFree")),
    }
}

/// A line of the host's, in bytes.
pub(super) fn field(meminfo: &str, name: &str) -> u64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    meminfo.lines().find_map(value).unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::MemoryParts;

    const HOST: &str =
        "MemTotal:  4096 kB\nMemFree: 1 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\nHugepagesize: 2048 kB\n";

    fn stats(limit: Option<u64>, usage: u64) -> Stats {
        Stats {
            memory: Some(Memory {
                limit,
                usage,
                file: 300 << 10,
                inactive_file: 100 << 10,
                swap: 64 << 10,
                swap_limit: limit,
                parts: MemoryParts {
                    active_file: 50 << 10,
                    slab_reclaimable: 7 << 10,
                    ..MemoryParts::default()
                },
                ..Memory::default()
            }),
            ..Stats::default()
        }
    }

    fn kib(text: &str, name: &str) -> u64 {
        field(text, name) / 1024
    }

    #[test]
    fn the_limit_is_all_there_is() {
        let text = meminfo(&stats(Some(1 << 20), 600 << 10), HOST);
        let seen = [
            "MemTotal",
            "MemFree",
            "MemAvailable",
            "Cached",
            "SwapTotal",
            "SwapFree",
        ]
        .map(|n| kib(&text, n));
        assert_eq!(seen, [1024, 424, 424 + 100 + 50 + 7, 300, 1024, 960]);
    }

    #[test]
    fn nothing_is_below_zero_or_above_the_host() {
        let text = meminfo(&stats(Some(1 << 40), 8 << 20), HOST);
        assert_eq!(
            ["MemTotal", "MemFree", "SwapTotal"].map(|n| kib(&text, n)),
            [4096, 0, 2048]
        );
    }

    #[test]
    fn without_a_limit_the_hosts_figures_are_the_truth() {
        assert_eq!(meminfo(&stats(None, 5), HOST), HOST);
        assert_eq!(meminfo(&Stats::default(), HOST), HOST);
        assert_eq!(swaps(&stats(None, 5), "host"), "host");
    }

    #[test]
    fn swap_is_one_area() {
        let host = "Filename Type Size Used Priority\n/dev/sdb partition 2048 5 -2\n";
        let text = swaps(&stats(Some(1 << 20), 0), host);
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["none", "virtual", "1024", "64", "0"]);
        assert_eq!(swaps(&stats(Some(1 << 20), 0), "Filename\n").lines().count(), 1);
    }
}
