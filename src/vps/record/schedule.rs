//! How often snapshots of a VPS are taken by themselves, and how many stay.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A word for how often, and the seconds between.
type Every = (&'static str, i64);
const DAILY: Every = ("daily", 86_400);
const EVERY: [Every; 4] = [
    ("hourly", 3600),
    DAILY,
    ("weekly", 7 * 86_400),
    ("monthly", 30 * 86_400),
];
const NEVER: &str = "none";
/// How many stay when nothing is said of it.
const KEPT: usize = 7;
/// Seconds: the timer that asks each hour may come a little earlier than the time before.
const EARLY: i64 = 1800;

/// `daily`, `hourly,24`, `none`: how often, and how many stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    /// Nothing for never.
    every: Option<Every>,
    /// How many stay.
    pub keep: usize,
}

impl Default for Schedule {
    /// Daily, of which seven stay.
    fn default() -> Self {
        Self {
            every: Some(DAILY),
            keep: KEPT,
        }
    }
}

impl Schedule {
    /// Whether it is time for another one, where the last was begun then. All in seconds since 1970.
    pub fn is_due(&self, last: Option<i64>, now: i64) -> bool {
        self.every
            .is_some_and(|(_, period)| last.is_none_or(|last| now - last >= period - EARLY))
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem| Err(Error::invalid("--schedule", text, problem));
        let (word, keep) = text
            .split_once(',')
            .map_or((text, None), |(word, keep)| (word, Some(keep)));
        let every = EVERY.into_iter().find(|(name, _)| *name == word);
        if every.is_none() && text != NEVER {
            return refuse("is none of hourly, daily, weekly, monthly, with or without `,KEEP`, or none");
        }
        match keep.map_or(Ok(KEPT), str::parse) {
            Ok(0) | Err(_) => refuse("does not keep a number of snapshots above 0"),
            Ok(keep) => Ok(Self { every, keep }),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.every {
            Some((word, _)) => write!(f, "{word},{}", self.keep),
            None => f.write_str(NEVER),
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_back() {
        for (text, shown) in [("daily", "daily,7"), ("hourly,24", "hourly,24"), ("none", "none")] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), shown);
        }
        for bad in ["", "often", "daily,0", "daily,x", "daily,", "none,3"] {
            let e = bad.parse::<Schedule>().unwrap_err().to_string();
            assert!(e.contains("--schedule"), "{e}");
        }
    }

    #[test]
    fn a_snapshot_is_due_when_its_time_is_over() {
        let daily = Schedule::default();
        assert!(daily.is_due(None, 0));
        assert!(!daily.is_due(Some(1000), 1000 + 80_000));
        assert!(daily.is_due(Some(1000), 1000 + 86_390));
        assert!(!"none".parse::<Schedule>().unwrap().is_due(None, 1000));
    }
}
