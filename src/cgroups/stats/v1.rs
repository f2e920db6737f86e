//! Measurements of cgroup v1.

use std::collections::BTreeMap;

use super::super::dir::Dir;
use super::super::hierarchy::keyed;
use super::{
    Cpu, Device, Hugetlb, Memory, MemoryEvents, MemoryParts, Stats, device_number, number, pids, text, v2,
};
use crate::error::Result;

/// Limits from here on are the kernel's way to say "none".
const NO_LIMIT: u64 = 1 << 62;

/// Fills in what the v1 hierarchies count. `place` gives the directory of a controller.
pub(in super::super) fn read<'d>(place: &dyn Fn(&str) -> Option<&'d Dir>, stats: &mut Stats) -> Result<()> {
    if let Some(dir) = place("cpuacct") {
        let cpu = stats.cpu.get_or_insert_default();
        cpu.usage = nanoseconds(dir, "cpuacct.usage")?;
        cpu.user = nanoseconds(dir, "cpuacct.usage_user")?;
        cpu.system = nanoseconds(dir, "cpuacct.usage_sys")?;
    }
    if let Some(dir) = place("cpu") {
        throttling(
            &text(dir, "cpu.stat")?.unwrap_or_default(),
            stats.cpu.get_or_insert_default(),
        );
    }
    if let Some(dir) = place("memory") {
        stats.memory = Some(memory(dir)?);
    }
    if let Some(dir) = place("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = place("blkio") {
        stats.io = io(&[counted(dir, "throttle")?, counted(dir, "bfq")?]);
    }
    if let Some(dir) = place("hugetlb") {
        stats.hugetlb = hugetlb(dir)?;
    }
    Ok(())
}

fn nanoseconds(dir: &Dir, file: &str) -> Result<u64> {
    Ok(number(dir, file)?.unwrap_or_default() / 1000)
}

fn throttling(stat: &str, cpu: &mut Cpu) {
    let get = |key| keyed(stat, key).unwrap_or_default();
    cpu.periods = get("nr_periods");
    cpu.throttled_periods = get("nr_throttled");
    cpu.throttled = get("throttled_time") / 1000;
}

fn memory(dir: &Dir) -> Result<Memory> {
    let stat = text(dir, "memory.stat")?.unwrap_or_default();
    let get = |key: &str| keyed(&stat, key).unwrap_or_default();
    let limit = limit(dir, "memory.limit_in_bytes")?;
    let both = self::limit(dir, "memory.memsw.limit_in_bytes")?;
    let oom = text(dir, "memory.oom_control")?.unwrap_or_default();
    Ok(Memory {
        usage: number(dir, "memory.usage_in_bytes")?.unwrap_or_default(),
        limit,
        peak: number(dir, "memory.max_usage_in_bytes")?,
        anon: get("total_rss"),
        file: get("total_cache"),
        inactive_file: get("total_inactive_file"),
        kernel: number(dir, "memory.kmem.usage_in_bytes")?.unwrap_or_default(),
        parts: MemoryParts::from_stat(
            |key| get(&format!("total_{key}")),
            ["mapped_file", "dirty", "writeback"],
        ),
        swap: get("total_swap"),
        swap_limit: both.map(|b| b.saturating_sub(limit.unwrap_or_default())),
        events: MemoryEvents {
            max: number(dir, "memory.failcnt")?.unwrap_or_default(),
            oom_kill: keyed(&oom, "oom_kill").unwrap_or_default(),
            ..MemoryEvents::default()
        },
    })
}

fn limit(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(number(dir, file)?.filter(|l| *l < NO_LIMIT))
}

/// What one of those who count has counted: bytes and operations, in lines of `8:0 Read 4096`. The second file is opened only where
/// the first names a disk: it names the same ones, and of thousands of idle VPSs it names none.
fn counted(dir: &Dir, who: &str) -> Result<[String; 2]> {
    let read = |what| text(dir, &format!("blkio.{who}.{what}_recursive")).map(Option::unwrap_or_default);
    let bytes = read("io_service_bytes")?;
    let operations = if bytes.contains(':') {
        read("io_serviced")?
    } else {
        String::new()
    };
    Ok([bytes, operations])
}

/// Of each device the most that one has counted. Throttles count from the first limit on that somebody has on a disk (Linux 6.10), and
/// the scheduler bfq on the disks that it serves: one of both has seen all.
fn io(counted: &[[String; 2]]) -> Vec<Device> {
    let mut devices: BTreeMap<(u32, u32), Device> = BTreeMap::new();
    for (text, is_bytes) in counted.iter().flat_map(|texts| texts.iter().zip([true, false])) {
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [device, kind, value] = words[..] else {
                continue;
            };
            let (Some(number), Ok(value)) = (device_number(device), value.parse()) else {
                continue;
            };
            let (major, minor) = number;
            let entry = devices.entry(number).or_insert(Device {
                major,
                minor,
                ..Device::default()
            });
            let most = match (kind, is_bytes) {
                ("Read", true) => &mut entry.read_bytes,
                ("Read", false) => &mut entry.reads,
                ("Write", true) => &mut entry.write_bytes,
                ("Write", false) => &mut entry.writes,
                _ => continue,
            };
            *most = (*most).max(value);
        }
    }
    devices.into_values().collect()
}

fn hugetlb(dir: &Dir) -> Result<BTreeMap<String, Hugetlb>> {
    let mut found = BTreeMap::new();
    for size in v2::page_sizes() {
        if let Some(usage) = number(dir, &format!("hugetlb.{size}.usage_in_bytes"))? {
            let entry = Hugetlb {
                usage,
                limit: limit(dir, &format!("hugetlb.{size}.limit_in_bytes"))?,
                failures: number(dir, &format!("hugetlb.{size}.failcnt"))?.unwrap_or_default(),
            };
            found.insert(size.clone(), entry);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_what_either_has_counted() {
        let throttles = ["8:0 Read 10\n8:0 Write 7\n254:0 Read 5\n", "8:0 Read 1\n"];
        let scheduler = ["8:0 Read 4096\n8:0 Write 3\n7:0 Write 9\n", "7:0 Write 2\n"];
        let all = io(&[throttles, scheduler].map(|texts| texts.map(str::to_owned)));
        let told: Vec<_> = all
            .iter()
            .map(|d| (d.major, d.read_bytes, d.write_bytes, d.writes))
            .collect();
        assert_eq!(told, [(7, 0, 9, 2), (8, 4096, 7, 0), (254, 5, 0, 0)]);
    }

    #[test]
    fn bytes_and_operations_meet_by_device() {
        let bytes = "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\n8:16 Read 1\nTotal 4609\n";
        let devices = io(&[[bytes, "8:0 Read 2\n8:0 Write 1\n8:0 Total 3\n"].map(str::to_owned)]);
        assert_eq!(devices.len(), 2);
        assert_eq!((devices[0].read_bytes, devices[0].write_bytes), (4096, 512));
        assert_eq!((devices[0].reads, devices[0].writes), (2, 1));
    }

    #[test]
    fn throttled_time_is_nanoseconds() {
        let mut cpu = Cpu::default();
        throttling("nr_periods 9\nnr_throttled 3\nthrottled_time 5000\n", &mut cpu);
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (9, 3, 5));
    }
}
