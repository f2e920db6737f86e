//! What is looked at from inside.

use std::fs;

use anyhow::{Context, Result};

pub fn mount_table() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Where a line of the mount table is mounted.
pub fn point(line: &str) -> &str {
    line.split(' ').nth(4).unwrap_or_default()
}

/// Whether a line of the mount table is of a mount that is read-only.
pub fn says_readonly(line: &str) -> bool {
    line.split(' ')
        .nth(5)
        .is_some_and(|options| options.starts_with("ro,"))
}

/// The last line of the mount table for this mount point.
pub fn mounted(point: &str) -> Result<String> {
    let table = mount_table();
    let line = table
        .lines()
        .rfind(|line| self::point(line) == point)
        .with_context(|| format!("nothing is mounted at {point}:\n{table}"))?;
    Ok(line.to_owned())
}

pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

pub fn errno_of<T>(result: std::io::Result<T>) -> Option<nix::errno::Errno> {
    result.err()?.raw_os_error().map(nix::errno::Errno::from_raw)
}

pub fn is_readonly(path: &str) -> bool {
    errno_of(fs::write(format!("{path}/probe"), "")) == Some(nix::errno::Errno::EROFS)
}
