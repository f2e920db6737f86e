//! Signal dispositions.

use std::io;

/// Gives a signal its default effect (`signal(2)`).
pub fn set_default(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so no code of ours runs in signal context.
    let previous = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if previous == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A realtime signal by number, as the type of `rustix`; `None` for a number that is not one.
pub fn realtime(number: i32) -> Option<rustix::process::Signal> {
    if !(34..=64).contains(&number) {
        return None;
    }
    // SAFETY: a number the kernel accepts, and not one that a C library keeps for itself (32 and 33).
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
