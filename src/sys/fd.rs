//! File descriptors wholesale, and those inherited by number.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
