//! System calls that neither `nix` nor `rustix` has, one function each, without policy. The only module that may say
//! `unsafe` or name `libc`.
#![allow(
    unsafe_code,
    reason = "the system call boundary; every block argues why it is sound"
)]

pub mod born;
pub mod bpf;
pub mod btrfs;
pub mod clock;
pub mod clone;
pub mod cred;
pub mod fd;
pub mod interface;
pub mod keyring;
pub mod loop_device;
pub mod mount;
pub mod names;
pub mod quota;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod task;

use std::io;

/// Turns the C convention (-1 and `errno`) into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
