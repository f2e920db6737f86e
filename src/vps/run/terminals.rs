//! The terminals of the machine, which all VPSs share.
//!
//! Whoever is root in a VPS lifts the bound of its `/dev/pts` by a mount option, or mounts another without one. What counts a
//! terminal as a VPS's is its memory, 6 to 7 KB for each. So the machine is to have more of them than anybody has memory for: with the
//! kernel's 4096 one VPS takes all, and no other starts or has a terminal for `exec`.

use std::path::Path;

use crate::error::{During, Result};
use crate::files;

/// How many the machine has (`pty(7)`).
const MAX: &str = "/proc/sys/kernel/pty/max";
/// What the kernel has where nobody has said otherwise, and the most that it takes (`NR_UNIX98_PTY_DEFAULT`, `NR_UNIX98_PTY_MAX`).
const USUAL: u32 = 4096;
const MOST: u32 = 1 << 20;

/// Raises the number of terminals to the most there can be, unless the operator has chosen one. Where that cannot be done, VPSs are
/// started all the same.
pub(super) fn make_room() {
    if let Err(e) = raise() {
        log::warn!("one VPS can take all terminals of this machine: {e}");
    }
}

fn raise() -> Result<()> {
    if files::read_text(Path::new(MAX))?.trim() != USUAL.to_string() {
        return Ok(());
    }
    std::fs::write(MAX, MOST.to_string()).during(|| format!("write `{MOST}` to `{MAX}`"))
}
