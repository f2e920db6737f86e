//! How the kernel schedules a process (`sched_setattr(2)`), set by the parent on the new process.

use oci_spec::runtime::{self as oci, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};

use crate::error::{During, Error, Result};
use crate::sys::task::{self, Scheduling};

/// A scheduling policy with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler(Scheduling);

impl Scheduler {
    /// Reads `process.scheduler`.
    ///
    /// # Errors
    /// Names the field: a value out of range, one that the policy has no use for, a policy or flag that cannot be had.
    pub fn from_spec(spec: &oci::Scheduler) -> Result<Self> {
        let policy = policy(*spec.policy())?;
        check_nice(spec)?;
        check_deadline(spec)?;
        Ok(Self(Scheduling {
            policy,
            flags: flags(spec)?,
            nice: spec.nice().unwrap_or(0),
            priority: priority(spec)?,
            runtime: spec.runtime().unwrap_or(0),
            deadline: spec.deadline().unwrap_or(0),
            period: spec.period().unwrap_or(0),
            ..Scheduling::default()
        }))
    }

    /// Whether a process that has it cannot fork (`sched(7)`): it has deadlines, and children may not have them too.
    pub fn forbids_children(&self) -> bool {
        self.0.policy == 6 && self.0.flags & 1 == 0
    }

    /// Puts it in force for a process that waits.
    pub fn apply(&self, pid: i32) -> Result<()> {
        task::set_scheduling(pid, &self.0).during(|| {
            "set `process.scheduler` (more than the runtime itself has needs CAP_SYS_NICE; real-time policies need \
             `linux.resources.cpu.realtimeRuntime` on cgroup v1; with SCHED_DEADLINE, process scheduler can't be used together \
             with AllowedCPUs, which is `linux.resources.cpu.cpus`)"
        })
    }
}

fn invalid<T>(field: &str, value: impl std::fmt::Display, problem: &str) -> Result<T> {
    Err(Error::invalid(
        format!("process.scheduler.{field}"),
        value,
        problem,
    ))
}

/// The numbers of `linux/sched.h`.
fn policy(policy: Policy) -> Result<u32> {
    Ok(match policy {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
        Policy::SchedIso => {
            return Err(Error::unsupported(
                "process.scheduler.policy: `SCHED_ISO`",
                "Linux reserves the name and has no such policy",
            ));
        }
    })
}

/// The kernel, and so callers, leave it out of sight where the policy has no use for it.
fn check_nice(spec: &oci::Scheduler) -> Result<()> {
    let nice = spec.nice().unwrap_or(0);
    let counts = matches!(spec.policy(), Policy::SchedOther | Policy::SchedBatch);
    if counts && !(-20..=19).contains(&nice) {
        return invalid("nice", nice, "must be from -20 to 19");
    }
    Ok(())
}

fn priority(spec: &oci::Scheduler) -> Result<u32> {
    let priority = spec.priority().unwrap_or(0);
    match (
        matches!(spec.policy(), Policy::SchedFifo | Policy::SchedRr),
        u32::try_from(priority),
    ) {
        (true, Ok(level @ 1..=99)) | (false, Ok(level @ 0)) => Ok(level),
        (true, _) => invalid("priority", priority, "must be from 1 to 99 with this policy"),
        (false, _) => invalid(
            "priority",
            priority,
            "must be 0 with this policy: only SCHED_FIFO and SCHED_RR have priorities",
        ),
    }
}

/// The kernel's condition: runtime <= deadline <= period, where a period of 0 means the deadline.
fn check_deadline(spec: &oci::Scheduler) -> Result<()> {
    let (runtime, deadline) = (spec.runtime().unwrap_or(0), spec.deadline().unwrap_or(0));
    let period = spec.period().unwrap_or(0);
    if *spec.policy() != Policy::SchedDeadline {
        let times = [("runtime", runtime), ("deadline", deadline), ("period", period)];
        return match times.iter().find(|(_, value)| *value != 0) {
            Some((field, value)) => invalid(field, value, "is for SCHED_DEADLINE only"),
            None => Ok(()),
        };
    }
    // Finer than this the kernel does not count (DL_SCALE).
    if runtime < 1024 {
        return invalid("runtime", runtime, "must be at least 1024 nanoseconds");
    }
    if deadline < runtime {
        return invalid("deadline", deadline, "must not be below the runtime");
    }
    if period != 0 && period < deadline {
        return invalid("period", period, "must not be below the deadline");
    }
    Ok(())
}

