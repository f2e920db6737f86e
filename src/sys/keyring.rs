//! `keyctl(2)`: the container's own session keyring.

use std::ffi::CStr;
use std::io;

use super::check;

/// `KEYCTL_JOIN_SESSION_KEYRING`, from `linux/keyctl.h`.
const JOIN_SESSION_KEYRING: libc::c_int = 1;
/// `KEYCTL_SETPERM`.
const SETPERM: libc::c_int = 5;

/// Joins a new session keyring of this name, so that the container does not see the caller's keys. Returns its serial.
///
/// # Errors
/// `ENOSYS` on kernels without keyrings, `EDQUOT` when the user's key quota is used up.
pub fn join_session(name: &CStr) -> io::Result<i32> {
    // SAFETY: the kernel copies the NUL-terminated name.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    i32::try_from(check(serial)?).map_err(io::Error::other)
}

/// Sets the permission mask of a key (`keyctl_setperm(3)`).
pub fn set_permissions(serial: i32, mask: u32) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, mask) }).map(drop)
}
