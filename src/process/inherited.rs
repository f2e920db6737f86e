//! What a process inherits from whoever started it, through `fork(2)` and `execve(2)`, and the way back to what a boot gives:
//! a system that is started must be the same from a cron job, a debugger and a shell with `ulimit`.

use std::num::NonZeroU64;
use std::path::Path;

use nix::sys::signal::Signal;
use rustix::fs::Mode;
use rustix::process::{
    Resource, Rlimit, getrlimit, set_machine_check_memory_corruption_kill_policy, setrlimit,
};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

use crate::sys;
use crate::sys::task::Scheduling;

/// Nanoseconds by which a sleep may be longer (`PR_SET_TIMERSLACK`).
const TIMER_SLACK: u64 = 50_000;
/// Whom audit takes a process for (`pam_loginuid(8)`), and nobody.
const LOGIN: &str = "/proc/self/loginuid";
const NOBODY: &str = "4294967295";
/// Which memory a core dump has (`core(5)`): what the kernel begins with.
const CORE_FILTER: &str = "0x33";
const MIB: u64 = 1 << 20;
/// Open files that every program gets along with: the kernel's own hard limit (`INR_OPEN_MAX`).
const ENOUGH_FILES: u64 = 4096;

/// Resources by the names of `prlimit(1)`, with soft and hard limits: the kernel's own for its first process
/// (`INIT_RLIMITS`), and systemd's for open files.
fn limits() -> [(&'static str, Resource, Option<u64>, Option<u64>); 16] {
    let tasks = half_of_all_tasks();
    [
        ("cpu", Resource::Cpu, None, None),
        ("fsize", Resource::Fsize, None, None),
        ("data", Resource::Data, None, None),
        ("stack", Resource::Stack, Some(8 * MIB), None),
        ("core", Resource::Core, Some(0), None),
        ("rss", Resource::Rss, None, None),
        ("nproc", Resource::Nproc, tasks, tasks),
        ("nofile", Resource::Nofile, Some(1024), Some(524_288)),
        ("memlock", Resource::Memlock, Some(8 * MIB), Some(8 * MIB)),
        ("as", Resource::As, None, None),
        ("locks", Resource::Locks, None, None),
        ("sigpending", Resource::Sigpending, tasks, tasks),
        ("msgqueue", Resource::Msgqueue, Some(819_200), Some(819_200)),
        ("nice", Resource::Nice, Some(0), Some(0)),
        ("rtprio", Resource::Rtprio, Some(0), Some(0)),
        ("rttime", Resource::Rttime, None, None),
    ]
}

/// What the kernel gives its first process of processes and pending signals (`fork_init`, `proc(5)`: `threads-max`).
fn half_of_all_tasks() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/kernel/threads-max").ok()?;
    text.trim().parse().ok().map(|all: u64| all / 2)
}

/// Takes this process back to where a boot begins: limits, priorities, processors, scheduler, out-of-memory score, timer
/// slack, personality, memory policy, sharing of equal memory, errors of memory, user of the login, umask, and a child's end that is
/// not ignored.
///
/// What takes a privilege that this process has not, and what nobody can change back, is left and named.
pub fn shed() -> Vec<String> {
    let mut kept = Vec::new();
    let mut note = |what: &str, result: std::io::Result<()>| {
        if let Err(e) = result {
            log::debug!("{what}: {e}");
            kept.push(what.to_owned());
        }
    };
    for (name, resource, soft, hard) in limits() {
        let restored = restore(resource, soft, hard);
        if name != "nofile" || lower(getrlimit(resource).maximum, Some(ENOUGH_FILES)) != Some(ENOUGH_FILES) {
            note(&format!("limit `{name}`"), restored);
        }
    }
    note(
        "scheduler and nice value",
        sys::task::set_scheduling(0, &Scheduling::default()),
    );
    note("class of input and output", sys::task::set_io_priority(0, 0));
    note(
        "processors",
        sched_setaffinity(None, &every_processor()).map_err(Into::into),
    );
    note(
        "out-of-memory score",
        write_if_other("/proc/self/oom_score_adj", "0"),
    );
    note(
        "core filter",
        std::fs::write("/proc/self/coredump_filter", CORE_FILTER),
    );
    note(
        "timer slack",
        set_current_timer_slack(NonZeroU64::new(TIMER_SLACK)).map_err(Into::into),
    );
    note("personality", sys::task::set_personality(0));
    note("memory policy", default_memory_policy());
    note("memory shared with equals", sys::task::keep_memory_apart());
    note(
        "errors of memory",
        set_machine_check_memory_corruption_kill_policy(None).map_err(Into::into),
    );
    // As after a boot; `pam_loginuid(8)` could not set another one. Kernels without audit have none.
    if Path::new(LOGIN).exists() {
        note("user of the login", write_if_other(LOGIN, NOBODY));
    }
    note(
        "huge pages",
        rustix::thread::disable_transparent_huge_pages(false).map_err(Into::into),
    );
    // Ignored, it would take the exit status of every child with it (`wait(2)`).
    note("signals", sys::signal::set_default(Signal::SIGCHLD as i32));
    rustix::process::umask(Mode::from_raw_mode(0o022));
    kept.extend(irrevocable());
    kept
}

/// What a process is never rid of: set-user-ID programs that do not become another user, system calls that are refused, code that
/// cannot be made at run time. Where the machine's first process has it, everybody has.
fn irrevocable() -> Vec<String> {
    let of = |process: &str| std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let (own, first) = (of("self"), of("1"));
    let differs = |field: &str| {
        let value = |status: &str| {
            status
                .lines()
                .find(|line| line.starts_with(field))
                .map(str::to_owned)
        };
        value(&first).is_some() && value(&own) != value(&first)
    };
    [
        ("no new privileges", differs("NoNewPrivs:")),
        ("filter of system calls", differs("Seccomp:")),
        (
            "no memory both written and executed",
            sys::task::denies_write_execute(),
        ),
    ]
    .into_iter()
    .filter(|(_, is_so)| *is_so)
    .map(|(what, _)| what.to_owned())
    .collect()
}

/// As high as this process may; the rest is an error.
fn restore(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> std::io::Result<()> {
    let now = getrlimit(resource);
    let wanted = Rlimit {
        current: soft,
        maximum: hard,
    };
    if now.current == wanted.current && now.maximum == wanted.maximum {
        return Ok(());
    }
    let failed = match setrlimit(resource, wanted) {
        Ok(()) => return Ok(()),
        Err(e) => e,
    };
    let reachable = Rlimit {
        current: lower(wanted.current, now.maximum),
        maximum: now.maximum,
    };
    setrlimit(resource, reachable)?;
    Err(failed.into())
}

/// The lower of two limits, of which none means infinity.
pub(super) fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Also those that are not there yet.
fn every_processor() -> CpuSet {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    all
}

/// Kernels without NUMA have none.
fn default_memory_policy() -> std::io::Result<()> {
    match sys::task::set_memory_policy(0, &[]) {
        Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

fn write_if_other(path: &str, value: &str) -> std::io::Result<()> {
    let path = Path::new(path);
    if std::fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_above_all() {
        assert_eq!(lower(None, None), None);
        assert_eq!(lower(Some(5), None), Some(5));
        assert_eq!(lower(None, Some(5)), Some(5));
        assert_eq!(lower(Some(7), Some(5)), Some(5));
    }

    #[test]
    fn soft_limits_are_not_above_hard_ones() {
        for (name, _, soft, hard) in limits() {
            assert_eq!(lower(soft, hard), soft, "{name}");
        }
    }
}
