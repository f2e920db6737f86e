//! What no command sees, for as long as somebody watches: VPSs that meet their limits, and rules that somebody takes away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stats::VpsStats;
use crate::error::{During, Result};
use crate::files::Lock;
use crate::vps::record::events::Kind;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::view::VpsStatus;
use crate::vps::wire::damage;

/// How long a limit must not have been met until it is told again.
const QUIET: Duration = Duration::from_secs(60);
/// In hundredths: a disk is full from here on, and until less than that is in use.
const FULL: u64 = 95;
const ROOMY: u64 = 90;

impl Condo {
    /// Looks at all VPSs every so often, writes down which of them meet limits, and restores rules that others took away. Does not
    /// come back.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::error::Error::Busy) when somebody watches already.
    pub fn watch(&self, every: Duration) -> Result<()> {
        let _lock =
            Lock::now(&self.folders.run().join("watch.lock")).during(|| "watch: it is done already")?;
        let mut known = Known::default();
        loop {
            if let Err(e) = self.look(&mut known) {
                log::warn!("{e}");
            }
            std::thread::sleep(every);
        }
    }

    fn look(&self, known: &mut Known) -> Result<()> {
        damage::restore_if_damaged(self)?;
        let all = self.stats(&[])?;
        let now = Instant::now();
        for vps in &all {
            for (event, detail) in known.compare(now, vps) {
                if let Ok(record) = self.store.get(&vps.name) {
                    self.tell(&record, event, detail);
                }
            }
        }
        // Others are not there any more.
        known.0.retain(|_, seen| seen.at == now);
        Ok(())
    }
}

/// What each VPS was seen to use last, and which of its limits it was told of.
#[derive(Default)]
struct Known(HashMap<Name, Seen>);

struct Seen {
    at: Instant,
    counters: Counters,
    /// When each limit was met last, while that counts as one time.
    met: HashMap<&'static str, Instant>,
    is_full: bool,
}

/// What begins at nothing with each run.
#[derive(Clone, Copy, Default, PartialEq)]
struct Counters {
    throttled: u64,
    oom_kills: u64,
    pids_refused: u64,
}

impl Counters {
    fn of(vps: &VpsStats) -> Self {
        Self {
            throttled: vps.throttled,
            oom_kills: vps.oom_kills,
            pids_refused: vps.pids_refused,
        }
    }

    /// What came to them since; all of it where they began again.
    fn since(self, before: Self) -> Self {
        let again = self.throttled < before.throttled || self.oom_kills < before.oom_kills;
        let before = if again { Self::default() } else { before };
        Self {
            throttled: self.throttled.saturating_sub(before.throttled),
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
            pids_refused: self.pids_refused.saturating_sub(before.pids_refused),
        }
    }
}

impl Known {
    /// What is to be told of a VPS that uses this now. Of one that is seen first, nothing is known to have happened lately.
    fn compare(&mut self, now: Instant, vps: &VpsStats) -> Vec<(Kind, Value)> {
        if vps.status == VpsStatus::Stopped {
            self.0.remove(&vps.name);
            return Vec::new();
        }
        let seen = self.0.entry(vps.name.clone()).or_insert_with(|| Seen {
            at: now,
            counters: Counters::of(vps),
            met: HashMap::new(),
            is_full: false,
        });
        let mut told = seen.limits(now, vps);
        if let Some((used, free)) = vps.disk_used.zip(vps.disk_free) {
            let share = used.saturating_mul(100) / (used + free).max(1);
            if !seen.is_full && share >= FULL {
                told.push((Kind::Full, json!({ "used": used, "free": free })));
            }
            seen.is_full = share >= if seen.is_full { ROOMY } else { FULL };
        }
        told
    }
}

