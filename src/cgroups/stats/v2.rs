//! Measurements of cgroup v2.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::super::dir::Dir;
use super::super::hierarchy::keyed;
use super::{
    Cpu, Device, Hugetlb, Memory, MemoryEvents, MemoryParts, Stats, device_number, number, pids, text,
};
use crate::error::Result;

/// Everything that `dir` counts.
pub(in super::super) fn read(dir: &Dir) -> Result<Stats> {
    Ok(Stats {
        cpu: text(dir, "cpu.stat")?.map(|t| cpu(&t)),
        memory: memory(dir)?,
        pids: pids(dir)?,
        io: text(dir, "io.stat")?.map_or_else(Vec::new, |t| io(&t)),
        hugetlb: hugetlb(dir)?,
    })
}

fn cpu(stat: &str) -> Cpu {
    let get = |key| keyed(stat, key).unwrap_or_default();
    Cpu {
        usage: get("usage_usec"),
        user: get("user_usec"),
        system: get("system_usec"),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_usec"),
    }
}

fn memory(dir: &Dir) -> Result<Option<Memory>> {
    let Some(usage) = number(dir, "memory.current")? else {
        return Ok(None);
    };
    let stat = text(dir, "memory.stat")?.unwrap_or_default();
    let get = |key: &str| keyed(&stat, key).unwrap_or_default();
    let events = text(dir, "memory.events")?.unwrap_or_default();
    Ok(Some(Memory {
        usage,
        limit: number(dir, "memory.max")?,
        peak: number(dir, "memory.peak")?,
        anon: get("anon"),
        file: get("file"),
        inactive_file: get("inactive_file"),
        kernel: get("kernel"),
        parts: MemoryParts::from_stat(get, ["file_mapped", "file_dirty", "file_writeback"]),
        swap: number(dir, "memory.swap.current")?.unwrap_or_default(),
        swap_limit: number(dir, "memory.swap.max")?,
        events: memory_events(&events),
    }))
}

fn memory_events(events: &str) -> MemoryEvents {
    let get = |key| keyed(events, key).unwrap_or_default();
    MemoryEvents {
        low: get("low"),
        high: get("high"),
        max: get("max"),
        oom: get("oom"),
        oom_kill: get("oom_kill"),
    }
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(stat: &str) -> Vec<Device> {
    stat.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = device_number(words.next()?)?;
            let values: BTreeMap<&str, u64> = words
                .filter_map(|w| w.split_once('='))
                .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
                .collect();
            let get = |key| values.get(key).copied().unwrap_or_default();
            Some(Device {
                major,
                minor,
                read_bytes: get("rbytes"),
                write_bytes: get("wbytes"),
                reads: get("rios"),
                writes: get("wios"),
            })
        })
        .collect()
}

fn hugetlb(dir: &Dir) -> Result<BTreeMap<String, Hugetlb>> {
    let mut found = BTreeMap::new();
    for size in page_sizes() {
        if let Some(usage) = number(dir, &format!("hugetlb.{size}.current"))? {
            let events = text(dir, &format!("hugetlb.{size}.events"))?.unwrap_or_default();
            let entry = Hugetlb {
                usage,
                limit: number(dir, &format!("hugetlb.{size}.max"))?,
                failures: keyed(&events, "max").unwrap_or_default(),
            };
            found.insert(size.clone(), entry);
        }
    }
    Ok(found)
}

/// The sizes of huge pages this kernel has, as cgroup files spell them: `hugepages-2048kB` is `2MB`. It has the same as long as it runs.
pub(super) fn page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter();
        let names = entries.flatten().flatten();
        names.filter_map(|e| spelled(e.file_name().to_str()?)).collect()
    })
}

fn spelled(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kilobytes {
        k if k >= 1 << 20 => format!("{}GB", k >> 20),
        k if k >= 1 << 10 => format!("{}MB", k >> 10),
        k => format!("{k}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read() {
        let stat =
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n";
        let cpu = cpu(stat);
        assert_eq!((cpu.usage, cpu.user, cpu.system), (30, 20, 10));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (5, 2, 7));
    }

    #[test]
    fn devices_are_read_and_odd_lines_skipped() {
        let devices = io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1\nnonsense\n");
        assert_eq!(devices.len(), 2);
        assert_eq!(
            (devices[0].read_bytes, devices[0].write_bytes, devices[0].reads),
            (1, 2, 3)
        );
        assert_eq!(devices[1].major, 253);
    }

    #[test]
    fn an_event_is_not_taken_for_its_namesake() {
        let events = memory_events("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n");
        assert_eq!((events.oom, events.oom_kill), (4, 5));
    }

    #[test]
    fn page_sizes_are_spelled_like_cgroup_files() {
        assert_eq!(spelled("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(spelled("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(spelled("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(spelled("other"), None);
    }
}
