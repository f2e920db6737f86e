//! What VPSs use, for Prometheus and whatever else reads OpenMetrics.
//!
//! The families that LXD's dashboards draw have LXD's names and labels; those that begin with `condo_` have no counterpart there.

use std::fmt::Write;

use super::stats::VpsStats;
use crate::error::Result;
use crate::vps::record::instance::Condo;
use crate::vps::record::view::VpsStatus;

/// The media type of [`Condo::metrics`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A family of samples: its name without the suffix `_total`, its kind, what it tells, and its sample of one VPS.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static str,
    value: fn(&VpsStats) -> Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "figures of this size have room in 53 bits"
)]
fn number(value: u64) -> f64 {
    value as f64
}

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static str,
    value: fn(&VpsStats) -> Option<f64>,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        labels,
        value,
    }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&VpsStats) -> Option<f64>) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        labels: "",
        value,
    }
}

const FAMILIES: &[Family] = &[
    counter(
        "lxd_cpu_seconds",
        "Processor time used.",
        ",cpu=\"0\",mode=\"user\"",
        |s| Some(number(s.cpu) / 1e6),
    ),
    counter(
        "lxd_disk_read_bytes",
        "Bytes read from disks.",
        ",device=\"root\"",
        |s| Some(number(s.read_bytes)),
    ),
    counter(
        "lxd_disk_written_bytes",
        "Bytes written to disks.",
        ",device=\"root\"",
        |s| Some(number(s.write_bytes)),
    ),
    counter(
        "lxd_disk_reads_completed",
        "Reads from disks.",
        ",device=\"root\"",
        |s| Some(number(s.reads)),
    ),
    counter(
        "lxd_disk_writes_completed",
        "Writes to disks.",
        ",device=\"root\"",
        |s| Some(number(s.writes)),
    ),
    gauge("lxd_memory_MemTotal_bytes", "The limit of memory.", |s| {
        s.memory_limit.map(number)
    }),
    gauge(
        "lxd_memory_MemFree_bytes",
        "Memory within the limit that is not used.",
        |s| s.memory_limit.map(|limit| number(limit.saturating_sub(s.memory))),
    ),
    gauge("lxd_memory_Cached_bytes", "Page cache.", |s| {
        Some(number(s.cache))
    }),
    gauge("lxd_memory_Swap_bytes", "Swap used.", |s| Some(number(s.swap))),
    gauge("lxd_procs_total", "Processes and threads.", |s| {
        Some(number(s.pids))
    }),
    gauge(
        "condo_memory_used_bytes",
        "Memory used, without idle page cache.",
        |s| Some(number(s.memory)),
    ),
    counter(
        "condo_oom_kills",
        "Processes killed for want of memory.",
        "",
        |s| Some(number(s.oom_kills)),
    ),
    counter(
        "condo_cpu_throttled_seconds",
        "Time that the VPS waited for its quota.",
        "",
        |s| Some(number(s.throttled) / 1e6),
    ),
    gauge("condo_up", "Whether the VPS runs.", |s| {
        Some(if s.status == VpsStatus::Stopped { 0.0 } else { 1.0 })
    }),
];

impl Condo {
    /// The figures of all VPSs in the text format of OpenMetrics 1.0.
    pub fn metrics(&self) -> Result<String> {
        Ok(render(&self.stats(&[])?))
    }
}

fn render(all: &[VpsStats]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let Family {
            name, help, labels, ..
        } = family;
        let (kind, suffix) = match family.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for vps in all {
            // A stopped VPS has one figure: that it is down.
            let shown = vps.status != VpsStatus::Stopped || *name == "condo_up";
            if let Some(value) = (family.value)(vps).filter(|_| shown) {
                let vps = &vps.name;
                let _ = writeln!(
                    text,
                    "{name}{suffix}{{name=\"{vps}\",project=\"default\",type=\"container\"{labels}}} {value}"
                );
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(name: &str, status: VpsStatus) -> VpsStats {
        VpsStats {
            name: name.parse().unwrap(),
            status,
            cpu: 1_500_000,
            throttled: 0,
            memory: 3 << 20,
            cache: 0,
            memory_limit: Some(4 << 20),
            swap: 0,
            oom_kills: 2,
            pids: 7,
            pids_limit: None,
            read_bytes: 9,
            write_bytes: 8,
            reads: 1,
            writes: 1,
            received_bytes: 0,
            sent_bytes: 0,
            received_packets: 0,
            sent_packets: 0,
            pressure: None,
        }
    }

    #[test]
    fn samples_have_the_labels_of_dashboards() {
        let text = render(&[stats("web", VpsStatus::Running), stats("db", VpsStatus::Stopped)]);
        let labels = "name=\"web\",project=\"default\",type=\"container\"";
        for line in [
            format!("lxd_cpu_seconds_total{{{labels},cpu=\"0\",mode=\"user\"}} 1.5"),
            format!("lxd_memory_MemFree_bytes{{{labels}}} 1048576"),
            format!("condo_oom_kills_total{{{labels}}} 2"),
            "condo_up{name=\"db\",project=\"default\",type=\"container\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(text.lines().filter(|l| l.contains("\"db\"")).count(), 1);
        assert!(text.ends_with("# EOF\n"));
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
