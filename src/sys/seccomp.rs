//! `seccomp(2)`: installing a filter and asking for what the kernel knows. Unlike the wrappers of crates, nothing here sets
//! no-new-privs, which would break `sudo`, `su` and file capabilities below the filter.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use seccompiler::sock_filter;

use super::check;
use super::shared::SharedMemory;

/// `SECCOMP_FILTER_FLAG_TSYNC`: apply to all threads of the process.
pub const TSYNC: u32 = 1 << 0;
/// `SECCOMP_FILTER_FLAG_LOG`: audit every action but ALLOW.
pub const LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: leave speculative store bypass enabled.
pub const SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a descriptor that receives the calls with action NOTIFY.
pub const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`: a failed TSYNC is `ESRCH` and not a thread id (needed beside NEW_LISTENER; Linux 5.7).
pub const TSYNC_ESRCH: u32 = 1 << 4;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a call that a listener has received ends by fatal signals only (Linux 5.19).
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call goes on as if there were no filter.
const CONTINUE: u32 = 1 << 0;

/// Adds a filter to this thread (to all threads with [`TSYNC`]); the descriptor is there with [`NEW_LISTENER`], close-on-exec.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN in the user namespace and without no-new-privs, `EINVAL` for a program or a flag that the
/// kernel does not take, `EBUSY` when there is a listener already, `ENOMEM` beyond 32768 instructions in all, `ESRCH` when a
/// thread has filters of its own.
pub fn set_filter(program: &[sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let header = libc::sock_fprog {
        len,
        // Both types are the kernel's `struct sock_filter`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the header and the program, of the length it states, outlive the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const header,
        )
    };
    let result = check(result)?;
    if flags & NEW_LISTENER != 0 {
        let fd = RawFd::try_from(result).map_err(io::Error::other)?;
        // SAFETY: the kernel made this descriptor for this call; nobody else owns it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    if result > 0 {
        // TSYNC without TSYNC_ESRCH: the id of the thread in the way; no filter was added.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(None)
}

/// Whether the kernel knows the action of this `SECCOMP_RET_*` value (data bits are ignored).
pub fn action_available(action: u32) -> io::Result<bool> {
    let action = action & libc::SECCOMP_RET_ACTION_FULL;
    // SAFETY: the value outlives the call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    match check(result) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// By which it is answered.
    pub id: u64,
    /// The thread that called, in our pid namespace; 0 when it is not in there.
    pub pid: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The first argument.
    pub first: u64,
}

/// The next call that a listener has. It does not block when the listener was found readable.
///
/// # Errors
/// `ENOENT` when the caller has been killed meanwhile.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Waiting> {
    // SAFETY: a structure of numbers, for which the kernel demands zeros.
    let mut call = unsafe { std::mem::zeroed() };
    receive_at(listener, &mut call)
}

/// The same into memory that outlives this process, so that no call that the kernel has given out is known to nobody: what begins there is
/// its number (`struct seccomp_notif`).
///
/// # Errors
/// As [`receive`]; `EINVAL` for too little memory.
pub fn receive_into(listener: BorrowedFd<'_>, memory: &mut SharedMemory) -> io::Result<Waiting> {
    let bytes = memory.bytes().get_mut(..size_of::<libc::seccomp_notif>());
    let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
    bytes.fill(0);
    // SAFETY: aligned as pages are, of that size, a structure of numbers, and borrowed for as long as the call lasts.
    receive_at(listener, unsafe { &mut *bytes.as_mut_ptr().cast() })
}

fn receive_at(listener: BorrowedFd<'_>, call: &mut libc::seccomp_notif) -> io::Result<Waiting> {
    // SAFETY: the descriptor is open and the structure, of the size that the request states, outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut *call,
        )
    };
    check(result.into())?;
    Ok(Waiting {
        id: call.id,
        pid: call.pid,
        arch: call.data.arch,
        first: call.data.args[0],
    })
}

/// Whether the caller still waits: until then its pid is nobody else's.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: as in `receive`; the kernel reads the number.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    result == 0
}

/// Ends a call: with success, with an error (`errno`), or as the kernel would have it (`None`).
///
/// # Errors
/// `ENOENT` when the caller has gone.
pub fn answer(listener: BorrowedFd<'_>, id: u64, errno: Option<i32>) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno.unwrap_or(0),
        flags: if errno.is_none() { CONTINUE } else { 0 },
    };
    // SAFETY: as in `receive`.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        )
    };
    check(result.into()).map(drop)
}
