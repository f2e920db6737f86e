//! Waiting for a process in the foreground: its terminal on ours, our signals to it, its status as ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::init::Newborn;
use super::typed::Typed;
use crate::error::{During, Error, Result};
use crate::process::signal;
use crate::rootfs;

/// By these a user or a supervisor says that it has been enough.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// All signals, as something to read.
pub struct Signals {
    all: SignalFd,
    /// [`ENDING`]. Looked at, never read.
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
        let open = |set: &SigSet| {
            SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .during(|| "receive signals")
        };
        Ok(Self {
            all: open(&all)?,
            ending: open(&ENDING.into_iter().collect())?,
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
    let mut relay = Relay::new(master);
    loop {
        let (ended, signalled) = relay.step(process, signals)?;
        if signalled {
            relay.ending |= pass_on(process, signals, relay.master.as_ref())?;
        }
        if ended {
            relay.drain(signals);
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
    /// What the container wrote and our reader does not take yet. While this waits, no more is read either.
    shown: Typed,
    /// Whether we were asked to end: then nobody waits for our reader.
    ending: bool,
}

/// The most that a terminal holds when its process has ended, and more. One that goes on writing does not hold us.
const REST: usize = 128 * 1024;

/// How long a reader may take for the next piece once we are to end.
const LAST_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// What happened.
struct Events {
    ended: bool,
    signalled: bool,
    terminal: PollFlags,
    typed: bool,
    readable: bool,
}

impl Relay {
    fn new(master: Option<OwnedFd>) -> Self {
        Self {
            master,
            stdin: true,
            typed: Typed::default(),
            shown: Typed::default(),
            ending: false,
        }
    }

    /// Waits until something happens and moves bytes; says whether the process ended and whether there are signals.
    fn step(&mut self, process: &Newborn, signals: &Signals) -> Result<(bool, bool)> {
        let Some(events) = self.wait(process, signals)? else {
            return Ok((false, false));
        };
        if events.readable && !self.shown.write(rustix::stdio::stdout()) {
            self.deaf();
        }
        if events.terminal.contains(PollFlags::OUT) && !self.type_on() {
            self.stdin = false;
        }
        let spoken = !events.terminal.difference(PollFlags::OUT).is_empty();
        if spoken && self.shown.is_empty() && self.output().is_none() {
            self.master = None;
        }
        if events.typed {
            self.stdin = self.input();
        }
        Ok((events.ended, events.signalled))
    }

    fn wait(&self, process: &Newborn, signals: &Signals) -> Result<Option<Events>> {
        let (input, reader) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let nothing = PollFlags::empty();
        let told = if self.shown.is_empty() {
            PollFlags::IN
        } else {
            nothing
        };
        // The kernel passes over what is not asked for, but not over hang-ups: those are left out as a whole.
        let master = self
            .master
            .as_ref()
            .filter(|_| !(told | self.typed.wants()).is_empty());
        let mut fds = vec![
            PollFd::new(&process.pidfd, PollFlags::IN),
            PollFd::new(&signals.all, PollFlags::IN),
        ];
        let mut add = |fd| {
            fds.push(fd);
            fds.len() - 1
        };
        let terminal = master.map(|master| add(PollFd::new(master, told | self.typed.wants())));
        let typed = (self.master.is_some() && self.stdin && self.typed.is_empty())
            .then(|| add(PollFd::new(&input, PollFlags::IN)));
        let readable = (!self.shown.is_empty()).then(|| add(PollFd::new(&reader, PollFlags::OUT)));
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(None),
            other => other.during(|| "wait for the process")?,
        };
        let at = |index: Option<usize>| index.map_or(nothing, |index| fds[index].revents());
        Ok(Some(Events {
            ended: !fds[0].revents().is_empty(),
            signalled: !fds[1].revents().is_empty(),
            terminal: at(terminal),
            typed: !at(typed).is_empty(),
            readable: !at(readable).is_empty(),
        }))
    }

    /// From the container to us, as much as our reader takes now: how much it was, or nothing at the end.
    fn output(&mut self) -> Option<usize> {
        let mut buffer = [0; 8192];
        match rustix::io::read(self.master.as_ref()?, &mut buffer) {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.shown.push(&buffer[..n]);
                self.shown.write_now(rustix::stdio::stdout());
                Some(n)
            }
        }
    }

    /// Nobody reads us any more.
    fn deaf(&mut self) {
        self.shown = Typed::default();
        self.master = None;
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

    /// What the process wrote before it ended. A reader that takes nothing is waited for until we are asked to end.
    fn drain(&mut self, signals: &Signals) {
        let now = Timespec::default();
        let mut copied = 0;
        while self.flush(signals) && copied < REST {
            let Some(master) = &self.master else { return };
            match rustix::event::poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&now)) {
                Ok(1) => {}
                _ => return,
            }
            match self.output() {
                Some(n) => copied += n,
                None => return,
            }
        }
    }

    /// Writes all that waits for our reader; false when that is given up.
    fn flush(&mut self, signals: &Signals) -> bool {
        while !self.shown.is_empty() {
            let (reader, ending) = (rustix::stdio::stdout(), signals.ending());
            let mut fds = [
                PollFd::new(&reader, PollFlags::OUT),
                PollFd::new(&ending, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, self.ending.then_some(&LAST_LOOK)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
            let (readable, asked) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if !(readable && self.shown.write(rustix::stdio::stdout())) && (readable || asked) {
                return false;
            }
        }
        true
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

/// Says whether one of them asks for our end.
fn pass_on(process: &Newborn, signals: &Signals, master: Option<&OwnedFd>) -> Result<bool> {
    let mut asked = false;
    while let Some(info) = signals.all.read_signal().during(|| "read a signal")? {
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        match (Signal::try_from(number), signal::from_number(number)) {
            (Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG), _) => {}
            (Ok(Signal::SIGWINCH), _) => master.into_iter().for_each(copy_size),
            (named, Some(signal)) => {
                asked |= named.is_ok_and(|signal| ENDING.contains(&signal));
                let _ = rustix::process::pidfd_send_signal(&process.pidfd, signal);
            }
            _ => {}
        }
    }
    Ok(asked)
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
