//! The execution domain (`personality(2)`): what the machine is called to a container's programs.

use oci_spec::runtime::{LinuxPersonality, LinuxPersonalityDomain};

use crate::error::{During, Result};
use crate::sys::task;

/// `PER_LINUX` and `PER_LINUX32` of `linux/personality.h`.
const LINUX: u64 = 0;
const LINUX32: u64 = 8;

/// The domain that all processes of a container live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality(u64);

impl Personality {
    /// Reads `linux.personality`. Flags, of which the spec knows none yet, are ignored with a warning, as by runc.
    pub fn from_spec(spec: &LinuxPersonality) -> Self {
        if let Some(flag) = spec.flags().iter().flatten().next() {
            log::warn!("linux.personality.flags: ignoring `{flag}`: the runtime spec has no flags yet");
        }
        Self(match spec.domain() {
            LinuxPersonalityDomain::PerLinux => LINUX,
            LinuxPersonalityDomain::PerLinux32 => LINUX32,
        })
    }

    /// Takes it on; programs keep it through `execve(2)`.
    pub fn assume(self) -> Result<()> {
        task::set_personality(self.0).during(|| "set `linux.personality`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Personality {
        Personality::from_spec(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn domains_become_the_kernel_s_and_flags_change_nothing() {
        assert_eq!(read(r#"{"domain":"LINUX"}"#), Personality(0));
        assert_eq!(read(r#"{"domain":"LINUX32","flags":[]}"#), Personality(8));
        assert_eq!(
            read(r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#),
            Personality(0)
        );
    }
}