impl Seen {
    fn limits(&mut self, now: Instant, vps: &VpsStats) -> Vec<(Kind, Value)> {
        let counters = Counters::of(vps);
        let new = counters.since(self.counters);
        let elapsed = now.duration_since(self.at);
        (self.at, self.counters) = (now, counters);
        // Who waits for a quarter of the time has not enough of it. Processors wait one by one.
        let throttled = Duration::from_micros(new.throttled);
        let waits = !elapsed.is_zero() && throttled * 4 >= elapsed * vps.processors.max(1);
        let is_crowded = vps.pids_limit.is_some_and(|limit| vps.pids >= limit);
        let met = [
            (
                "processors",
                waits,
                json!({ "by": "processors", "waited": throttled.as_micros() }),
            ),
            (
                "memory",
                new.oom_kills > 0,
                json!({ "by": "memory", "killed": new.oom_kills }),
            ),
            (
                "processes",
                new.pids_refused > 0 || is_crowded,
                json!({ "by": "processes", "limit": vps.pids_limit }),
            ),
        ];
        let mut told = Vec::new();
        for (limit, _, detail) in met.into_iter().filter(|(_, is_met, _)| *is_met) {
            let before = self.met.insert(limit, now);
            if before.is_none_or(|before| now.duration_since(before) >= QUIET) {
                told.push((Kind::Limited, detail));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vps() -> VpsStats {
        VpsStats {
            status: VpsStatus::Running,
            processors: 2,
            pids_limit: Some(10),
            ..VpsStats::stopped("web".parse().unwrap(), "default")
        }
    }

    fn kinds(told: Vec<(Kind, Value)>) -> Vec<String> {
        let word = |(kind, detail): (Kind, Value)| match detail["by"].as_str() {
            Some(by) => format!("{} {by}", kind.as_str()),
            None => kind.as_str().to_owned(),
        };
        told.into_iter().map(word).collect()
    }

    #[test]
    fn a_limit_is_told_once_until_it_was_not_met_for_a_while() {
        let (mut known, start) = (Known::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let old = VpsStats {
            oom_kills: 3,
            ..vps()
        };
        assert!(kinds(known.compare(start, &old)).is_empty(), "that was before");
        let kills = |oom_kills| VpsStats { oom_kills, ..vps() };
        assert_eq!(kinds(known.compare(after(10), &kills(4))), ["limited memory"]);
        assert!(kinds(known.compare(after(20), &kills(5))).is_empty());
        assert!(
            kinds(known.compare(after(70), &kills(6))).is_empty(),
            "it goes on"
        );
        assert_eq!(kinds(known.compare(after(140), &kills(7))), ["limited memory"]);
        assert!(kinds(known.compare(after(150), &VpsStats::stopped("web".parse().unwrap(), ""))).is_empty());
        assert!(
            kinds(known.compare(after(300), &kills(9))).is_empty(),
            "another run"
        );
    }

    #[test]
    fn processes_and_processors_that_are_too_few_are_told() {
        let (mut known, start) = (Known::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        known.compare(start, &vps());
        let crowded = VpsStats { pids: 10, ..vps() };
        assert_eq!(kinds(known.compare(after(10), &crowded)), ["limited processes"]);
        let refused = VpsStats {
            pids_refused: 1,
            ..vps()
        };
        assert_eq!(kinds(known.compare(after(100), &refused)), ["limited processes"]);
        let throttled = |throttled| VpsStats {
            throttled,
            pids_refused: 1,
            ..vps()
        };
        assert!(
            kinds(known.compare(after(110), &throttled(4_000_000))).is_empty(),
            "two processors wait"
        );
        assert_eq!(
            kinds(known.compare(after(120), &throttled(10_000_000))),
            ["limited processors"]
        );
    }

    #[test]
    fn a_disk_is_full_until_it_has_room_again() {
        let (mut known, now) = (Known::default(), Instant::now());
        let used = |used| VpsStats {
            disk_used: Some(used),
            disk_free: Some(1000 - used),
            ..vps()
        };
        assert!(kinds(known.compare(now, &used(949))).is_empty());
        assert_eq!(kinds(known.compare(now, &used(950))), ["full"]);
        assert!(kinds(known.compare(now, &used(910))).is_empty());
        assert!(
            kinds(known.compare(now, &used(960))).is_empty(),
            "it was not roomy in between"
        );
        known.compare(now, &used(899));
        assert_eq!(kinds(known.compare(now, &used(1000))), ["full"]);
    }
}
