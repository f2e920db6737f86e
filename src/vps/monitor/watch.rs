//! The resident loop: copies the console to a bounded log and to whoever looks on, and waits for init's end.
//!
//! It is what every running VPS costs the host beside its own processes, so it allocates next to nothing and opens no
//! database; when something has to be done it becomes another role.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendFlags, SocketFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::NO_ROOT;
use crate::error::{During, Error, Result};
use crate::rootfs;
use crate::runtime::console;
use crate::sys;

/// Size at which the log starts anew; one older part is kept beside it.
const LOG_PART: u64 = 1 << 20;

struct Watch {
    init: OwnedFd,
    master: Option<OwnedFd>,
    /// systemd closes the console between two lines; without an open slave that would read as its end.
    _slave: Option<OwnedFd>,
    listener: OwnedFd,
    viewer: Option<OwnedFd>,
    log: Log,
}

/// Takes over from `boot`: `ROOT NAME LOG PID PIDFD MASTER LISTENER HASTY`.
pub(super) fn watch(args: &[OsString]) -> Result<()> {
    let text = |at: usize| args.get(at).and_then(|a| a.to_str()).unwrap_or_default();
    let fd = |at: usize| -> Result<OwnedFd> {
        let number = text(at)
            .parse()
            .map_err(|_| Error::invalid("monitor", text(at), "is not a descriptor"))?;
        let fd = sys::fd::adopt(number).during(|| format!("take descriptor {number}"))?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(fd)
    };
    let log = Log::open(PathBuf::from(text(2)));
    let (init, master, listener) = (fd(4)?, fd(5)?, fd(6)?);
    let slave = rootfs::open_peer(master.as_fd()).ok();
    let mut watch = Watch {
        init,
        master: Some(master),
        _slave: slave,
        listener,
        viewer: None,
        log,
    };
    let (how, number) = watch.run()?;
    let root = args.first().filter(|root| *root != NO_ROOT).map(PathBuf::from);
    Err(super::become_role(
        "end",
        root.as_deref(),
        text(1),
        &[how.to_string(), number.to_string(), text(7).to_owned()],
    ))
}

impl Watch {
    /// Until init has ended: how, and by which number.
    fn run(&mut self) -> Result<(&'static str, i32)> {
        loop {
            let [ended, output, caller, left] = self.wait()?;
            if output && !self.copy() {
                self.master = None;
            }
            if caller {
                self.receive();
            }
            if left {
                self.viewer = None;
            }
            if ended {
                self.drain();
                return self.reap();
            }
        }
    }

    /// Which of init, console, listener and viewer have something to say.
    fn wait(&self) -> Result<[bool; 4]> {
        // Where there is no console or viewer, init stands in and is asked about nothing.
        let absent = (self.init.as_fd(), PollFlags::empty());
        let console = self
            .master
            .as_ref()
            .map_or(absent, |fd| (fd.as_fd(), PollFlags::IN));
        let looking = self
            .viewer
            .as_ref()
            .map_or(absent, |fd| (fd.as_fd(), PollFlags::IN));
        let mut fds = [
            PollFd::from_borrowed_fd(self.init.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(console.0, console.1),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(looking.0, looking.1),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok([false; 4]),
            other => other.during(|| "wait for the VPS")?,
        };
        let said = |at: usize| !fds[at].revents().is_empty();
        Ok([
            said(0),
            self.master.is_some() && said(1),
            said(2),
            self.viewer.is_some() && said(3),
        ])
    }

    /// One piece of output; false when the console is closed.
    fn copy(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Some(master) = &self.master else { return false };
        let piece = match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(_) => return false,
            Ok(n) => &buffer[..n],
        };
        self.log.write(piece);
        if let Some(viewer) = &self.viewer {
            // Whoever looks too slowly misses something; the VPS does not wait.
            let _ = rustix::net::send(viewer, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        true
    }

    /// A new viewer takes the place of an earlier one, and gets the master for its input and the terminal's size.
    fn receive(&mut self) {
        let Ok(viewer) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        if let Some(master) = &self.master
            && console::send_master(viewer.as_fd(), master).is_ok()
        {
            self.viewer = Some(viewer);
        }
    }

    /// What was written before the end.
    fn drain(&mut self) {
        let now = rustix::event::Timespec::default();
        while let Some(master) = &self.master {
            let mut fds = [PollFd::new(master, PollFlags::IN)];
            if !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1)) {
                return;
            }
            if !self.copy() {
                self.master = None;
            }
        }
    }

    fn reap(&self) -> Result<(&'static str, i32)> {
        let end = rustix::process::waitid(WaitId::PidFd(self.init.as_fd()), WaitIdOptions::EXITED)
            .during(|| "wait for init")?
            .ok_or_else(|| Error::Corrupt("init ended without a status".into()))?;
        Ok(match (end.exit_status(), end.terminating_signal()) {
            (Some(status), _) => ("exited", status),
            (_, Some(signal)) => ("signal", signal),
            _ => ("exited", 0),
        })
    }
}

/// A log of two parts, the older of which is dropped when the newer is full.
struct Log {
    path: PathBuf,
    file: Option<OwnedFd>,
    size: u64,
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).ok();
        let size = file
            .as_ref()
            .and_then(|f| rustix::fs::fstat(f).ok())
            .map_or(0, |s| s.st_size.unsigned_abs());
        Self { path, file, size }
    }

    /// A log that cannot be written (a full disk) must not stop the VPS.
    fn write(&mut self, piece: &[u8]) {
        if self.size >= LOG_PART {
            let _ = std::fs::rename(&self.path, older(&self.path));
            *self = Self::open(std::mem::take(&mut self.path));
        }
        if let Some(file) = &self.file
            && let Ok(n) = rustix::io::write(file, piece)
        {
            self.size += n as u64;
        }
    }
}

/// Where the older part of a log is.
pub(in super::super) fn older(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}
