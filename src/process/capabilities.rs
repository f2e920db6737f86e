//! Capabilities as bit sets, set with few system calls: one `capset(2)`, one ambient clear, and a drop for each bit that the
//! bounding set loses.

use std::collections::HashSet;
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{During, Error, Result};

/// The five sets of `capabilities(7)`, a bit for each number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The most a program can ever gain.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What passes to programs with inheritable file capabilities.
    pub inheritable: u64,
    /// What passes to every program.
    pub ambient: u64,
}

impl Capabilities {
    /// Reads `process.capabilities`; absent means none at all.
    ///
    /// What the kernel would refuse to combine is left out with a warning, as the spec asks: `runc spec` itself writes ambient
    /// capabilities that are not inheritable.
    pub fn from_spec(spec: Option<&LinuxCapabilities>) -> Result<Self> {
        let Some(spec) = spec else {
            return Ok(Self::default());
        };
        let (bounding, permitted) = (mask(spec.bounding().as_ref())?, mask(spec.permitted().as_ref())?);
        let inheritable = within("inheritable", mask(spec.inheritable().as_ref())?, bounding);
        Ok(Self {
            bounding,
            permitted,
            effective: within("effective", mask(spec.effective().as_ref())?, permitted),
            inheritable,
            ambient: raisable(mask(spec.ambient().as_ref())?, permitted & inheritable),
        })
    }

    /// Takes everything else out of the bounding set. Needs `CAP_SETPCAP`.
    pub fn bound(&self) -> Result<()> {
        for number in 0..64 {
            let bit = 1 << number;
            if self.bounding & bit != 0 {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
                // Past the last capability this kernel knows.
                Err(rustix::io::Errno::INVAL) => break,
                other => other.during(|| "drop a capability from the bounding set")?,
            }
        }
        Ok(())
    }

    /// Adds what `exec --cap` names. Never to the inheritable set (CVE-2022-29162); a capability that is inheritable by the config
    /// becomes ambient, so that a user other than root has it too.
    pub fn add(&mut self, bit: u64) {
        self.bounding |= bit;
        self.permitted |= bit;
        self.effective |= bit;
        self.ambient |= bit & self.inheritable;
    }

    /// Sets the four other sets; nothing else remains. What the caller of the runtime does not have itself cannot be granted,
    /// which the spec wants to be no failure.
    pub fn keep_only(&self) -> Result<()> {
        rustix::thread::clear_ambient_capability_set().during(|| "clear the ambient capabilities")?;
        let had = rustix::thread::capabilities(None).during(|| "read the capabilities")?;
        let permitted = within("permitted", self.permitted, had.permitted.bits());
        let inheritable = self.inheritable & (had.permitted | had.inheritable).bits();
        let known = CapabilitySet::from_bits_retain;
        let sets = CapabilitySets {
            effective: known(self.effective & permitted),
            permitted: known(permitted),
            inheritable: known(inheritable),
        };
        rustix::thread::set_capabilities(None, sets).during(|| "set the capabilities")?;
        let ambient = self.ambient & permitted & inheritable;
        for number in (0..64).filter(|n| ambient & (1 << n) != 0) {
            rustix::thread::configure_capability_in_ambient_set(known(1 << number), true)
                .during(|| "set the ambient capabilities")?;
        }
        Ok(())
    }
}

impl Capabilities {
    /// Makes effective what the process will have, as long as nothing more is permitted; see [`raise_effective`].
    pub fn lend(&self) -> Result<()> {
        let mut sets = rustix::thread::capabilities(None)?;
        let wanted = self.effective & self.permitted & sets.permitted.bits();
        sets.effective = CapabilitySet::from_bits_retain(wanted);
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }
}

/// Makes everything permitted effective again, after a change of user has cleared it.
pub fn raise_effective() -> Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The bit of a capability by its name (`CAP_NET_RAW`), or nothing for a name this version does not know.
pub fn bit(name: &str) -> Option<u64> {
    caps::Capability::from_str(name).ok().map(|c| c.bitmask())
}

fn mask(set: Option<&HashSet<Capability>>) -> Result<u64> {
    set.into_iter().flatten().try_fold(0, |mask, capability| {
        let name = serde_json::to_value(capability)?;
        let name = name.as_str().unwrap_or_default();
        bit(name).map(|bit| mask | bit).ok_or_else(|| {
            Error::invalid(
                "process.capabilities",
                name,
                "is not known to this version; leave it out",
            )
        })
    })
}

/// What of the ambient set the kernel lets be raised; a warning, in words that callers know from runc, names the rest.
fn raisable(set: u64, possible: u64) -> u64 {
    for extra in caps::all().iter().filter(|c| set & !possible & c.bitmask() != 0) {
        log::warn!("can't raise ambient capability {extra}: it is not both permitted and inheritable");
    }
    set & possible
}

/// What of a set is in `possible`; a warning names the rest.
fn within(name: &str, set: u64, possible: u64) -> u64 {
    for extra in caps::all().iter().filter(|c| set & !possible & c.bitmask() != 0) {
        log::warn!("process.capabilities.{name}: {extra} cannot be granted");
    }
    set & possible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Capabilities> {
        Capabilities::from_spec(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn names_become_the_kernel_s_bits() {
        let sets =
            read(r#"{"bounding":["CAP_CHOWN","CAP_CHECKPOINT_RESTORE"],"permitted":["CAP_KILL"]}"#).unwrap();
        assert_eq!(
            (sets.bounding, sets.permitted, sets.ambient),
            (1 | 1 << 40, 1 << 5, 0)
        );
    }

    #[test]
    fn what_the_kernel_would_refuse_is_left_out() {
        let sets = read(
            r#"{"bounding":["CAP_CHOWN"],"permitted":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_FOWNER"],
            "inheritable":["CAP_CHOWN","CAP_KILL"],"ambient":["CAP_CHOWN","CAP_KILL"]}"#,
        )
        .unwrap();
        assert_eq!((sets.effective, sets.inheritable, sets.ambient), (0, 1, 1));
    }

    #[test]
    fn what_is_added_is_ambient_where_it_is_inheritable() {
        let json = r#"{"bounding":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":["CAP_KILL"]}"#;
        let mut sets = read(json).unwrap();
        sets.add(1 << 5);
        sets.add(1);
        assert_eq!((sets.inheritable, sets.ambient), (1 << 5, 1 << 5));
        assert_eq!((sets.bounding, sets.permitted, sets.effective), (33, 33, 33));
    }

    #[test]
    fn absent_means_none() {
        assert_eq!(Capabilities::from_spec(None).unwrap(), Capabilities::default());
    }
}
