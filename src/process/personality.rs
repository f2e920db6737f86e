//! The execution domain (`personality(2)`): what the machine is called to a container's programs.

use oci_spec::runtime::{LinuxPersonality, LinuxPersonalityDomain};

use crate::error::{During, Error, Result};
use crate::sys::task;

/// `PER_LINUX` and `PER_LINUX32` of `linux/personality.h`.
const LINUX: u64 = 0;
const LINUX32: u64 = 8;

/// The domain that all processes of a container live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality(u64);

impl Personality {
    /// Reads `linux.personality`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a flag: the spec knows none.
    pub fn from_spec(spec: &LinuxPersonality) -> Result<Self> {
        if let Some(flag) = spec.flags().iter().flatten().next() {
            let problem = "is not a flag: the runtime spec has none yet, leave the list empty";
            return Err(Error::invalid("linux.personality.flags[0]", flag, problem));
        }
        Ok(Self(match spec.domain() {
            LinuxPersonalityDomain::PerLinux => LINUX,
            LinuxPersonalityDomain::PerLinux32 => LINUX32,
        }))
    }

    /// Takes it on; programs keep it through `execve(2)`.
    pub fn assume(self) -> Result<()> {
        task::set_personality(self.0).during(|| "set `linux.personality`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Personality> {
        Personality::from_spec(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn domains_become_the_kernel_s_and_flags_are_refused() {
        assert_eq!(read(r#"{"domain":"LINUX"}"#).unwrap(), Personality(0));
        assert_eq!(
            read(r#"{"domain":"LINUX32","flags":[]}"#).unwrap(),
            Personality(8)
        );
        let e = read(r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#).unwrap_err();
        assert!(
            e.to_string().starts_with("linux.personality.flags[0]: `ADDR"),
            "{e}"
        );
    }
}
