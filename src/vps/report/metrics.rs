//! What VPSs use, for Prometheus and whatever else reads OpenMetrics.
//!
//! The families that LXD's dashboards draw have LXD's names and labels; those that begin with `condo_` have no counterpart there.

use std::fmt::Write;

use super::host::HostFigures;
use super::stats::{InterfaceStats, VpsStats};
use crate::cgroups::Stall;
use crate::error::Result;
use crate::vps::record::instance::Condo;
use crate::vps::record::view::VpsStatus;

/// The media type of [`Condo::metrics`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Values with labels of their own, besides those of the VPS: `device="eth0"`.
type Samples = Vec<(String, f64)>;

/// A family of samples: its name without the suffix `_total`, its kind, what it tells, and its samples of one VPS.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&VpsStats) -> Samples,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "figures of this size have room in 53 bits"
)]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&VpsStats) -> Samples) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        samples,
    }
}

const fn gauge(name: &'static str, help: &'static str, samples: fn(&VpsStats) -> Samples) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        samples,
    }
}

fn one(value: u64) -> Samples {
    vec![(String::new(), number(value))]
}

fn any(value: Option<u64>) -> Samples {
    value.map(one).unwrap_or_default()
}

fn root(value: u64) -> Samples {
    vec![("device=\"root\"".to_owned(), number(value))]
}

/// Of the whole disk, which is one file system where it has a size.
fn disk(value: Option<u64>) -> Samples {
    let labels = "device=\"root\",fstype=\"overlay\",mountpoint=\"/\"";
    value
        .map(|value| vec![(labels.to_owned(), number(value))])
        .unwrap_or_default()
}

fn disk_free(vps: &VpsStats) -> Samples {
    let both = vps.disk_size.zip(vps.disk_used);
    disk(both.map(|(size, used)| size.saturating_sub(used)))
}

fn microseconds(value: u64) -> f64 {
    number(value) / 1e6
}

fn each_interface(vps: &VpsStats, value: fn(&InterfaceStats) -> u64) -> Samples {
    vps.interfaces
        .iter()
        .map(|interface| (format!("device=\"{}\"", interface.name), number(value(interface))))
        .collect()
}

fn pressure(vps: &VpsStats, share: fn(&Stall) -> u64) -> Samples {
    let Some(pressure) = &vps.pressure else {
        return Samples::new();
    };
    [
        ("cpu", &pressure.cpu),
        ("memory", &pressure.memory),
        ("io", &pressure.io),
    ]
    .into_iter()
    .map(|(resource, stall)| (format!("resource=\"{resource}\""), microseconds(share(stall))))
    .collect()
}

