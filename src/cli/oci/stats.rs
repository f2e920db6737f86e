//! What `events` tells of a container's cgroup, in the words, the order and the units of runc: times in nanoseconds, an absent limit as
//! the largest number, and what has nothing to tell left out where runc leaves it out.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::cgroups::{self, Cgroup, Device, Stats};
use crate::error::Result;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    cpu: Cpu,
    cpuset: Cpuset,
    memory: Memory,
    pids: Pids,
    blkio: Io,
    hugetlb: Map<String, Value>,
    /// Of groups for resctrl nothing is counted here.
    intel_rdt: Map<String, Value>,
    /// Nobody but the container knows its interfaces.
    network_interfaces: Option<()>,
}

#[derive(Debug, Serialize)]
struct Cpu {
    usage: Usage,
    throttling: Throttling,
}

#[derive(Debug, Serialize)]
struct Usage {
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    #[serde(flatten, serialize_with = "in_order")]
    flags: Vec<(String, u64)>,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: Filled,
    swap: Filled,
    kernel: Filled,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Filled,
    #[serde(serialize_with = "in_order", skip_serializing_if = "Vec::is_empty")]
    raw: Vec<(String, u64)>,
}

/// What fills up to a limit.
#[derive(Debug, Serialize)]
struct Filled {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Io {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<Operations>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<Operations>,
}

#[derive(Debug, Serialize)]
struct Operations {
    major: u32,
    minor: u32,
    op: &'static str,
    value: u64,
}

impl Figures {
    /// Reads them.
    pub(super) fn of(cgroup: &Cgroup) -> Result<Self> {
        let stats = cgroup.stats()?;
        Ok(Self::from_parts(&stats, cgroup.cpuset(), cgroup.memory_stat()))
    }

    fn from_parts(stats: &Stats, cpuset: cgroups::Cpuset, raw: Vec<(String, u64)>) -> Self {
        let pids = stats.pids.clone().unwrap_or_default();
        Self {
            cpu: cpu(&stats.cpu.clone().unwrap_or_default()),
            cpuset: Cpuset {
                cpus: cpuset.cpus,
                cpu_exclusive: cpuset.cpu_exclusive,
                mems: cpuset.mems,
                flags: cpuset
                    .flags
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
                sched_relax_domain_level: cpuset.sched_relax_domain_level,
            },
            memory: memory(&stats.memory.clone().unwrap_or_default(), raw),
            pids: Pids {
                current: pids.current,
                limit: pids.limit.unwrap_or(0),
            },
            blkio: Io {
                io_service_bytes_recursive: operations(&stats.io, |d| d.read_bytes, |d| d.write_bytes),
                io_serviced_recursive: operations(&stats.io, |d| d.reads, |d| d.writes),
            },
            hugetlb: stats.hugetlb.iter().map(pages).collect(),
            intel_rdt: Map::new(),
            network_interfaces: None,
        }
    }
}

fn cpu(cpu: &cgroups::Cpu) -> Cpu {
    Cpu {
        usage: Usage {
            total: cpu.usage * 1000,
            kernel: cpu.system * 1000,
            user: cpu.user * 1000,
        },
        throttling: Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled * 1000,
        },
    }
}

fn memory(memory: &cgroups::Memory, raw: Vec<(String, u64)>) -> Memory {
    let filled = |usage, limit: Option<u64>, peak: Option<u64>, failcnt| Filled {
        limit: limit.unwrap_or(u64::MAX),
        usage,
        max: peak.unwrap_or(0),
        failcnt,
    };
    Memory {
        cache: memory.file,
        usage: filled(memory.usage, memory.limit, memory.peak, memory.events.max),
        swap: filled(memory.swap, memory.swap_limit, None, 0),
        kernel: filled(memory.kernel, None, None, 0),
        kernel_tcp: filled(0, None, None, 0),
        raw,
    }
}

fn pages((size, pages): (&String, &cgroups::Hugetlb)) -> (String, Value) {
    let mut entry = Map::new();
    if pages.usage > 0 {
        entry.insert("usage".into(), pages.usage.into());
    }
    entry.insert("failcnt".into(), pages.failures.into());
    (size.clone(), entry.into())
}

fn operations(devices: &[Device], read: fn(&Device) -> u64, write: fn(&Device) -> u64) -> Vec<Operations> {
    let entry = |device: &Device, op, value| Operations {
        major: device.major,
        minor: device.minor,
        op,
        value,
    };
    devices
        .iter()
        .flat_map(|device| {
            [
                entry(device, "Read", read(device)),
                entry(device, "Write", write(device)),
            ]
        })
        .collect()
}

/// Pairs as an object that keeps their order.
fn in_order<S: Serializer>(pairs: &[(String, u64)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_runc_s_order_and_zeros_go_where_they_go_there() {
        let figures = Figures::from_parts(&Stats::default(), cgroups::Cpuset::default(), Vec::new());
        let none = r#"{"limit":18446744073709551615,"failcnt":0}"#;
        let wanted = format!(
            r#"{{"cpu":{{"usage":{{"total":0,"kernel":0,"user":0}},"throttling":{{}}}},"cpuset":{{"cpu_exclusive":0,"sched_relax_domain_level":0}},"memory":{{"usage":{none},"swap":{none},"kernel":{none},"kernelTCP":{none}}},"pids":{{}},"blkio":{{}},"hugetlb":{{}},"intel_rdt":{{}},"network_interfaces":null}}"#
        );
        assert_eq!(serde_json::to_string(&figures).unwrap(), wanted);
    }

    #[test]
    fn what_there_is_is_told() {
        let stats = Stats {
            pids: Some(cgroups::Pids {
                current: 3,
                limit: Some(40),
                refused: 0,
            }),
            io: vec![Device {
                major: 8,
                minor: 16,
                read_bytes: 4096,
                reads: 1,
                ..Device::default()
            }],
            ..Stats::default()
        };
        let cpuset = cgroups::Cpuset {
            cpus: vec![0, 1],
            cpu_exclusive: 1,
            mems: vec![0],
            flags: vec![("mem_hardwall", 0)],
            sched_relax_domain_level: -1,
        };
        let figures = Figures::from_parts(&stats, cpuset, vec![("total_rss".into(), 7), ("anon".into(), 8)]);
        let told = serde_json::to_string(&figures).unwrap();
        for part in [
            r#""cpuset":{"cpus":[0,1],"cpu_exclusive":1,"mems":[0],"mem_hardwall":0,"sched_relax_domain_level":-1}"#,
            r#""raw":{"total_rss":7,"anon":8}"#,
            r#""pids":{"current":3,"limit":40}"#,
            r#""ioServicedRecursive":[{"major":8,"minor":16,"op":"Read","value":1},{"major":8,"minor":16,"op":"Write","value":0}]"#,
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
