//! `events`: figures of a container, once or as a stream, with its out-of-memory kills.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Events;
use super::output::print;
use crate::cgroups::Stats;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::Status;

/// `events`
pub(super) fn events(host: &Host, root: &Path, args: &Events) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    if container.status(host) == Status::Stopped {
        return Err(Error::Status(format!(
            "container with id {} is not running",
            args.id
        )));
    }
    if args.stats {
        return report(host, &container);
    }
    let interval = interval(&args.interval)?;
    let mut seen = 0;
    while container.status(host) != Status::Stopped {
        report(host, &container)?;
        let kills = container
            .need_cgroup(host, "events")
            .and_then(|c| c.oom_kills())
            .unwrap_or(seen);
        if kills > seen {
            seen = kills;
            print(&format!("{}\n", json!({ "type": "oom", "id": args.id })))?;
        }
        std::thread::sleep(interval);
    }
    Ok(0)
}

fn report(host: &Host, container: &Container) -> Result<u8> {
    let stats = container.need_cgroup(host, "events")?.stats()?;
    let event = json!({ "type": "stats", "id": container.state().id, "data": shape(&stats) });
    print(&format!("{event}\n"))
}

/// `5s`, `500ms`, `1m`: Go's durations of a single unit.
fn interval(text: &str) -> Result<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().unwrap_or(0);
    let duration = match &text[end..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => Duration::ZERO,
    };
    if duration.is_zero() {
        return Err(Error::invalid(
            "--interval",
            text,
            "is not a duration above zero, such as 5s",
        ));
    }
    Ok(duration)
}

/// runc's shape: times in nanoseconds, an absent limit as the largest number.
fn shape(stats: &Stats) -> Value {
    let cpu = stats.cpu.clone().unwrap_or_default();
    let memory = stats.memory.clone().unwrap_or_default();
    let pids = stats.pids.clone().unwrap_or_default();
    let io = |read: fn(&crate::cgroups::Device) -> u64,
              write: fn(&crate::cgroups::Device) -> u64|
     -> Vec<Value> {
        let entry = |d: &crate::cgroups::Device, op: &str, value: u64| json!({ "major": d.major, "minor": d.minor, "op": op, "value": value });
        stats
            .io
            .iter()
            .flat_map(|d| [entry(d, "Read", read(d)), entry(d, "Write", write(d))])
            .collect()
    };
    json!({
        "cpu": {
            "usage": { "total": cpu.usage * 1000, "kernel": cpu.system * 1000, "user": cpu.user * 1000 },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled * 1000
            }
        },
        "memory": {
            "cache": memory.file,
            "usage": usage(memory.usage, memory.limit, memory.peak, memory.events.max),
            "swap": usage(memory.swap, memory.swap_limit, None, 0),
            "kernel": usage(memory.kernel, None, None, 0),
            "raw": { "anon": memory.anon, "file": memory.file, "inactive_file": memory.inactive_file }
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": io(|d| d.read_bytes, |d| d.write_bytes),
            "ioServicedRecursive": io(|d| d.reads, |d| d.writes)
        },
        "hugetlb": stats.hugetlb.iter().map(|(size, h)| {
            (size.clone(), json!({ "usage": h.usage, "failcnt": h.failures }))
        }).collect::<serde_json::Map<String, Value>>()
    })
}

fn usage(now: u64, limit: Option<u64>, peak: Option<u64>, failures: u64) -> Value {
    json!({ "usage": now, "limit": limit.unwrap_or(u64::MAX), "max": peak.unwrap_or(0), "failcnt": failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_go_s_durations() {
        assert_eq!(interval("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(interval("100ms").unwrap(), Duration::from_millis(100));
        for bad in ["", "0s", "5", "s", "5h5", "-1s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
