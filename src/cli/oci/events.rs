//! `events`: figures of a container, once or as a stream, with its out-of-memory kills.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Events;
use super::output::print;
use super::stats::Figures;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::Status;

/// Longest time until an out-of-memory kill, or the end of the container, is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// `events`
pub(super) fn events(host: &Host, root: &Path, args: &Events) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    if ended(host, &container) {
        return Err(Error::Status(format!(
            "container with id {} is not running",
            args.id
        )));
    }
    if args.stats {
        return report(host, &container);
    }
    follow(host, &container, interval(&args.interval)?)
}

/// Reports until the container ends: the figures at each interval, kills as they come.
fn follow(host: &Host, container: &Container, interval: Duration) -> Result<u8> {
    let mut told = oom_kills(host, container).unwrap_or_default();
    loop {
        if let Err(e) = report(host, container) {
            // The cgroup of a container that ended meanwhile may be gone, which is no fault.
            return if ended(host, container) { Ok(0) } else { Err(e) };
        }
        let reported = Instant::now();
        while let Some(rest) = interval.checked_sub(reported.elapsed()) {
            std::thread::sleep(rest.min(LOOK));
            // Asked before the count is read: the kill that ended the container is told too.
            let ended = ended(host, container);
            let kills = oom_kills(host, container).unwrap_or(told);
            if kills > told {
                told = kills;
                print(&line("oom", container, None)?)?;
            }
            if ended {
                return Ok(0);
            }
        }
    }
}

fn ended(host: &Host, container: &Container) -> bool {
    container.status(host) == Status::Stopped
}

fn oom_kills(host: &Host, container: &Container) -> Result<u64> {
    container.need_cgroup(host, "events")?.oom_kills()
}

fn report(host: &Host, container: &Container) -> Result<u8> {
    let cgroup = container.need_cgroup(host, "events")?;
    let figures = Figures::of(&cgroup)?;
    print(&line("stats", container, Some(&figures))?)
}

/// An event as runc writes it. Scripts match the text, and so the order of the keys counts.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Figures>,
}

fn line(kind: &str, container: &Container, data: Option<&Figures>) -> Result<String> {
    let id = container.state().id.as_str();
    Ok(format!("{}\n", serde_json::to_string(&Event { kind, id, data })?))
}

/// One of Go's durations: `5s`, `500ms`, `1m30s`, `1.5h`.
fn interval(text: &str) -> Result<Duration> {
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| {
            Error::invalid(
                "--interval",
                text,
                "is not a duration above zero, such as 5s or 1m30s",
            )
        })
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c| !in_number(c))?);
        let (unit, next) = tail.split_at(tail.find(in_number).unwrap_or(tail.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = next;
    }
    Some(sum)
}

fn in_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_go_s_durations() {
        assert_eq!(interval("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(interval("100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(interval("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(interval("1.5h").unwrap(), Duration::from_secs(5400));
        for bad in ["", "0s", "5", "s", "5h5", "-1s", "1.2.3s", "9999999999999999999h"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
