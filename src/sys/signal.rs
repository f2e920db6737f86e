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

/// From now on a signal ends this process at once, with 128 and its number as status (`sigaction(2)`), also where it is the first
/// of a pid namespace, which the default effect of a signal does not reach (`pid_namespaces(7)`).
pub fn end_on(signal: libc::c_int) -> io::Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: `_exit(2)` is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
    // SAFETY: all zeroes are a valid `sigaction`: no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the structure is ours, and its handler calls nothing but an async-signal-safe function (`signal-safety(7)`).
    super::check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()).into() }).map(drop)
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

/// A signal's name as the system has it (`strsignal(3)`): "Killed", "Bad system call".
pub fn describe(signal: i32) -> String {
    // SAFETY: any number may be asked for.
    let text = unsafe { libc::strsignal(signal) };
    if text.is_null() {
        return "unknown".into();
    }
    // SAFETY: not null, and so a string that the C library keeps until this thread asks for another.
    unsafe { std::ffi::CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A realtime signal by number, as the type of `rustix`; `None` for a number that is not one.
pub fn realtime(number: i32) -> Option<rustix::process::Signal> {
    if !(34..=64).contains(&number) {
        return None;
    }
    // SAFETY: a number the kernel accepts, and not one that a C library keeps for itself (32 and 33).
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
