//! The load: how many processes run, or wait for a disk, on average.
//!
//! The kernel counts it for the whole machine alone. Here it is counted while somebody wants to know: from the first question on,
//! until a quarter of an hour after the last.

use std::time::{Duration, Instant};

use crate::cgroups::Cgroup;
use crate::files;

/// As often as the kernel does it.
const PERIOD: Duration = Duration::from_secs(5);
/// The longest of the three averages: after that nothing is left of an answer.
const INTEREST: Duration = Duration::from_secs(900);
/// What the averages are over, in seconds.
const SPANS: [f64; 3] = [60.0, 300.0, 900.0];
/// How many processes are looked at: the rest is taken to be like them.
const SAMPLE: usize = 256;
/// How long a count is good for.
const FRESH: Duration = Duration::from_secs(1);

/// What the processes are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Active {
    /// How many there are.
    pub(super) all: usize,
    /// How many run or could.
    pub(super) running: usize,
    /// How many wait for a disk.
    pub(super) blocked: usize,
}

/// Averages, and what they are made of.
#[derive(Debug, Default)]
pub(super) struct Load {
    averages: [f64; 3],
    counted: Option<(Instant, Active)>,
    asked: Option<Instant>,
}

impl Load {
    /// When to count again, while somebody wants to know.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked.filter(|asked| asked.elapsed() < INTEREST)?;
        self.counted.map(|(when, _)| when + PERIOD)
    }

    /// Counts, and goes on with the averages.
    pub(super) fn count(&mut self, cgroup: &Cgroup) -> Active {
        let now = Instant::now();
        let active = look(cgroup);
        if let Some((before, _)) = self.counted.replace((now, active)) {
            self.averages = blend(self.averages, active, now.saturating_duration_since(before));
        }
        active
    }

    /// A count that is not old.
    pub(super) fn active(&mut self, cgroup: &Cgroup) -> Active {
        match self.counted {
            Some((when, active)) if when.elapsed() < FRESH => active,
            _ => self.count(cgroup),
        }
    }

    /// `/proc/loadavg` (`proc_loadavg(5)`). At the first question the load is what the processors had to do on `average` so far.
    pub(super) fn loadavg(&mut self, cgroup: &Cgroup, average: f64) -> String {
        if self.asked.is_none_or(|asked| asked.elapsed() >= INTEREST) {
            self.averages = [average; 3];
            self.counted = None;
        }
        self.asked = Some(Instant::now());
        let active = self.active(cgroup);
        let [one, five, fifteen] = self.averages;
        format!(
            "{one:.2} {five:.2} {fifteen:.2} {}/{} {}\n",
            active.running, active.all, active.all
        )
    }
}

#[allow(clippy::cast_precision_loss)]
fn blend(averages: [f64; 3], active: Active, passed: Duration) -> [f64; 3] {
    let now = (active.running + active.blocked) as f64;
    let mut spans = SPANS.iter();
    averages.map(|average| {
        let kept = spans
            .next()
            .map_or(0.0, |span| (-passed.as_secs_f64() / span).exp());
        average * kept + now * (1.0 - kept)
    })
}

fn look(cgroup: &Cgroup) -> Active {
    let pids = cgroup.pids().unwrap_or_default();
    let mut active = Active {
        all: pids.len(),
        ..Active::default()
    };
    for pid in pids.iter().take(SAMPLE) {
        match state(*pid) {
            Some('R') => active.running += 1,
            Some('D') => active.blocked += 1,
            _ => {}
        }
    }
    if pids.len() > SAMPLE {
        active.running = active.running * pids.len() / SAMPLE;
        active.blocked = active.blocked * pids.len() / SAMPLE;
    }
    active
}

fn state(pid: i32) -> Option<char> {
    files::stat_fields(pid)?.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_rises_and_falls_as_the_kernels_does() {
        let busy = Active {
            running: 3,
            blocked: 1,
            all: 9,
        };
        let mut load = [0.0; 3];
        for _ in 0..12 {
            load = blend(load, busy, PERIOD);
        }
        // 1 - 1/e of it after a minute.
        assert!((load[0] - 4.0 * 0.632).abs() < 0.01, "{load:?}");
        assert!(load[0] > load[1] && load[1] > load[2]);
        let idle = blend(load, Active::default(), Duration::from_secs(3600));
        assert!(idle[0] < 0.01, "{idle:?}");
    }

    #[test]
    fn a_process_has_a_state() {
        let own = state(i32::try_from(std::process::id()).unwrap());
        assert!(own.is_some_and(|letter| letter.is_ascii_uppercase()), "{own:?}");
    }
}
