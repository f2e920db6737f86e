//! How much may be done for somebody at the host's expense, outside of the limits that hold for them: so much at once, and so much
//! more with each second. Who wants more waits.

use std::time::{Duration, Instant};

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At once.
    pub burst: u64,
    /// In a second, after that.
    pub rate: u64,
    /// Less than this is not worth waking up for.
    pub worth: u64,
}

/// What is left of that.
#[derive(Debug)]
pub struct Pace {
    bounds: Bounds,
    left: u64,
    since: Instant,
}

impl Pace {
    /// All of it, from now on.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            left: bounds.burst,
            since: Instant::now(),
        }
    }

    /// How long nothing is done, because too much was.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let Bounds { burst, rate, worth } = self.bounds;
        let passed = now.saturating_duration_since(self.since);
        let more = u64::try_from(passed.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(rate)
            / 1000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(burst);
            self.since = now;
        }
        let lacking = worth.saturating_sub(self.left);
        (lacking > 0).then(|| Duration::from_millis(lacking * 1000 / rate + 1))
    }

    /// Whether nothing may be done now.
    pub fn is_used_up(&self) -> bool {
        self.left < self.bounds.worth
    }

    /// Counts what was done.
    pub fn spend(&mut self, amount: u64) {
        self.left = self.left.saturating_sub(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        burst: 1 << 20,
        rate: 256 << 10,
        worth: 16 << 10,
    };

    #[test]
    fn a_flood_is_slowed_to_the_rate() {
        let mut pace = Pace::new(BOUNDS);
        let start = pace.since;
        let (mut now, mut done) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match pace.pause(now) {
                Some(pause) => {
                    assert!(pace.is_used_up());
                    now += pause;
                }
                None => {
                    pace.spend(4096);
                    done += 4096;
                }
            }
        }
        let most = BOUNDS.burst + 10 * BOUNDS.rate;
        assert!(
            (most - BOUNDS.burst..=most + BOUNDS.worth).contains(&done),
            "{done}"
        );
        // After a long silence all of the burst is there again, and no more.
        assert_eq!(pace.pause(now + Duration::from_secs(3600)), None);
        assert_eq!(pace.left, BOUNDS.burst);
    }
}
