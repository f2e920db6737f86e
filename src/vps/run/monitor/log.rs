//! What a console said, on the host's disk: bounded in size, and in how fast it grows.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

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

/// How much a console may say at once, in bytes, and how much more in a second. It is copied at the host's expense, outside
/// of the VPS's limits; who says more waits. The serial line of a machine carries a twentieth of this.
const BURST: u64 = 1 << 20;
const RATE: u64 = 256 << 10;
/// Less than this is not worth waking up for.
const WORTH: u64 = 16 << 10;

/// What a console may say.
pub(super) struct Allowance {
    left: u64,
    since: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// How long nothing may be said.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.since);
        let earned = u64::try_from(passed.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(RATE)
            / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let lacking = WORTH.saturating_sub(self.left);
        (lacking > 0).then(|| Duration::from_millis(lacking * 1000 / RATE + 1))
    }

    /// So much was said.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_to_the_rate() {
        let start = Instant::now();
        let (mut now, mut said) = (start, 0);
        let mut allowance = Allowance::new(now);
        while now < start + Duration::from_secs(10) {
            match allowance.pause(now) {
                Some(pause) => now += pause,
                None => {
                    allowance.spend(4096);
                    said += 4096;
                }
            }
        }
        let most = BURST + 10 * RATE;
        assert!((most - BURST..=most + WORTH).contains(&said), "{said}");
        // Who was silent may speak at once again, but not for all the time that was not used.
        assert_eq!(allowance.pause(now + Duration::from_secs(3600)), None);
        assert_eq!(allowance.left, BURST);
    }
}
