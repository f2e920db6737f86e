//! The resident loop: copies the console to a bounded log and to whoever looks on, and waits for init's end.
//!
//! It is what every running VPS costs the host beside its own processes, so it allocates next to nothing and opens no
//! database; when something has to be done it becomes another role.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SocketFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::super::figures::tend::Telling;
use super::NO_ROOT;
use super::alone;
use super::log::{ALLOWED, Log};
use crate::error::{During, Error, Result};
use crate::pace::Pace;
use crate::rootfs;
use crate::runtime::console;
use crate::runtime::waiting::Waiting;
use crate::sys;

/// How long a viewer may take nothing before it misses something. Until then the VPS waits: who reads slowly is to see all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of a VPS waits for a viewer.
const FAREWELL: Duration = Duration::from_secs(1);
/// What waits in a viewer's socket, in bytes: little, so that one who reads slowly is seen to read.
const ROOM: usize = 8192;

struct Watch {
    init: OwnedFd,
    master: Option<OwnedFd>,
    /// systemd closes the console between two lines; without an open slave that would read as its end.
    _slave: Option<OwnedFd>,
    listener: OwnedFd,
    viewer: Option<Viewer>,
    log: Log,
    pace: Pace,
    figures: Option<Telling>,
}

/// Who looks on.
struct Viewer {
    socket: OwnedFd,
    waiting: Waiting,
    /// When something was taken last.
    taken: Instant,
    /// How many bytes were not shown.
    missed: usize,
}

/// Takes over from `boot`: `ROOT NAME LOG PID PIDFD MASTER LISTENER NETNS HASTY FIGURES`, and in the small program
/// `CONDO VERSION`.
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
    let (init, master, listener, netns) = (fd(4)?, fd(5)?, fd(6)?, fd(7)?);
    // Not there where `condo` itself is the loop.
    let whole = fd(10).ok();
    let slave = rootfs::open_peer(master.as_fd()).ok();
    let mut watch = Watch {
        init,
        master: Some(master),
        _slave: slave,
        listener,
        viewer: None,
        log,
        pace: Pace::new(ALLOWED),
        figures: Telling::take_over(text(9))?,
    };
    let (how, number) = watch.run()?;
    let root = args.first().filter(|root| *root != NO_ROOT).map(PathBuf::from);
    rustix::io::fcntl_setfd(&netns, rustix::io::FdFlags::empty())?;
    Err(super::become_role(
        &whole
            .as_ref()
            .map_or(super::OWN_PROGRAM.into(), |fd| alone::program_at(fd.as_raw_fd())),
        "end",
        root.as_deref(),
        text(1),
        &[
            how.to_string(),
            number.to_string(),
            text(8).to_owned(),
            netns.as_raw_fd().to_string(),
        ],
    ))
}

impl Watch {
    /// Until init has ended: how, and by which number.
    fn run(&mut self) -> Result<(&'static str, i32)> {
        loop {
            let [ended, output, caller, viewer, asked] = self.wait()?;
            if let Some(telling) = &mut self.figures
                && !telling.go_on(asked)
            {
                self.figures = None;
            }
            if output && !self.copy() {
                self.master = None;
            }
            if caller {
                self.receive();
            }
            if let (true, Some(looking)) = (viewer, &mut self.viewer)
                && !looking.go_on()
            {
                self.viewer = None;
            }
            if ended {
                self.drain();
                if let Some(viewer) = &mut self.viewer {
                    viewer.finish()?;
                }
                return self.reap();
            }
        }
    }

