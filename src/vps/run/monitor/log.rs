//! What a console said, on the host's disk: bounded in size, and in how fast it grows.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::pace::Bounds;

/// Size at which the log starts anew; one older part is kept beside it.
const PART: u64 = 1 << 20;

/// A log of two parts, the older of which is dropped when the newer is full.
pub(super) struct Log {
    path: PathBuf,
    file: Option<OwnedFd>,
    size: u64,
}

impl Log {
    pub(super) fn open(path: PathBuf) -> Self {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).ok();
        let size = file
            .as_ref()
            .and_then(|f| rustix::fs::fstat(f).ok())
            .map_or(0, |s| s.st_size.unsigned_abs());
        Self { path, file, size }
    }

    /// A log that cannot be written (a full disk) must not stop the VPS.
    pub(super) fn write(&mut self, piece: &[u8]) {
        if self.size >= PART {
            let older = older(&self.path);
            // Not replaced by the rename: ext4 writes a file out at once that takes another's place (`auto_da_alloc`).
            let _ = std::fs::remove_file(&older);
            let _ = std::fs::rename(&self.path, older);
            *self = Self::open(std::mem::take(&mut self.path));
        }
        if let Some(file) = &self.file
            && let Ok(n) = rustix::io::write(file, piece)
        {
            self.size += n as u64;
        }
    }
}

/// Where the older part of a log is.
pub(in super::super) fn older(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// What a console may say, in bytes: it is copied at the host's expense. The serial line of a machine carries a twentieth of this.
pub(super) const ALLOWED: Bounds = Bounds {
    burst: 1 << 20,
    rate: 256 << 10,
    worth: 16 << 10,
};
