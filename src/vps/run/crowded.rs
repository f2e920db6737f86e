//! Why a VPS takes no further process.

use rustix::io::Errno;

use crate::cgroups::Cgroup;
use crate::error::Error;
use crate::vps::record::name::Name;

/// Says so where a program could not be started because the VPS has reached one of its limits: `clone(2)` fails by `EAGAIN` for
/// want of a process, and by `ENOMEM` for want of memory.
pub(super) fn explain(e: Error, name: &Name, cgroup: Option<&Cgroup>) -> Error {
    let Some(stats) = cgroup.and_then(|c| c.stats().ok()) else {
        return e;
    };
    let full = |used: u64, limit: Option<u64>, slack: u64| {
        limit.filter(|limit| used.saturating_add(slack) >= *limit)
    };
    let processes = stats.pids.and_then(|p| full(p.current, p.limit, 2));
    let memory = stats.memory.and_then(|m| full(m.usage, m.limit, 1 << 20));
    let failed = match e.root() {
        // The second of the two processes that `exec` takes is made inside, and what became of it comes as words.
        Error::Init(said) if said.ends_with("try again") => Some(Errno::AGAIN),
        Error::Init(said) if said.ends_with("cannot allocate memory") => Some(Errno::NOMEM),
        _ => e.errno().map(Errno::from_raw_os_error),
    };
    let what = match (failed, processes, memory) {
        (Some(Errno::AGAIN), Some(limit), _) => format!("as many processes as it may have ({limit})"),
        (Some(Errno::NOMEM), _, Some(limit)) => format!("used all memory it may have ({limit} bytes)"),
        _ => return e,
    };
    Error::Status(format!(
        "the VPS has {what}: end some of its processes from within, or start it anew: `condo restart {name}`"
    ))
}
