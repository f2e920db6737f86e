//! How much may be asked.

use std::time::{Duration, Instant};

/// How many questions are answered at once, and how many in a second after that. They are answered at the host's expense, outside of
/// the container's limits; who asks more waits.
const BURST: u32 = 4000;
const RATE: u32 = 2000;

/// What is left of that.
#[derive(Debug)]
pub struct Rate {
    left: u32,
    since: Instant,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            left: BURST,
            since: Instant::now(),
        }
    }
}

impl Rate {
    /// How long nothing is answered, because too much was asked.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        let more = u32::try_from(passed.as_millis())
            .unwrap_or(u32::MAX)
            .saturating_mul(RATE)
            / 1000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
        self.is_used_up().then_some(Duration::from_millis(10))
    }

    /// Whether no question may be answered now.
    pub fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Counts questions that were answered.
    pub fn spend(&mut self, questions: u32) {
        self.left = self.left.saturating_sub(questions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_waits() {
        let mut rate = Rate::default();
        rate.spend(BURST - 1);
        assert!(!rate.is_used_up());
        rate.spend(2);
        assert!(rate.is_used_up());
        let later = rate.since + Duration::from_secs(1);
        assert_eq!(rate.pause(later), None);
        assert_eq!(rate.left, RATE);
    }
}
