//! Memory and swap.

use oci_spec::runtime::LinuxMemory;

use super::Cgroup;
use super::setting::{Setting, Version};
use crate::error::{Error, Result};

const SWAP: &str = "linux.resources.memory.swap";

/// A limit that must not be set below what is used now (`checkBeforeUpdate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// The file with the use of the moment.
    pub(super) file: &'static str,
    /// The new limit in bytes.
    pub(super) limit: u64,
    /// On v2, the new limit of memory and swap together.
    pub(super) with_swap: Option<u64>,
}

/// The settings for these limits: -1 is "no limit", 0 "not set". What the kernel has given up (`kernel`, `kernelTCP`,
/// `useHierarchy`) is ignored, as in other runtimes.
pub(super) fn settings(memory: &LinuxMemory, version: Version) -> Result<Vec<Setting>> {
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        log::warn!("Kernel memory settings are ignored: the kernel has no such limits any more");
    }
    for (name, value) in [
        ("limit", memory.limit()),
        ("reservation", memory.reservation()),
        ("swap", memory.swap()),
    ] {
        if let Some(value) = value.filter(|v| *v < -1) {
            let field = format!("linux.resources.memory.{name}");
            return Err(Error::invalid(field, value, "must be bytes, or -1 for no limit"));
        }
    }
    match version {
        Version::V1 => v1(memory),
        Version::V2 => v2(memory),
    }
}

/// What has to be true before the settings are written.
pub(super) fn ceiling(memory: &LinuxMemory, version: Version) -> Option<Ceiling> {
    let limit = u64::try_from(given(memory.limit())?).ok()?;
    let file = match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    };
    // On v1 the kernel itself refuses what is in use.
    let with_swap = given(memory.swap()).and_then(|swap| u64::try_from(swap).ok());
    let with_swap = with_swap.filter(|_| matches!(version, Version::V2));
    (memory.check_before_update() == Some(true)).then_some(Ceiling {
        file,
        limit,
        with_swap,
    })
}

/// Callers that count it as a signed number say -1 for "not set".
fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|value| *value != u64::MAX)
}

impl Cgroup {
    /// Bounds the memory of the sockets that processes here make from now on, in bytes: of their TCP and UDP buffers. With cgroup
    /// v2 nothing is done, because there they count as memory; v1 has a counter for them that has no limit by itself.
    ///
    /// # Errors
    /// Of the write; a kernel that has given the counter up is fine.
    pub fn bound_sockets(&self, bytes: u64) -> Result<()> {
        const FILE: &str = "memory.kmem.tcp.limit_in_bytes";
        match self.hierarchy.place("memory") {
            Ok(dir) if dir.has(FILE) => dir.write(FILE, &bytes.to_string()),
            _ => Ok(()),
        }
    }
}

fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|v| *v != 0)
}

fn v1(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limit = given(memory.limit());
    // No memory limit and no word about swap: a swap limit left over from before would still hold both.
    let swap = given(memory.swap()).or((limit == Some(-1)).then_some(-1));
    swap_above_limit(limit, swap)?;
    let swap_setting = swap.map(|s| match s {
        -1 => Setting::optional("memory.memsw.limit_in_bytes", s),
        s => Setting::new("memory.memsw.limit_in_bytes", s),
    });
    let swappiness = swappiness(memory);
    if let Some(value) = swappiness.filter(|s| *s > 100) {
        return Err(Error::invalid(
            "linux.resources.memory.swappiness",
            value,
            "must be 0 to 100",
        ));
    }
    let oom = (memory.disable_oom_killer() == Some(true)).then_some(1);
    Ok([
        limit.map(|l| Setting::new("memory.limit_in_bytes", l)),
        swap_setting,
        given(memory.reservation()).map(|r| Setting::new("memory.soft_limit_in_bytes", r)),
        swappiness.map(|s| Setting::new("memory.swappiness", s)),
        oom.map(|o| Setting::new("memory.oom_control", o)),
    ]
    .into_iter()
    .flatten()
    .collect())
}

