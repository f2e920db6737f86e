//! What is to happen to a VPS without anybody's command: when it ends, and when the host comes up.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::store::{ExitReason, LastExit};
use crate::error::{Error, Result};

/// Whether a VPS that ended is started again. One that was stopped or killed by condo is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    #[default]
    No,
    /// When its init ended with another status than 0, was killed, or ran out of memory.
    OnFailure,
    /// Whatever ended it: also after `poweroff` inside.
    Always,
}

impl Restart {
    /// Whether this is the policy of a VPS of which nothing was said.
    pub fn is_no(&self) -> bool {
        *self == Self::No
    }

    /// The word it is given and shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }

    /// Whether a run that ended so is followed by another.
    pub fn follows(self, end: &LastExit) -> bool {
        let failed = end.reason != ExitReason::Exited || end.status.is_some_and(|status| status != 0);
        match self {
            Self::No => false,
            Self::OnFailure => failed,
            Self::Always => true,
        }
    }
}

impl FromStr for Restart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::No, Self::OnFailure, Self::Always];
        let found = known.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| Error::invalid("--restart", text, "is none of no, on-failure, always"))
    }
}

/// How a VPS comes up with the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Whether it does.
    pub autostart: bool,
    /// Those with a lower number are up before those with a higher one are started.
    pub order: i32,
    /// How long the next one waits after it, in seconds.
    pub delay: u32,
}

impl Boot {
    /// Whether nothing was said of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(reason: ExitReason, status: Option<i32>) -> LastExit {
        LastExit {
            reason,
            status,
            signal: None,
            at: 0,
        }
    }

    #[test]
    fn a_failure_is_what_did_not_end_well() {
        let well = end(ExitReason::Exited, Some(0));
        let badly = [
            end(ExitReason::Exited, Some(1)),
            end(ExitReason::Oom, None),
            end(ExitReason::Killed, None),
        ];
        assert!(!Restart::OnFailure.follows(&well) && Restart::Always.follows(&well));
        for end in badly {
            assert!(
                Restart::OnFailure.follows(&end) && !Restart::No.follows(&end),
                "{end:?}"
            );
        }
    }

    #[test]
    fn policies_have_their_words() {
        for policy in [Restart::No, Restart::OnFailure, Restart::Always] {
            assert_eq!(policy.as_str().parse::<Restart>().unwrap(), policy);
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.as_str());
        }
        assert!("onfailure".parse::<Restart>().is_err());
    }
}
