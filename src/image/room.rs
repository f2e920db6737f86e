//! How much of a disk an image may take: unpacking ends before the disk is full, because the host and its VPSs live on the
//! same one.

use std::os::fd::BorrowedFd;

use rustix::fs::StatVfs;

use crate::error::{During, Error, Result};

/// What stays free: a twentieth of the disk and of its inodes, but no more than this many bytes.
const MOST_RESERVED: u64 = 1 << 30;
/// What a file or directory takes beside its content: an inode, its name, a block for attributes or the list of its files.
const EACH: u64 = 4096;

/// The room below a directory. It is measured again whenever half of what was found is spent: others write to the disk as well.
#[derive(Debug)]
pub(super) struct Room<'d> {
    dir: BorrowedFd<'d>,
    /// To be spent before the next look.
    bytes: u64,
    inodes: u64,
}

impl<'d> Room<'d> {
    pub(super) fn new(dir: BorrowedFd<'d>) -> Self {
        Self {
            dir,
            bytes: 0,
            inodes: 0,
        }
    }

    /// Takes the room of one new file with so many bytes of content and attributes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it does not fit.
    pub(super) fn take(&mut self, content: u64) -> Result<()> {
        let bytes = content.saturating_add(EACH);
        if self.bytes < bytes || self.inodes == 0 {
            let free = self.look()?;
            free.check(bytes)?;
            self.bytes = (free.bytes - bytes) / 2 + bytes;
            self.inodes = free.inodes / 2 + 1;
        }
        self.bytes -= bytes;
        self.inodes -= 1;
        Ok(())
    }

    /// Refuses what takes at least so many bytes, before anything of it is written.
    pub(super) fn check(&self, bytes: u64) -> Result<()> {
        self.look()?.check(bytes)
    }

    fn look(&self) -> Result<Free> {
        let disk = rustix::fs::fstatvfs(self.dir).during(|| "measure the disk of the images")?;
        Ok(Free::of(&disk))
    }
}

/// What may be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    bytes: u64,
    inodes: u64,
}

impl Free {
    fn of(disk: &StatVfs) -> Self {
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Self {
            bytes: free.saturating_sub((size / 20).min(MOST_RESERVED)),
            // btrfs makes inodes as they are needed and says 0.
            inodes: match disk.f_files {
                0 => u64::MAX,
                all => disk.f_favail.saturating_sub(all / 20),
            },
        }
    }

    fn check(self, bytes: u64) -> Result<()> {
        if self.inodes == 0 {
            return Err(Error::unsupported(
                "another file on the disk of the images",
                "it has few inodes left, and some stay free; remove files, images or VPSs",
            ));
        }
        if self.bytes < bytes {
            let why = format!(
                "it takes {} at least, and the disk of the images has room for {}; remove images or VPSs, or keep all state on \
                 another disk by `--root`",
                mib(bytes),
                mib(self.bytes)
            );
            return Err(Error::unsupported("an image of this size", why));
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(blocks: u64, free: u64, inodes: u64) -> StatVfs {
        let mut disk = rustix::fs::statvfs("/").unwrap();
        (disk.f_frsize, disk.f_blocks, disk.f_bavail) = (4096, blocks, free);
        (disk.f_files, disk.f_favail) = (1000, inodes);
        disk
    }

    #[test]
    fn some_of_a_disk_stays_free() {
        let free = Free::of(&disk(1000, 500, 60));
        assert_eq!((free.bytes, free.inodes), (450 * 4096, 10));
        assert_eq!(Free::of(&disk(1000, 30, 50)), Free { bytes: 0, inodes: 0 });
        // Of a large disk a GiB, not a twentieth.
        let large = Free::of(&disk(1 << 30, 1 << 29, 1000));
        assert_eq!(large.bytes, (1 << 41) - MOST_RESERVED);
        let mut uncounted = disk(1000, 500, 0);
        uncounted.f_files = 0;
        assert!(Free::of(&uncounted).check(4096).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        let text = Free::of(&disk(100_000, 10_000, 500))
            .check(1 << 30)
            .unwrap_err()
            .to_string();
        assert!(text.contains("1024 MiB") && text.contains("19 MiB"), "{text}");
        assert!(
            Free::of(&disk(100_000, 10_000, 50))
                .check(1)
                .unwrap_err()
                .to_string()
                .contains("inodes")
        );
    }
}