const FAMILIES: &[Family] = &[
    counter("lxd_cpu_seconds", "Processor time used.", |s| {
        let of = |mode: &str| format!("cpu=\"0\",mode=\"{mode}\"");
        vec![
            (of("user"), microseconds(s.cpu_user)),
            (of("system"), microseconds(s.cpu.saturating_sub(s.cpu_user))),
        ]
    }),
    gauge(
        "lxd_cpu_effective_total",
        "Processors that there is time for.",
        |s| vec![(String::new(), f64::from(s.processors))],
    ),
    counter("lxd_disk_read_bytes", "Bytes read from disks.", |s| {
        root(s.read_bytes)
    }),
    counter("lxd_disk_written_bytes", "Bytes written to disks.", |s| {
        root(s.write_bytes)
    }),
    counter("lxd_disk_reads_completed", "Reads from disks.", |s| root(s.reads)),
    counter("lxd_disk_writes_completed", "Writes to disks.", |s| {
        root(s.writes)
    }),
    gauge("lxd_filesystem_size_bytes", "Room on the disk.", |s| {
        disk(s.disk_size)
    }),
    gauge(
        "lxd_filesystem_avail_bytes",
        "Room on the disk that is left.",
        disk_free,
    ),
    gauge(
        "lxd_filesystem_free_bytes",
        "Room on the disk that is left.",
        disk_free,
    ),
    gauge("lxd_memory_MemTotal_bytes", "The limit of memory.", |s| {
        any(s.memory_limit)
    }),
    gauge(
        "lxd_memory_MemFree_bytes",
        "Memory within the limit that is not used.",
        |s| {
            any(s
                .memory_limit
                .map(|limit| limit.saturating_sub(s.memory + s.idle_cache)))
        },
    ),
    gauge(
        "lxd_memory_MemAvailable_bytes",
        "Memory that programs can get.",
        |s| any(s.memory_limit.map(|limit| limit.saturating_sub(s.memory))),
    ),
    gauge("lxd_memory_Cached_bytes", "Page cache.", |s| one(s.cache)),
    gauge("lxd_memory_RSS_bytes", "Anonymous memory.", |s| one(s.anonymous)),
    gauge(
        "lxd_memory_Active_anon_bytes",
        "Anonymous memory used of late.",
        |s| one(s.parts.active_anon),
    ),
    gauge("lxd_memory_Active_file_bytes", "Page cache used of late.", |s| {
        one(s.parts.active_file)
    }),
    gauge("lxd_memory_Active_bytes", "Memory used of late.", |s| {
        one(s.parts.active_anon + s.parts.active_file)
    }),
    gauge(
        "lxd_memory_Inactive_anon_bytes",
        "Anonymous memory not used of late.",
        |s| one(s.parts.inactive_anon),
    ),
    gauge(
        "lxd_memory_Inactive_file_bytes",
        "Page cache not used of late.",
        |s| one(s.idle_cache),
    ),
    gauge("lxd_memory_Inactive_bytes", "Memory not used of late.", |s| {
        one(s.parts.inactive_anon + s.idle_cache)
    }),
    gauge("lxd_memory_Mapped_bytes", "Mapped files.", |s| {
        one(s.parts.mapped)
    }),
    gauge("lxd_memory_Shmem_bytes", "Shared memory and tmpfs.", |s| {
        one(s.parts.shmem)
    }),
    gauge("lxd_memory_Dirty_bytes", "To be written to disk.", |s| {
        one(s.parts.dirty)
    }),
    gauge("lxd_memory_Writeback_bytes", "Being written to disk.", |s| {
        one(s.parts.writeback)
    }),
    gauge("lxd_memory_Unevictable_bytes", "Locked memory.", |s| {
        one(s.parts.unevictable)
    }),
    gauge("lxd_memory_Swap_bytes", "Swap used.", |s| one(s.swap)),
    counter(
        "lxd_memory_OOM_kills",
        "Processes killed for want of memory.",
        |s| one(s.oom_kills),
    ),
    counter("lxd_network_receive_bytes", "Bytes received.", |s| {
        each_interface(s, |i| i.received_bytes)
    }),
    counter("lxd_network_receive_packets", "Packets received.", |s| {
        each_interface(s, |i| i.received_packets)
    }),
    counter("lxd_network_transmit_bytes", "Bytes sent.", |s| {
        each_interface(s, |i| i.sent_bytes)
    }),
    counter("lxd_network_transmit_packets", "Packets sent.", |s| {
        each_interface(s, |i| i.sent_packets)
    }),
    gauge("lxd_procs_total", "Processes and threads.", |s| one(s.pids)),
    gauge(
        "condo_processes_limit",
        "How many processes and threads there may be.",
        |s| any(s.pids_limit),
    ),
    gauge(
        "condo_memory_used_bytes",
        "Memory used, without idle page cache.",
        |s| one(s.memory),
    ),
    gauge("condo_disk_used_bytes", "Room on the disk that is used.", |s| {
        any(s.disk_used)
    }),
    counter(
        "condo_cpu_throttled_seconds",
        "Time that the VPS waited for its quota.",
        |s| vec![(String::new(), microseconds(s.throttled))],
    ),
    counter(
        "condo_pressure_some_seconds",
        "Time that some processes waited for a resource.",
        |s| pressure(s, |stall| stall.some),
    ),
    counter(
        "condo_pressure_full_seconds",
        "Time that all processes waited for a resource.",
        |s| pressure(s, |stall| stall.full),
    ),
    gauge("condo_up", "Whether the VPS runs.", |s| {
        one(u64::from(s.status != VpsStatus::Stopped))
    }),
    gauge(
        "condo_monitor_up",
        "Whether somebody watches over the VPS.",
        |s| one(u64::from(s.is_watched)),
    ),
];

impl Condo {
    /// The figures of all VPSs and of the host in the text format of OpenMetrics 1.0.
    pub fn metrics(&self) -> Result<String> {
        let all = self.stats(&[])?;
        let statuses: Vec<VpsStatus> = all.iter().map(|vps| vps.status).collect();
        let mut text = render(&all);
        self.host_figures(&statuses)?.render(&mut text);
        text.push_str("# EOF\n");
        Ok(text)
    }
}

fn render(all: &[VpsStats]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let suffix = head(&mut text, family.name, family.kind, family.help);
        for vps in all {
            // A stopped VPS has one figure: that it is down.
            if vps.status == VpsStatus::Stopped && family.name != "condo_up" {
                continue;
            }
            for (labels, value) in (family.samples)(vps) {
                let (name, project) = (&vps.name, &vps.project);
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = writeln!(
                    text,
                    "{}{suffix}{{name=\"{name}\",project=\"{project}\",type=\"container\"{comma}{labels}}} {value}",
                    family.name
                );
            }
        }
    }
    text
}

