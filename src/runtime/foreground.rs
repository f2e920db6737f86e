//! Waiting for a process in the foreground: its terminal on ours, our signals to it, its status as ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::init::Newborn;
use super::typed::Typed;
use crate::error::{During, Error, Result};
use crate::process::signal;
use crate::rootfs;

/// All signals, as something to read.
pub struct Signals {
    all: SignalFd,
    /// Those by which a user or a supervisor says that it has been enough. Looked at, never read.
    ending: SignalFd,
}

impl Signals {
    /// From now on signals wait to be passed on instead of ending us.
    pub fn take() -> Result<Self> {
        let mut all = SigSet::all();
        // Raised by our own mistakes; blocking them would only hide those.
        for own in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
        ] {
            all.remove(own);
        }
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None)?;
        let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let open = |set: &SigSet| {
            SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .during(|| "receive signals")
        };
        Ok(Self {
            all: open(&all)?,
            ending: open(&ending.into_iter().collect())?,
        })
    }

    /// Can be read from while a signal that asks for our end waits. While there is no process yet to pass it on to, the
    /// one who prepares it has to give up.
    pub fn ending(&self) -> BorrowedFd<'_> {
        self.ending.as_fd()
    }
}

/// Our terminal in raw mode, put back on drop.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Enters raw mode where standard input is a terminal, to show there what comes out of `master`. Our terminal goes on
    /// translating newlines if that one does not ([`super::console::keep_newlines`]).
    pub fn enter(master: BorrowedFd<'_>) -> Self {
        let Ok(before) = rustix::termios::tcgetattr(rustix::stdio::stdin()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let translated = |its: &Termios| its.output_modes.contains(OutputModes::ONLCR);
        if rustix::termios::tcgetattr(master).is_ok_and(|its| !translated(&its)) {
            raw.output_modes.insert(OutputModes::OPOST);
        }
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Waits for the process's end and returns its exit status, 128 and the signal's number for a killed one.
pub fn wait(process: &Newborn, master: Option<OwnedFd>, signals: &Signals) -> Result<u8> {
    let raw = master.as_ref().map(|master| {
        copy_size(master);
        Raw::enter(master.as_fd())
    });
    // A program may close its terminal and open it again; without an open slave that would read as its end.
    let _slave = master
        .as_ref()
        .and_then(|master| rootfs::open_peer(master.as_fd()).ok());
    let mut relay = Relay {
        master,
        stdin: true,
        typed: Typed::default(),
    };
    loop {
        let (ended, signalled) = relay.step(process, signals)?;
        if signalled {
            pass_on(process, signals, relay.master.as_ref())?;
        }
        if ended {
            relay.drain();
            drop(raw);
            return status(process);
        }
    }
}

/// The bytes between our terminal and the container's.
struct Relay {
    master: Option<OwnedFd>,
    stdin: bool,
    /// While this waits, no more is read, so that whoever feeds us waits as well.
    typed: Typed,
}

/// The most that a terminal holds when its process has ended, and more. One that goes on writing does not hold us.
const REST: usize = 128 * 1024;

impl Relay {
    /// Waits until something happens; says whether the process ended and whether there are signals.
    fn step(&mut self, process: &Newborn, signals: &Signals) -> Result<(bool, bool)> {
        let input = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&process.pidfd, PollFlags::IN),
            PollFd::new(&signals.all, PollFlags::IN),
        ];
        if let Some(master) = &self.master {
            fds.push(PollFd::new(master, PollFlags::IN | self.typed.wants()));
            if self.stdin && self.typed.is_empty() {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            other => other.during(|| "wait for the process")?,
        };
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let terminal = ready.get(2).copied().unwrap_or(PollFlags::empty());
        if terminal.contains(PollFlags::OUT) && !self.type_on() {
            self.stdin = false;
        }
        if !terminal.difference(PollFlags::OUT).is_empty() && self.output().is_none() {
            self.master = None;
        }
        if ready.get(3).is_some_and(|input| !input.is_empty()) {
            self.stdin = self.input();
        }
        Ok((!ready[0].is_empty(), !ready[1].is_empty()))
    }

    /// From the container to us: how much, or nothing at the end.
    fn output(&self) -> Option<usize> {
        let mut buffer = [0; 8192];
        match rustix::io::read(self.master.as_ref()?, &mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(n) => write_all(rustix::stdio::stdout(), &buffer[..n]).then_some(n),
        }
    }

    /// From us towards the container; false at the end.
    fn input(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                // The terminal's own end of file: a program that reads from a pipe would never hear of ours.
                self.typed.push(b"\x04");
                false
            }
            Ok(n) => {
                self.typed.push(&buffer[..n]);
                true
            }
            Err(_) => false,
        }
    }

    /// A piece of what was typed; false when nobody takes it any more.
    fn type_on(&mut self) -> bool {
        let Some(master) = &self.master else { return false };
        let taken = self.typed.write(master.as_fd());
        if !taken {
            self.typed = Typed::default();
        }
        taken
    }

    /// What the process wrote before it ended.
    fn drain(&self) {
        let Some(master) = &self.master else { return };
        let now = rustix::event::Timespec::default();
        let mut copied = 0;
        while copied < REST
            && matches!(
                rustix::event::poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&now)),
                Ok(1)
            )
        {
            match self.output() {
                Some(n) => copied += n,
                None => return,
            }
        }
    }
}

/// Writes all of it; false when the other side is gone.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn pass_on(process: &Newborn, signals: &Signals, master: Option<&OwnedFd>) -> Result<()> {
    while let Some(info) = signals.all.read_signal().during(|| "read a signal")? {
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        match (Signal::try_from(number), signal::from_number(number)) {
            (Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG), _) => {}
            (Ok(Signal::SIGWINCH), _) => master.into_iter().for_each(copy_size),
            (_, Some(signal)) => {
                let _ = rustix::process::pidfd_send_signal(&process.pidfd, signal);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rows and columns of our terminal, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Gives the container's terminal the size of ours.
pub fn copy_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

fn status(process: &Newborn) -> Result<u8> {
    let end = rustix::process::waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED)
        .during(|| "wait for the process")?
        .ok_or_else(|| Error::Corrupt("a process ended without a status".into()))?;
    let code = match (end.exit_status(), end.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => 128 + signal,
        _ => 255,
    };
    Ok(u8::try_from(code & 0xff).unwrap_or(255))
}
