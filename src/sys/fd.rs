//! File descriptors wholesale, and those inherited by number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use super::check;

/// Marks every descriptor from `first` on close-on-exec (`close_range(2)`): what was not meant for the container does not
/// reach it (CVE-2016-9962, CVE-2024-21626).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: only flags of our own descriptors change.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    check(result).map(drop)
}

/// Descriptors that [`close_others`] leaves open whoever calls it: the log, the ways to report a failure.
static LASTING: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Keeps a descriptor open in every process that is cloned from here on.
pub fn outlast(fd: BorrowedFd<'_>) {
    LASTING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(fd.as_raw_fd());
}

/// Closes every descriptor from `first` on, except `needed` and those that [`outlast`] named.
///
/// Close-on-exec is not enough for a process that resolves paths in a tenant's tree: until the very end of `execve(2)` a path
/// such as `/proc/self/fd/7/..` leads through a directory of the host that is still open (CVE-2024-21626).
pub fn close_others(first: RawFd, needed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = needed.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend(LASTING.lock().unwrap_or_else(PoisonError::into_inner).iter());
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.into_iter().filter(|fd| *fd >= first) {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, RawFd::MAX)
}

fn close_range(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: the caller is a cloned process on its way to `execve(2)` or `_exit(2)`, or a program at its beginning: no value that
    // owns one of these descriptors is used again.
    check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
}

/// Takes ownership of a descriptor that the caller of this program passed by number (`--preserve-fds`, re-exec).
///
/// # Errors
/// `EBADF` when no such descriptor is open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of a descriptor, open or not.
    check(unsafe { libc::c_long::from(libc::fcntl(fd, libc::F_GETFD)) })?;
    // SAFETY: it is open, and was handed over by whoever executed us; this program owns it from here on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