/// `SCHED_FLAG_*` of `linux/sched.h`.
fn flags(spec: &oci::Scheduler) -> Result<u64> {
    let deadline = *spec.policy() == Policy::SchedDeadline;
    let mut bits = 0;
    for (index, flag) in spec.flags().iter().flatten().enumerate() {
        let field = format!("flags[{index}]");
        bits |= match flag {
            Flag::SchedResetOnFork => 1,
            Flag::SchedFlagReclaim if deadline => 2,
            Flag::SchedFlagDLOverrun if deadline => 4,
            Flag::SchedFlagReclaim => {
                return invalid(&field, "SCHED_FLAG_RECLAIM", "is for SCHED_DEADLINE only");
            }
            Flag::SchedFlagDLOverrun => {
                return invalid(&field, "SCHED_FLAG_DL_OVERRUN", "is for SCHED_DEADLINE only");
            }
            Flag::SchedFlagKeepPolicy => 8,
            Flag::SchedFlagKeepParams => 0x10,
            Flag::SchedFlagUtilClampMin | Flag::SchedFlagUtilClampMax => {
                let problem = "cannot be used: the runtime spec has no field for the clamp's value";
                return invalid(&field, flag, problem);
            }
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Scheduler> {
        Scheduler::from_spec(&serde_json::from_str(&format!("{{{json}}}")).unwrap())
    }

    #[test]
    fn policies_become_the_kernel_s_numbers() {
        let batch = read(r#""policy":"SCHED_BATCH","nice":-5,"flags":["SCHED_RESET_ON_FORK"]"#)
            .unwrap()
            .0;
        assert!(!Scheduler(batch).forbids_children());
        assert_eq!((batch.policy, batch.nice, batch.flags), (3, -5, 1));
        let fifo = read(r#""policy":"SCHED_FIFO","priority":99"#).unwrap().0;
        assert_eq!((fifo.policy, fifo.priority), (1, 99));
        assert!(read(r#""policy":"SCHED_RR","priority":1,"nice":19"#).is_ok());
        let deadline = read(
            r#""policy":"SCHED_DEADLINE","runtime":2000,"deadline":3000,"flags":["SCHED_FLAG_RECLAIM"]"#,
        )
        .unwrap()
        .0;
        assert_eq!(
            (
                deadline.policy,
                deadline.flags,
                deadline.runtime,
                deadline.deadline
            ),
            (6, 2, 2000, 3000)
        );
        assert!(Scheduler(deadline).forbids_children());
    }

    #[test]
    fn mistakes_are_named() {
        for (json, text) in [
            (r#""policy":"SCHED_ISO""#, "process.scheduler.policy"),
            (
                r#""policy":"SCHED_OTHER","nice":20"#,
                "process.scheduler.nice: `20` must",
            ),
            (
                r#""policy":"SCHED_OTHER","priority":1"#,
                "process.scheduler.priority: `1` must be 0",
            ),
            (
                r#""policy":"SCHED_RR""#,
                "process.scheduler.priority: `0` must be from",
            ),
            (
                r#""policy":"SCHED_RR","priority":100"#,
                "process.scheduler.priority: `100`",
            ),
            (
                r#""policy":"SCHED_IDLE","period":7"#,
                "process.scheduler.period: `7`",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":1000,"deadline":2000"#,
                "process.scheduler.runtime: `1000`",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":3000,"deadline":2000"#,
                "process.scheduler.deadline",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":2000,"deadline":2000,"period":1000"#,
                "process.scheduler.period",
            ),
            (
                r#""policy":"SCHED_OTHER","flags":["SCHED_FLAG_RECLAIM"]"#,
                "process.scheduler.flags[0]: `SCHED_FLAG_RECLAIM`",
            ),
            (
                r#""policy":"SCHED_OTHER","flags":["SCHED_RESET_ON_FORK","SCHED_FLAG_UTIL_CLAMP_MIN"]"#,
                "process.scheduler.flags[1]: `SCHED_FLAG_UTIL_CLAMP_MIN`",
            ),
        ] {
            let e = read(json).unwrap_err().to_string();
            assert!(e.starts_with(text), "{json}: {e}");
        }
    }
}
