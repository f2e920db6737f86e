//! A process that does nothing but keep a scope alive until init is born in it: systemd makes none without a process, and
//! one whose last process has gone is over.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::error::{During, Result};
use crate::sys::clone::{Clone, Side, exit};

/// The process; dropping this ends it.
#[derive(Debug)]
pub struct Placeholder {
    pub(super) pid: i32,
    pidfd: OwnedFd,
    /// Its end is the process's, should we be killed.
    _life: OwnedFd,
}

impl Placeholder {
    pub(super) fn spawn() -> Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        match Clone::default()
            .spawn()
            .during(|| "make a process for a new scope")?
        {
            Side::Child => {
                drop(write);
                while rustix::io::read(&read, &mut [0_u8; 1]).is_err_and(|e| e == rustix::io::Errno::INTR) {}
                exit(0)
            }
            Side::Parent { pid, pidfd } => Ok(Self {
                pid,
                pidfd,
                _life: write,
            }),
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let gone = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        while gone().is_err_and(|e| e == rustix::io::Errno::INTR) {}
    }
}
