//! Filesystem magics of `linux/magic.h`: proof that a descriptor is what its path promised.

use std::os::fd::AsFd;

use rustix::fs::FsWord;

use crate::error::{Error, Result};

/// procfs.
pub(super) const PROC: FsWord = 0x9fa0;
/// sysfs.
pub(super) const SYSFS: FsWord = 0x6265_6572;
/// devpts.
pub(super) const DEVPTS: FsWord = 0x1cd1;

/// Whether `fd` is on a filesystem of this kind.
pub(super) fn is(fd: impl AsFd, magic: FsWord) -> Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == magic)
}

/// Fails unless `fd` is on a filesystem of this kind: a fake one in the image must not pass (CVE-2019-16884 and followers).
pub(super) fn require(fd: impl AsFd, magic: FsWord, name: &str) -> Result<()> {
    if is(fd, magic)? {
        return Ok(());
    }
    Err(Error::Corrupt(format!(
        "what should be {name} is another filesystem"
    )))
}