/// The head of a family; what its samples' names end in.
pub(super) fn head(text: &mut String, name: &str, kind: Kind, help: &str) -> &'static str {
    let (kind, suffix) = match kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
    };
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    suffix
}

impl HostFigures {
    /// Adds families of the host's to a text.
    pub(super) fn render(&self, text: &mut String) {
        let mut family = |name: &str, help: &str, samples: &[(String, f64)]| {
            if samples.is_empty() {
                return;
            }
            let suffix = head(text, name, Kind::Gauge, help);
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{suffix}{{{labels}}} {value}");
            }
        };
        let each = |key: &str, all: &[(String, u64)]| -> Vec<(String, f64)> {
            let sample = |(label, value): &(String, u64)| (format!("{key}=\"{label}\""), number(*value));
            all.iter().map(sample).collect()
        };
        family("condo_vpss", "VPSs by what they do.", &each("status", &self.vpss));
        family(
            "condo_addresses_free",
            "Addresses of a network that nobody has.",
            &each("network", &self.addresses),
        );
        family(
            "condo_doctor_findings",
            "What the last run of condo doctor found.",
            &each("weight", &self.findings),
        );
        let examined: Vec<_> = self
            .examined
            .map(|at| (String::new(), number(at)))
            .into_iter()
            .collect();
        family(
            "condo_doctor_run_timestamp_seconds",
            "When condo doctor ran last.",
            &examined,
        );
        let of_projects = |limits: bool| -> Vec<(String, f64)> {
            let all = self.projects.iter();
            all.filter_map(|(project, resource, used, limit)| {
                let labels = format!("project=\"{project}\",resource=\"{resource}\"");
                Some((labels, if limits { (*limit)? } else { *used }))
            })
            .collect()
        };
        family(
            "condo_project_used",
            "What the VPSs of a project may use together.",
            &of_projects(false),
        );
        family(
            "condo_project_limit",
            "The most that they may use.",
            &of_projects(true),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(name: &str, status: VpsStatus) -> VpsStats {
        VpsStats {
            status,
            cpu: 1_500_000,
            cpu_user: 1_000_000,
            memory: 3 << 20,
            memory_limit: Some(4 << 20),
            oom_kills: 2,
            interfaces: vec![InterfaceStats {
                name: "eth1".into(),
                received_bytes: 5,
                ..InterfaceStats::default()
            }],
            ..VpsStats::stopped(name.parse().unwrap(), "default")
        }
    }

    #[test]
    fn samples_have_the_labels_of_dashboards() {
        let text = render(&[stats("web", VpsStatus::Running), stats("db", VpsStatus::Stopped)]);
        let labels = "name=\"web\",project=\"default\",type=\"container\"";
        for line in [
            format!("lxd_cpu_seconds_total{{{labels},cpu=\"0\",mode=\"user\"}} 1"),
            format!("lxd_cpu_seconds_total{{{labels},cpu=\"0\",mode=\"system\"}} 0.5"),
            format!("lxd_memory_MemAvailable_bytes{{{labels}}} 1048576"),
            format!("lxd_memory_OOM_kills_total{{{labels}}} 2"),
            format!("lxd_network_receive_bytes_total{{{labels},device=\"eth1\"}} 5"),
            "condo_up{name=\"db\",project=\"default\",type=\"container\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(text.lines().filter(|l| l.contains("\"db\"")).count(), 1);
    }

    #[test]
    fn the_host_has_figures_of_its_own() {
        let host = HostFigures {
            vpss: vec![("running".into(), 2)],
            addresses: vec![("condo0".into(), 253)],
            findings: Vec::new(),
            examined: None,
            projects: vec![("shop".into(), "memory", 5.0, None)],
        };
        let mut text = String::new();
        host.render(&mut text);
        for line in [
            "condo_vpss{status=\"running\"} 2",
            "condo_addresses_free{network=\"condo0\"} 253",
            "condo_project_used{project=\"shop\",resource=\"memory\"} 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("doctor") && !text.contains("limit"), "{text}");
    }

    #[test]
    fn a_family_comes_once_and_in_one_piece() {
        let mut names: Vec<_> = FAMILIES.iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        // OpenMetrics: a counter's family has no suffix of its own.
        assert!(
            FAMILIES
                .iter()
                .all(|f| f.kind == Kind::Gauge || !f.name.ends_with("_total"))
        );
    }
}
