//! Making processes in containers: the conversation ([`link`]), init's side ([`child`]), the runtime's side ([`parent`]),
//! and further processes ([`exec`]), which somebody has to wait for ([`minder`]).

pub mod announce;
pub mod child;
pub mod door;
pub mod exec;
pub mod link;
pub mod minder;
pub mod parent;
pub mod patience;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use link::Reporter;
use patience::Patience;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

use crate::error::{During, Error, Result};
use crate::sys;
use crate::sys::clone::{Clone, PARENT, Side};

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// A process of ours that has been born and not been waited for.
#[derive(Debug)]
pub struct Newborn {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl Newborn {
    /// The process of this number, which must be a child that has not been waited for: so the number is still its own.
    pub fn named(pid: i32) -> Result<Self> {
        let raw =
            rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::Corrupt("pid 0 from init".into()))?;
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?;
        Ok(Self { pid, pidfd })
    }

    /// The process that a descriptor holds. Its number is read here, because whoever made it may be in another pid namespace.
    pub fn held(pidfd: OwnedFd) -> Result<Self> {
        let info = crate::files::read_text(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()).as_ref())?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| Error::Corrupt("init named a process that is not there".into()))?;
        Ok(Self { pid, pidfd })
    }

    /// Ends it like [`Newborn::kill`], but does not wait for one that a v1 cgroup holds frozen: that dies once it is thawed.
    pub fn give_up(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        self.reap_soon();
    }

    /// Waits for its end, but not for long.
    fn reap_soon(&self) {
        let gone = Patience::new(Some(DEATH), None).and_then(|patience| patience.wait(self.pidfd.as_fd()));
        if gone.is_ok() {
            let _ = self.reap();
        }
    }

    /// Ends it and takes its exit status, so that it is gone when this returns.
    pub fn kill(&self) -> Result<()> {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        self.reap()
    }

    /// Waits for its end.
    pub fn reap(&self) -> Result<()> {
        self.end().map(drop)
    }

    /// Waits for its end and says what that was; nothing when somebody else has waited for it.
    pub fn end(&self) -> Result<Option<WaitIdStatus>> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                // Waited for already, or not our child any more.
                Err(rustix::io::Errno::CHILD) => return Ok(None),
                other => return other.during(|| "wait for a process"),
            }
        }
    }

    /// Waits for its end and returns its exit status as a shell tells it: 128 and the signal's number for a killed one.
    pub fn exit_code(&self) -> Result<u8> {
        let end = self
            .end()?
            .ok_or_else(|| Error::Corrupt("a process ended without a status".into()))?;
        let code = match (end.exit_status(), end.terminating_signal()) {
            (Some(code), _) => code,
            (_, Some(signal)) => 128 + signal,
            _ => 255,
        };
        Ok(u8::try_from(code & 0xff).unwrap_or(255))
    }
}

/// Clones into a cgroup; outside of it, which the flag says, where the kernel lets the caller move nothing there: from a session of
/// the system's systemd, seen from the user's own (EACCES), and from a joined cgroup namespace that does not hold the cgroup, with the
/// mount option `nsdelegate` (ENOENT, `cgroups(7)`).
fn born_in(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> std::io::Result<(Side, bool)> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match (Clone { flags, cgroup }).spawn() {
        Err(e) if matches!(e.kind(), PermissionDenied | NotFound) && cgroup.is_some() => {
            let side = Clone { flags, cgroup: None }.spawn()?;
            Ok((side, true))
        }
        side => Ok((side?, false)),
    }
}

/// The part of a stand-in: makes the process that goes on in its place as its sibling, names it to the parent, and ends.
///
/// The new process returns from here only after it has been named, so that the parent hears of it before it speaks. Where the stand-in
/// is killed before (by a cgroup that is out of memory), nobody knows of the new process, and it ends.
fn step_aside(flags: u64, reporter: &Reporter) -> Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match (Clone {
        flags: flags | PARENT,
        cgroup: None,
    })
    .spawn()?
    {
        Side::Child => {
            drop(write);
            match rustix::io::read(&read, &mut [0u8; 1]) {
                Ok(1) => Ok(()),
                _ => sys::clone::exit(1),
            }
        }
        Side::Parent { pidfd, .. } => {
            let told = reporter.hand_over(pidfd.as_fd());
            if told.is_ok() {
                let _ = rustix::io::write(&write, b"1");
            }
            sys::clone::exit(i32::from(told.is_err()))
        }
    }
}