fn v2(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    if swappiness(memory).is_some() {
        return Err(Error::unsupported(
            "linux.resources.memory.swappiness",
            "cgroup v2 has one swappiness for the whole host",
        ));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(Error::unsupported(
            "linux.resources.memory.disableOOMKiller",
            "cgroup v2 always ends a process when memory runs out",
        ));
    }
    // Swap first: where the new limit is below the use, the kernel may then move pages out instead of killing.
    Ok([
        swap_max(memory)?,
        given(memory.limit()).map(|l| Setting::new("memory.max", or_max(l))),
        given(memory.reservation()).map(|r| Setting::new("memory.low", or_max(r))),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// `memory.swap.max`: OCI counts memory and swap together, cgroup v2 swap alone.
fn swap_max(memory: &LinuxMemory) -> Result<Option<Setting>> {
    let limit = given(memory.limit());
    let swap = match (given(memory.swap()), limit) {
        (None, Some(-1)) | (Some(-1), _) => -1,
        (None, _) => return Ok(None),
        (Some(total), Some(limit)) if limit > 0 => {
            swap_above_limit(Some(limit), Some(total))?;
            total - limit
        }
        // Without a limit for memory there is nothing to take off.
        (Some(total), _) => total,
    };
    // A kernel that does not count swap has no file; no limit and no swap are what it does then.
    Ok(Some(if swap <= 0 {
        Setting::optional("memory.swap.max", or_max(swap))
    } else {
        Setting::new("memory.swap.max", swap)
    }))
}

fn swap_above_limit(limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    match (limit, swap) {
        (Some(limit), Some(swap)) if swap > 0 && (limit > swap || limit == -1) => Err(Error::invalid(
            SWAP,
            swap,
            "is memory and swap together and must not be below the memory limit",
        )),
        _ => Ok(()),
    }
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

impl Cgroup {
    /// The lines of `memory.stat`, in the kernel's order. None without the controller.
    pub fn memory_stat(&self) -> Vec<(String, u64)> {
        let text = self
            .hierarchy
            .place("memory")
            .and_then(|dir| dir.read("memory.stat"));
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.unwrap_or_default().lines().filter_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn memory(json: &str) -> LinuxMemory {
        serde_json::from_str(json).unwrap()
    }

    fn golden(json: &str, version: Version) -> Vec<String> {
        lines(&settings(&memory(json), version).unwrap())
    }

    #[test]
    fn swap_is_what_is_beyond_memory_on_v2() {
        assert_eq!(
            golden(r#"{"limit":100,"swap":150,"reservation":50}"#, Version::V2),
            ["memory.swap.max=50", "memory.max=100", "memory.low=50"]
        );
        assert_eq!(
            golden(r#"{"limit":100,"swap":100}"#, Version::V2),
            ["memory.swap.max=0", "memory.max=100"]
        );
        assert_eq!(
            golden(r#"{"limit":100,"swap":-1}"#, Version::V2),
            ["memory.swap.max=max", "memory.max=100"]
        );
        assert_eq!(
            golden(r#"{"limit":-1}"#, Version::V2),
            ["memory.swap.max=max", "memory.max=max"]
        );
        assert!(golden(r#"{"limit":0,"swap":0,"disableOOMKiller":false}"#, Version::V2).is_empty());
    }

    #[test]
    fn without_a_memory_limit_swap_is_swap_on_v2() {
        assert_eq!(
            golden(r#"{"limit":-1,"swap":150}"#, Version::V2),
            ["memory.swap.max=150", "memory.max=max"]
        );
        assert_eq!(golden(r#"{"swap":50}"#, Version::V2), ["memory.swap.max=50"]);
    }

    #[test]
    fn a_swappiness_of_minus_one_is_none() {
        for version in [Version::V1, Version::V2] {
            assert!(golden(r#"{"swappiness":18446744073709551615}"#, version).is_empty());
        }
    }

    #[test]
    fn v1_counts_both_together() {
        assert_eq!(
            golden(
                r#"{"limit":100,"swap":150,"reservation":50,"swappiness":10,"disableOOMKiller":true,"kernel":5}"#,
                Version::V1
            ),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "memory.soft_limit_in_bytes=50",
                "memory.swappiness=10",
                "memory.oom_control=1"
            ]
        );
        assert_eq!(
            golden(r#"{"limit":-1}"#, Version::V1),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]
        );
    }

    #[test]
    fn what_cannot_hold_is_refused() {
        for bad in [r#"{"limit":100,"swap":50}"#, r#"{"limit":-5}"#] {
            for version in [Version::V1, Version::V2] {
                assert!(settings(&memory(bad), version).is_err(), "{bad}");
            }
        }
        for bad in [r#"{"swappiness":60}"#, r#"{"disableOOMKiller":true}"#] {
            assert!(settings(&memory(bad), Version::V2).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_check_is_made_only_when_asked_for() {
        let asked = memory(r#"{"limit":100,"checkBeforeUpdate":true}"#);
        assert_eq!(ceiling(&asked, Version::V2).unwrap().limit, 100);
        let both = memory(r#"{"limit":100,"swap":300,"checkBeforeUpdate":true}"#);
        assert_eq!(ceiling(&both, Version::V2).unwrap().with_swap, Some(300));
        assert_eq!(ceiling(&both, Version::V1).unwrap().with_swap, None);
        assert_eq!(ceiling(&memory(r#"{"limit":100}"#), Version::V2), None);
        assert_eq!(
            ceiling(&memory(r#"{"limit":-1,"checkBeforeUpdate":true}"#), Version::V1),
            None
        );
    }
}
