//! Resource limits (`prlimit(2)`) and the out-of-memory score, set by the parent on the new process.
//!
//! The limits are the program's, not those of the work before it: they are set when that is done. Meanwhile this process may need
//! more files than its caller's soft limit allows ([`raise_files`]).

use std::process::Command;
use std::sync::OnceLock;

use oci_spec::runtime::{PosixRlimitType, Process};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};

use crate::error::{During, Error, Result};
use crate::sys;

/// The limit of open files that this process began with.
static FILES: OnceLock<Rlimit> = OnceLock::new();

/// Allows this process and its children as many open files as its hard limit does; see [`Limits::complete`].
pub fn raise_files() {
    let before = FILES.get_or_init(|| rustix::process::getrlimit(Resource::Nofile));
    let all = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    if before.current != before.maximum {
        // The lower limit may do as well.
        let _ = rustix::process::setrlimit(Resource::Nofile, all);
    }
}

/// The limit to go back to, if it was raised.
fn files_before() -> Option<Rlimit> {
    FILES
        .get()
        .filter(|files| files.current != files.maximum)
        .cloned()
}

/// A program that is none of a container's gets the limit of open files back that its caller had. Once this process has those of
/// its container instead, they are the program's as well.
pub fn restore_files_in(command: &mut Command) {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let raised = |before: &Rlimit| (now.current, now.maximum) == (before.maximum, before.maximum);
    if let Some(before) = files_before().filter(raised) {
        sys::task::limit_files_in(command, before.current, before.maximum);
    }
}

/// The limits of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    rlimits: Vec<(PosixRlimitType, u64, u64)>,
    oom_score_adj: Option<i32>,
}

impl Limits {
    /// Reads `process.rlimits` and `process.oomScoreAdj`.
    pub fn from_spec(process: &Process) -> Result<Self> {
        let mut rlimits: Vec<(PosixRlimitType, u64, u64)> = Vec::new();
        for (index, limit) in process.rlimits().iter().flatten().enumerate() {
            let field = format!("process.rlimits[{index}]");
            if rlimits.iter().any(|(typ, ..)| *typ == limit.typ()) {
                return Err(Error::invalid(field, limit.typ(), "is listed twice"));
            }
            if limit.soft() > limit.hard() {
                return Err(Error::invalid(
                    format!("{field}.soft"),
                    limit.soft(),
                    "is above the hard limit",
                ));
            }
            rlimits.push((limit.typ(), limit.soft(), limit.hard()));
        }
        let oom_score_adj = process.oom_score_adj();
        match oom_score_adj {
            Some(score) if !(-1000..=1000).contains(&score) => Err(Error::invalid(
                "process.oomScoreAdj",
                score,
                "must be from -1000 to 1000",
            )),
            _ => Ok(Self {
                rlimits,
                oom_score_adj,
            }),
        }
    }

    /// The process's own part: what its parent had no say over, and without a limit of open files in its config its caller's.
    pub fn complete(&self) -> Result<()> {
        for named in &self.rlimits {
            let (resource, limit) = limit(named);
            if rustix::process::getrlimit(resource) != limit {
                rustix::process::setrlimit(resource, limit).during(|| setting(named))?;
            }
        }
        let named = self
            .rlimits
            .iter()
            .any(|(typ, ..)| *typ == PosixRlimitType::RlimitNofile);
        match files_before() {
            Some(before) if !named => Ok(rustix::process::setrlimit(Resource::Nofile, before)?),
            _ => Ok(()),
        }
    }

    /// Sets the out-of-memory score of a process that waits.
    pub fn score(&self, pid: i32) -> Result<()> {
        self.write_score(&pid.to_string())
    }

    /// Sets the out-of-memory score of the calling process, which its children inherit: once it is inside or hidden, the
    /// file belongs to the host's root.
    pub fn score_self(&self) -> Result<()> {
        self.write_score("self")
    }

    fn write_score(&self, process: &str) -> Result<()> {
        let Some(score) = self.oom_score_adj else {
            return Ok(());
        };
        let path = format!("/proc/{process}/oom_score_adj");
        std::fs::write(&path, score.to_string())
            .during(|| format!("set `process.oomScoreAdj` to `{score}` (lowering it needs CAP_SYS_RESOURCE)"))
    }

    /// Those that a child of this process has anyway. A lower out-of-memory score than its own is out of reach without
    /// `CAP_SYS_RESOURCE`.
    pub fn inherit(&mut self) {
        self.rlimits.clear();
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
        if let (Some(score), Some(own)) = (
            &mut self.oom_score_adj,
            own.and_then(|own| own.trim().parse::<i32>().ok()),
        ) {
            *score = own.max(*score);
        }
    }

    /// Sets the resource limits of a process that waits, as only we may raise them. Over one that has another's user ids by now we have no
    /// say without `CAP_SYS_RESOURCE` (`prlimit(2)`): it completes them itself.
    pub fn bound(&self, pid: i32) -> Result<()> {
        for named in &self.rlimits {
            let (resource, limit) = limit(named);
            match rustix::process::prlimit(Pid::from_raw(pid), resource, limit) {
                Err(Errno::PERM) => {}
                other => drop(other.during(|| setting(named))?),
            }
        }
        Ok(())
    }
}

fn limit((typ, soft, hard): &(PosixRlimitType, u64, u64)) -> (Resource, Rlimit) {
    let limit = Rlimit {
        current: bounded(*soft),
        maximum: bounded(*hard),
    };
    (resource(*typ), limit)
}

fn setting((typ, soft, hard): &(PosixRlimitType, u64, u64)) -> String {
    format!("set limit `{typ}` to {soft}:{hard} (raising a hard limit needs CAP_SYS_RESOURCE)")
}

/// `RLIM_INFINITY` is all ones in the spec's 64 bits, and an absent value for rustix.
fn bounded(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn resource(typ: PosixRlimitType) -> Resource {
    match typ {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Limits> {
        let json = format!(r#"{{"user":{{}},"args":["a"],"cwd":"/",{json}}}"#);
        Limits::from_spec(&serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn limits_are_checked_before_anything_happens() {
        let nofile = r#"{"type":"RLIMIT_NOFILE","hard":10,"soft":5}"#;
        assert!(read(&format!(r#""rlimits":[{nofile}]"#)).is_ok());
        let twice = read(&format!(r#""rlimits":[{nofile},{nofile}]"#)).unwrap_err();
        assert!(twice.to_string().contains("is listed twice"), "{twice}");
        assert!(read(r#""rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":5}]"#).is_err());
        assert!(read(r#""oomScoreAdj":1001"#).is_err());
    }
}
