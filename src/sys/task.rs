//! What a task carries with it through `execve(2)`: scheduling, input and output priority, personality, memory policy.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
const WHO_PROCESS: libc::c_int = 1;

/// `struct sched_attr` of `linux/sched/types.h`, in the first of its sizes (`SCHED_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Of this structure; [`set_scheduling`] fills it in.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// From -20 to 19.
    pub nice: i32,
    /// From 1 to 99 for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`, like the two that follow.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Sets how a process is scheduled (`sched_setattr(2)`).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, and for real-time policies in a v1 cgroup without `cpu.rt_runtime_us`; `EINVAL` for
/// attributes that do not fit together; `EBUSY` when deadlines cannot be guaranteed.
pub fn set_scheduling(pid: i32, scheduling: &Scheduling) -> io::Result<()> {
    let attributes = Scheduling {
        size: size_of::<Scheduling>() as u32,
        ..*scheduling
    };
    // SAFETY: the kernel reads as many bytes as the structure says it has.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) }).map(drop)
}

/// Sets a process's class and level of input and output (`ioprio_set(2)`): the class shifted left by 13, and the level.
///
/// # Errors
/// `EPERM` for the real-time class without `CAP_SYS_NICE` and `CAP_SYS_ADMIN`.
pub fn set_io_priority(pid: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, value) }).map(drop)
}

/// Lets a task run on all processors there are (`sched_setaffinity(2)`); the kernel leaves out what its cpuset does not have.
///
/// # Errors
/// `EPERM` for another user's process without `CAP_SYS_NICE`; `ESRCH`.
pub fn allow_all_processors(pid: i32) -> io::Result<()> {
    // More than any kernel is built for (CONFIG_NR_CPUS ends at 8192).
    let all = [u8::MAX; 8192 / 8];
    // SAFETY: the kernel reads as many bytes as we say, which the array has.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, all.len(), all.as_ptr()) }).map(drop)
}

/// Lets a program begin with these limits of open files (`RLIMIT_NOFILE`); absent is unlimited.
pub fn limit_files_in(command: &mut Command, soft: Option<u64>, hard: Option<u64>) {
    let limit = libc::rlimit {
        rlim_cur: soft.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: hard.unwrap_or(libc::RLIM_INFINITY),
    };
    // SAFETY: the structure is ours.
    let set =
        move || check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit).into() }).map(drop);
    // SAFETY: between fork and exec only async-signal-safe functions are called (`signal-safety(7)`; the call is a plain system call).
    unsafe { command.pre_exec(set) };
}

/// Sets the execution domain of this process (`personality(2)`): what `uname(2)` calls the machine.
///
/// # Errors
/// `EINVAL` when the kernel cannot.
pub fn set_personality(persona: libc::c_ulong) -> io::Result<()> {
    // SAFETY: a plain number.
    check(libc::c_long::from(unsafe { libc::personality(persona) })).map(drop)
}

/// Ends that the kernel looks for equal pages in all memory of this process (`PR_SET_MEMORY_MERGE`, Linux 6.4), so that what others
/// have in theirs could be found out by how long a write takes.
///
/// # Errors
/// Those of `prctl(2)`; a kernel that does not do so is none.
pub fn keep_memory_apart() -> io::Result<()> {
    const SET_MEMORY_MERGE: libc::c_int = 67;
    // SAFETY: plain numbers.
    match check(unsafe { libc::prctl(SET_MEMORY_MERGE, 0_u64, 0_u64, 0_u64, 0_u64) }.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.map(drop),
    }
}

/// Whether this process and those that it starts are refused memory that is both written and executed (`PR_SET_MDWE`, Linux 6.3).
pub fn denies_write_execute() -> bool {
    const GET_MDWE: libc::c_int = 66;
    // SAFETY: plain numbers.
    unsafe { libc::prctl(GET_MDWE, 0_u64, 0_u64, 0_u64, 0_u64) > 0 }
}

/// Sets from which nodes this thread gets its memory (`set_mempolicy(2)`): a mode with its flags, and a bit for each node.
///
/// # Errors
/// `EINVAL` for an unknown mode, or when the thread may use none of the nodes; `ENOSYS` on kernels without NUMA.
pub fn set_memory_policy(mode: libc::c_int, nodes: &[libc::c_ulong]) -> io::Result<()> {
    // The kernel takes one off the number of bits.
    let bits = nodes.len() * libc::c_ulong::BITS as usize + 1;
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads no more bits than the slice has; none of a null pointer.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