    /// Which of init, console, listener and viewer have something to say, and whether somebody asks for figures.
    fn wait(&mut self) -> Result<[bool; 5]> {
        let now = Instant::now();
        let full = self.pace.pause(now);
        let stalled = self.viewer.as_mut().and_then(|viewer| viewer.holds_up(now));
        let pause = full.into_iter().chain(stalled).max();
        // Where there is no console or viewer, init stands in and is asked about nothing.
        let absent = (self.init.as_fd(), PollFlags::empty());
        let master = self.master.as_ref().filter(|_| pause.is_none());
        let console = master.map_or(absent, |fd| (fd.as_fd(), PollFlags::IN));
        let looking = self.viewer.as_ref().map_or(absent, Viewer::wants);
        let (device, due) = self
            .figures
            .as_mut()
            .map_or((None, None), |telling| telling.wants(now));
        let asking = device.map_or(absent, |fd| (fd, PollFlags::IN));
        let mut fds = [
            PollFd::from_borrowed_fd(self.init.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(console.0, console.1),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(looking.0, looking.1),
            PollFd::from_borrowed_fd(asking.0, asking.1),
        ];
        let pause = pause
            .into_iter()
            .chain(due)
            .min()
            .and_then(|pause| Timespec::try_from(pause).ok());
        match rustix::event::poll(&mut fds, pause.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok([false; 5]),
            other => other.during(|| "wait for the VPS")?,
        };
        let said = |at: usize| !fds[at].revents().is_empty();
        let (ended, output, caller, viewer, asked) = (said(0), said(1), said(2), said(3), said(4));
        Ok([
            ended,
            master.is_some() && output,
            caller,
            self.viewer.is_some() && viewer,
            device.is_some() && asked,
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
        self.pace.spend(piece.len() as u64);
        self.log.write(piece);
        if let Some(viewer) = &mut self.viewer {
            viewer.show(piece);
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
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&viewer, ROOM);
            self.viewer = Some(Viewer {
                waiting: Waiting::towards(viewer.as_fd()),
                socket: viewer,
                taken: Instant::now(),
                missed: 0,
            });
        }
    }

    /// What was written before the end. A terminal holds little.
    fn drain(&mut self) {
        let now = Timespec::default();
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

impl Viewer {
    /// What it is asked for: whether it has left, and whether it takes what waits.
    fn wants(&self) -> (BorrowedFd<'_>, PollFlags) {
        let behind = self.missed > 0 || !self.waiting.is_empty();
        let room = if behind {
            PollFlags::OUT
        } else {
            PollFlags::empty()
        };
        (self.socket.as_fd(), PollFlags::IN | room)
    }

    /// How long the VPS still waits for it. One that has taken nothing for too long misses what comes.
    fn holds_up(&mut self, now: Instant) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let left = PATIENCE.saturating_sub(now.saturating_duration_since(self.taken));
        if left.is_zero() {
            self.missed += self.waiting.forget();
            return None;
        }
        Some(left)
    }

    /// Shows a piece, as far as it is taken now.
    fn show(&mut self, piece: &[u8]) {
        if self.missed > 0 {
            self.missed += piece.len();
            return;
        }
        if self.waiting.is_empty() {
            self.taken = Instant::now();
        }
        self.waiting.push(piece);
    }

    /// The last of it. The end of a VPS does not wait long.
    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + FAREWELL;
        while !self.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
            let ready = rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            match ready {
                Err(rustix::io::Errno::INTR) => {}
                other if other.during(|| "wait for the viewer")? == 0 => break,
                _ if !self.waiting.write(self.socket.as_fd()) => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// When it takes or has left; false for the latter. It never says anything.
    fn go_on(&mut self) -> bool {
        if rustix::net::recv(&self.socket, &mut [0_u8], RecvFlags::DONTWAIT).is_ok() {
            return false;
        }
        if self.missed > 0 {
            let gap = format!(
                "\r\n[condo: {} bytes are not shown here; the log has the last of them]\r\n",
                self.missed
            );
            self.missed = 0;
            self.show(gap.as_bytes());
        }
        let before = self.waiting.len();
        let alive = self.waiting.write(self.socket.as_fd());
        if self.waiting.len() < before {
            self.taken = Instant::now();
        }
        alive
    }
}
