//! Processors and their time, as `nproc`, `top` and `uptime` read them.

use std::collections::BTreeSet;
use std::fmt::Write;

use rustix::time::{ClockId, clock_gettime};

use super::load::Active;
use crate::cgroups::{Share, Stats};
use crate::error::Result;
use crate::vps::record::cpuset;

/// The processors a VPS has: those it may run on, or as many as it has time for where it may run on more.
pub(super) fn list(share: &Share) -> Result<BTreeSet<u32>> {
    Ok(of(share, cpuset::online()?))
}

fn of(share: &Share, host: BTreeSet<u32>) -> BTreeSet<u32> {
    let allowed = match cpuset::parse(share.list.trim()) {
        Some(list) => list.intersection(&host).copied().collect(),
        None => host,
    };
    // Above 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let busy = share.time.map_or(usize::MAX, |time| time.ceil() as usize).max(1);
    allowed.into_iter().take(busy).collect()
}

/// `/sys/devices/system/cpu/online`.
pub(super) fn online(share: &Share, host: &str) -> String {
    cpuset::parse(host.trim()).map_or_else(|| host.to_owned(), |all| cpuset::display(&of(share, all)) + "\n")
}

/// `/proc/cpuinfo`: the paragraphs of its own processors, with the numbers that their affinity has.
pub(super) fn cpuinfo(share: &Share, host: &str) -> Result<String> {
    let cpus = list(share)?;
    Ok(filter(host, &cpus))
}

fn filter(host: &str, cpus: &BTreeSet<u32>) -> String {
    let is_other = |paragraph: &&str| {
        let number = paragraph.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "processor").then(|| value.trim().parse::<u32>().ok())?
        });
        number.is_some_and(|number| !cpus.contains(&number))
    };
    let own: Vec<&str> = host.split("\n\n").filter(|p| !is_other(p)).collect();
    own.join("\n\n")
}

/// Time as the VPS counts it.
#[derive(Debug)]
pub(super) struct Clock {
    /// The second of the host's clock (`CLOCK_BOOTTIME`) at which it began.
    began: i64,
    /// Idle time that was told last, in microseconds: it must not run backwards, or tools see 10^18 percent.
    idle: u64,
}

impl Clock {
    pub(super) fn new(began: i64) -> Self {
        Self { began, idle: 0 }
    }

    /// The second of the host's clock at which it began.
    pub(super) fn began(&self) -> i64 {
        self.began
    }

    /// Since it began, in microseconds.
    fn elapsed(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec - self.began).unwrap_or(0);
        seconds * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
    }

    /// How many processors were busy on average, since it began.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn average(&self, stats: &Stats) -> f64 {
        let used = stats.cpu.as_ref().map_or(0, |cpu| cpu.usage);
        used as f64 / self.elapsed().max(1) as f64
    }

    /// What `cpus` processors had left, in microseconds.
    fn idle(&mut self, cpus: usize, stats: &Stats) -> u64 {
        let used = stats.cpu.as_ref().map_or(0, |cpu| cpu.usage);
        self.idle = (self.elapsed() * cpus as u64).saturating_sub(used).max(self.idle);
        self.idle
    }

    /// `/proc/uptime`.
    pub(super) fn uptime(&mut self, cpus: usize, stats: &Stats) -> String {
        let (up, idle) = (self.elapsed() / 10_000, self.idle(cpus, stats) / 10_000);
        format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100)
    }

    /// `/proc/stat` (`proc_stat(5)`), in hundredths of a second. Its own processors share what was used evenly: on which of them a
    /// program ran is not counted everywhere.
    pub(super) fn stat(&mut self, cpus: &BTreeSet<u32>, stats: &Stats, active: Active) -> String {
        let ticks = |microseconds: u64| microseconds / 10_000;
        let cpu = stats.cpu.clone().unwrap_or_default();
        let sums = [
            ticks(cpu.user),
            ticks(cpu.system),
            ticks(self.idle(cpus.len(), stats)),
        ];
        let mut text = line("cpu ", sums);
        let count = cpus.len().max(1) as u64;
        for (at, number) in cpus.iter().enumerate() {
            let part = |sum: u64| sum / count + u64::from((at as u64) < sum % count);
            text.push_str(&line(&format!("cpu{number}"), sums.map(part)));
        }
        let now = clock_gettime(ClockId::Realtime).tv_sec;
        let booted = now - i64::try_from(self.elapsed() / 1_000_000).unwrap_or(0);
        let _ = write!(
            text,
            "intr 0\nctxt 0\nbtime {booted}\nprocesses {}\nprocs_running {}\nprocs_blocked {}\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
            active.all, active.running, active.blocked
        );
        text
    }
}

/// User, nice, system, idle, and six kinds of time that are nobody's here.
fn line(name: &str, [user, system, idle]: [u64; 3]) -> String {
    format!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Cpu;

    fn share(time: Option<f64>, list: &str) -> Share {
        Share {
            time,
            list: list.to_owned(),
        }
    }

    #[test]
    fn time_or_affinity_bounds_the_processors() {
        for (time, list, seen) in [
            (None, "", "0-7\n"),
            (None, "2,5", "2,5\n"),
            (Some(2.0), "0-7", "0-1\n"),
            (Some(0.1), "4-7", "4\n"),
            (Some(16.0), "0-63", "0-7\n"),
        ] {
            assert_eq!(online(&share(time, list), "0-7\n"), seen, "{time:?} {list}");
        }
    }

    #[test]
    fn paragraphs_of_others_are_left_out() {
        let host = "processor\t: 0\nmodel: a\n\nprocessor\t: 1\nmodel: b\n\nHardware : x\n";
        assert_eq!(
            filter(host, &[1].into()),
            "processor\t: 1\nmodel: b\n\nHardware : x\n"
        );
    }

    #[test]
    fn parts_add_up_and_idle_does_not_run_backwards() {
        let mut clock = Clock::new(0);
        let used = |usage| Stats {
            cpu: Some(Cpu {
                usage,
                user: 70_000,
                system: 30_000,
                ..Cpu::default()
            }),
            ..Stats::default()
        };
        let cpus = [1, 4].into();
        let idle = clock.idle(2, &used(100_000));
        assert!(clock.idle(2, &used(u64::MAX)) >= idle);
        let text = clock.stat(&cpus, &used(100_000), Active::default());
        let numbers: Vec<Vec<u64>> = text
            .lines()
            .filter(|line| line.starts_with("cpu"))
            .map(|line| {
                line.split_whitespace()
                    .skip(1)
                    .map(|n| n.parse().unwrap())
                    .collect()
            })
            .collect();
        assert_eq!(numbers.len(), 3);
        for (field, sum) in numbers[0].iter().enumerate() {
            assert_eq!(*sum, numbers[1][field] + numbers[2][field]);
        }
        assert_eq!((numbers[0][0], numbers[0][2]), (7, 3));
        assert!(text.contains("\ncpu4 "), "{text}");
    }
}
