//! `mount_setattr(2)`, the one call of the new mount interface that `rustix` does not have.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Attributes of a mount, as `MOUNT_ATTR_*` bits of `linux/mount.h`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// Ignore set-user-ID bits and file capabilities.
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// No device files.
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// No execution.
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// The bits that choose an access time policy; to be cleared before one is set.
    pub const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;
    /// Access times relative to changes (the default, zero).
    pub const RELATIME: u64 = libc::MOUNT_ATTR_RELATIME;
    /// No access times.
    pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    /// Access times always.
    pub const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    /// No access times of directories.
    pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    /// Owners are translated by [`Attributes::userns`](super::Attributes::userns).
    pub const IDMAP: u64 = libc::MOUNT_ATTR_IDMAP;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
}

/// What `mount_setattr(2)` is to change.
#[derive(Debug, Default, Clone, Copy)]
pub struct Attributes<'a> {
    /// Bits of [`attr`] to set.
    pub set: u64,
    /// Bits of [`attr`] to clear.
    pub clear: u64,
    /// Propagation (`MS_PRIVATE`, `MS_SLAVE`, …), or 0 to leave it.
    pub propagation: u64,
    /// The user namespace whose maps translate owners, with [`attr::IDMAP`].
    pub userns: Option<BorrowedFd<'a>>,
}

/// Changes the mount that `fd` refers to, and with `recursive` all mounts below it.
///
/// # Errors
/// `EINVAL` where the filesystem cannot be idmapped or the mount is not at its root, `EPERM`, `ENOSYS` before Linux 5.12.
pub fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, change: &Attributes<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: change.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the structure outlives the call and is only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}
