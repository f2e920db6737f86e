//! ext4 in a file that is not mounted: making one, growing one, and what its superblock says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{During, Error, Result};
use crate::files;

/// Bytes of a block.
pub(super) const BLOCK: u32 = 4096;

/// The journal of a disk of more than a gigabyte, in MiB. A larger one, as mkfs would make it, takes up that much more of the host.
const JOURNAL: u64 = 32;

/// Makes an empty file system. No blocks are kept for the host's root: all are the VPS's.
pub(super) fn format(path: &Path, size: u64, inodes: Option<u64>) -> Result<()> {
    let mut command = tool("mkfs.ext4");
    command.args(["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", "-b"]);
    command.arg(BLOCK.to_string());
    // What is smaller gets a smaller one, or none, by ext4's own table.
    if size >= 1 << 30 {
        command.arg("-J").arg(format!("size={JOURNAL}"));
    }
    if let Some(inodes) = inodes {
        command.arg("-N").arg(inodes.to_string());
    }
    run(command.arg(path), &[0])
}

/// Lets a file system fill its file. What it takes to undo it is in `undo` meanwhile, see [`undo_grow`].
pub(super) fn grow(path: &Path, undo: &Path) -> Result<()> {
    // 1: errors corrected. resize2fs insists on a check.
    run(tool("e2fsck").args(["-f", "-p"]).arg(path), &[0, 1])?;
    run(tool("resize2fs").arg("-z").arg(undo).arg(path), &[0])?;
    files::remove_file(undo)
}

/// Takes back a [`grow`] that was killed.
pub(super) fn undo_grow(path: &Path, undo: &Path) -> Result<()> {
    if !files::exists(undo) {
        return Ok(());
    }
    // 8: nothing had been written yet.
    run(tool("e2undo").arg("-f").arg(undo).arg(path), &[0, 1, 8])?;
    files::remove_file(undo)
}

fn tool(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(name);
    command.env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn run(command: &mut Command, good: &[i32]) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::unsupported(
            "a disk in a file",
            format!("there is no `{name}`; install e2fsprogs"),
        ),
        _ => e.into(),
    })?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // It knows the number of an error only as words.
    if said.contains("No space left on device") {
        return Err(rustix::io::Errno::NOSPC).during(|| name);
    }
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let words: Vec<_> = lines.collect();
    Err(Error::Status(format!(
        "{name}: {}: {}",
        output.status,
        words.join(", ")
    )))
}

/// What the superblock says of a file system that is not mounted (`Documentation/filesystems/ext4/super.rst`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Bytes in use.
    pub(super) used: u64,
    /// Inodes there are.
    pub(super) inodes: u64,
    /// Inodes in use.
    pub(super) inodes_used: u64,
}

impl Superblock {
    pub(super) fn read(file: &File) -> Result<Self> {
        let mut raw = [0; 1024];
        file.read_exact_at(&mut raw, 1024)?;
        Self::parse(&raw).ok_or_else(|| Error::Corrupt("it holds no ext4".into()))
    }

    fn parse(raw: &[u8; 1024]) -> Option<Self> {
        let word = |at: usize| {
            Some(u64::from(u32::from_le_bytes(
                raw.get(at..at + 4)?.try_into().ok()?,
            )))
        };
        if raw[0x38..0x3a] != [0x53, 0xef] {
            return None;
        }
        // High halves are there with the feature `64bit`.
        let wide = word(0x60)? & 0x80 != 0;
        let both = |low: usize, high: usize| -> Option<u64> {
            Some(word(low)? | if wide { word(high)? << 32 } else { 0 })
        };
        let (blocks, free, overhead) = (both(0x4, 0x150)?, both(0xc, 0x158)?, word(0x248)?);
        let size = 1024_u64.checked_shl(u32::try_from(word(0x18)?).ok()?)?;
        Some(Self {
            used: blocks
                .saturating_sub(free)
                .saturating_sub(overhead)
                .saturating_mul(size),
            inodes: word(0x0)?,
            inodes_used: word(0x0)?.saturating_sub(word(0x10)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ext4_is_not_taken_for_one() {
        assert_eq!(Superblock::parse(&[0; 1024]), None);
    }

    #[test]
    fn a_superblock_is_read() {
        let mut raw = [0; 1024];
        for (at, value) in [
            (0, 1000_u32),
            (4, 100_000),
            (0xc, 60_000),
            (0x10, 900),
            (0x18, 2),
            (0x248, 10_000),
        ] {
            raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        raw[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        let expected = Superblock {
            used: 30_000 * 4096,
            inodes: 1000,
            inodes_used: 100,
        };
        assert_eq!(Superblock::parse(&raw), Some(expected));
        // A size that overflows.
        raw[0x18] = 200;
        assert_eq!(Superblock::parse(&raw), None);
    }
}
