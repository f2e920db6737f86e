//! The host's clock.

use std::io;

use super::check;

/// From `linux/timex.h`: the clock is not kept right by anybody.
const STA_UNSYNC: libc::c_int = 0x40;

/// Whether somebody keeps the clock right (`adjtimex(2)`).
///
/// # Errors
/// The kernel's, of which none is known.
pub fn is_kept_right() -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid timex, whose modes of 0 change nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into the structure, which outlives the call.
    check(libc::c_long::from(unsafe { libc::adjtimex(&raw mut state) }))?;
    Ok(state.status & STA_UNSYNC == 0)
}
