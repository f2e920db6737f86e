//! On which processors a process of `exec` begins and goes on (`sched_setaffinity(2)`).

use oci_spec::runtime::ExecCPUAffinity;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::ranges;
use crate::error::{During, Result};
use crate::sys;

/// The two lists; an empty one leaves it to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    initial: Vec<usize>,
    last: Vec<usize>,
}

impl Affinity {
    /// Reads `process.execCPUAffinity`.
    ///
    /// # Errors
    /// Names the list that is malformed or has a processor no kernel has.
    pub fn from_spec(spec: Option<&ExecCPUAffinity>) -> Result<Self> {
        let read = |name: &str, list: Option<&String>| match list.filter(|l| !l.is_empty()) {
            Some(list) => ranges::numbers(&format!("process.execCPUAffinity.{name}"), list, CpuSet::MAX_CPU),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            initial: read("initial", spec.and_then(|s| s.initial().as_ref()))?,
            last: read("final", spec.and_then(|s| s.cpu_affinity_final().as_ref()))?,
        })
    }

    /// Confines this process to the initial processors until the guard is dropped: a child that is cloned meanwhile begins there.
    pub fn begin(&self) -> Result<Option<Confined>> {
        if self.initial.is_empty() {
            return Ok(None);
        }
        let before = sched_getaffinity(None).during(|| "read the processors in use")?;
        sched_setaffinity(None, &set(&self.initial))
            .during(|| "set `process.execCPUAffinity.initial` (are these processors online?)")?;
        Ok(Some(Confined(before)))
    }

    /// Puts the final processors in force for a process that is in its cgroup and waits: those named, or all of the cgroup's.
    pub fn finish(&self, pid: i32) -> Result<()> {
        if self.last.is_empty() {
            if self.initial.is_empty() {
                release(pid);
            }
            return Ok(());
        }
        sched_setaffinity(Pid::from_raw(pid), &set(&self.last)).during(
            || "set `process.execCPUAffinity.final` (are these processors in the container's cpuset?)",
        )
    }
}

/// Lets a process run on all processors of its cgroup. Since Linux 6.2 a caller's own choice (`taskset(1)`) binds what it starts also
/// when that moves to another cgroup.
pub fn release(pid: i32) {
    if let Err(e) = sys::task::allow_all_processors(pid) {
        log::debug!("process {pid} keeps the processors of its caller: {e}");
    }
}

/// The processors this process had before [`Affinity::begin`], which it gets back on drop.
#[derive(Debug)]
pub struct Confined(CpuSet);

impl Drop for Confined {
    fn drop(&mut self) {
        if let Err(e) = sched_setaffinity(None, &self.0) {
            log::warn!("the runtime keeps running on fewer processors: {e}");
        }
    }
}

fn set(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Affinity> {
        Affinity::from_spec(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn lists_are_read_and_named() {
        let both = read(r#"{"initial":"0-1,3","final":"2"}"#).unwrap();
        assert_eq!((both.initial, both.last), (vec![0, 1, 3], vec![2]));
        assert_eq!(read("{}").unwrap(), Affinity::default());
        let e = read(r#"{"final":"3-1"}"#).unwrap_err().to_string();
        assert!(e.starts_with("process.execCPUAffinity.final: `3-1`"), "{e}");
        assert!(read(r#"{"initial":"1024"}"#).is_err());
    }

    #[test]
    fn the_runtime_s_own_processors_come_back() {
        let before = sched_getaffinity(None).unwrap();
        let one = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let affinity = read(&format!(r#"{{"initial":"{one}"}}"#)).unwrap();
        let confined = affinity.begin().unwrap();
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        drop(confined);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
