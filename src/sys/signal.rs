//! Signal dispositions.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Gives a signal its default effect (`rt_sigaction(2)`): any from 1 to 64 but KILL and STOP, also the two that C libraries keep
/// for themselves and do not let their wrappers touch.
pub fn set_default(signal: i32) -> io::Result<()> {
    // `struct sigaction` of the kernel: SIG_DFL, no flags, no restorer, an empty mask, all of which are zero.
    let default = [0_u64; 4];
    // SAFETY: the kernel reads the structure; SIG_DFL installs no handler, so no code of ours runs in signal context.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            default.as_ptr(),
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    super::check(result).map(drop)
}

/// Lets a program begin with no signal blocked, whatever this process blocks (`sigprocmask(2)`).
pub fn unblock_in(command: &mut Command) {
    let unblock = || {
        // SAFETY: all zeroes are a valid `sigset_t`, which the next call fills.
        let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is ours.
        unsafe { libc::sigemptyset(&raw mut none) };
        // SAFETY: the set is ours, and no old one is asked for.
        super::check(unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into()
        })
        .map(drop)
    };
    // SAFETY: between fork and exec only async-signal-safe functions are called (`signal-safety(7)`).
    unsafe { command.pre_exec(unblock) };
}

/// A realtime signal by number, as the type of `rustix`; `None` for a number that is not one.
pub fn realtime(number: i32) -> Option<rustix::process::Signal> {
    if !(34..=64).contains(&number) {
        return None;
    }
    // SAFETY: a number the kernel accepts, and not one that a C library keeps for itself (32 and 33).
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
