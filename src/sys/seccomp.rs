//! `seccomp(2)`: installing a filter and asking for what the kernel knows. Unlike the wrappers of crates, nothing here sets
//! no-new-privs, which would break `sudo`, `su` and file capabilities below the filter.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use seccompiler::sock_filter;

use super::check;

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
