//! Waiting for a process in the foreground: its terminal on ours, our signals to it, its status as ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::SeekFrom;
use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::flow::{End, Flow};
use super::init::Newborn;
use super::init::minder::Minded;
use crate::error::{During, Result};
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

    /// Can be read from while any signal waits.
    pub fn any(&self) -> BorrowedFd<'_> {
        self.all.as_fd()
    }

    /// The next signal that waits, as its number.
    pub fn next(&self) -> Result<Option<i32>> {
        let info = self.all.read_signal().during(|| "read a signal")?;
        Ok(info.map(|info| i32::try_from(info.ssi_signo).unwrap_or(0)))
    }

    /// Reads what has come: whether a signal asks for our end. The terminal's size, where one is given, follows ours.
    pub fn enough(&self, terminal: Option<&OwnedFd>) -> Result<bool> {
        let mut enough = false;
        while let Some(number) = self.next()? {
            match Signal::try_from(number) {
                Ok(Signal::SIGWINCH) => terminal.into_iter().for_each(copy_size),
                Ok(signal) => enough |= ENDING.contains(&signal),
                Err(_) => {}
            }
        }
        Ok(enough)
    }
}

/// Those by which a user or a supervisor says that it has been enough.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Our terminal in raw mode, put back on drop.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Enters raw mode where standard input is a terminal, and ours: it is another's while we are in the background. Our terminal
    /// goes on translating newlines for `master`, which is shown there, if that one does not ([`super::console::keep_newlines`]).
    pub fn enter(master: impl AsFd) -> Self {
        let foreground = rustix::termios::tcgetpgrp(rustix::stdio::stdin());
        if foreground.is_ok_and(|group| group != rustix::process::getpgrp()) {
            return Self(None);
        }
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

/// How long a reader may take for the next piece once we are to end.
const LAST_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// How the streams of a process reach ours.
#[derive(Debug, Default)]
pub struct Flows {
    /// Towards the process.
    pub input: Option<Flow>,
    /// From the process.
    pub outputs: Vec<Flow>,
    /// The master of its terminal, which has the size of ours.
    pub terminal: Option<Rc<OwnedFd>>,
    /// The process's end of a pipe that is fed from a file, to see what is left in it.
    pub untaken: Option<OwnedFd>,
    /// Whether every key is for the process.
    pub raw: bool,
    /// Whether we were asked to end: then nobody waits for our reader.
    pub ending: bool,
}

impl Flows {
    /// A process that has our streams itself, or, where it has a terminal, that on ours.
    pub fn of(master: Option<OwnedFd>) -> Self {
        let Some(master) = master.map(Rc::new) else {
            return Self::default();
        };
        let end = || End::Own(master.clone());
        Self {
            input: Some(Flow::typed(End::Input, end())),
            outputs: vec![Flow::new(end(), End::Output)],
            raw: true,
            terminal: Some(master),
            ..Self::default()
        }
    }

    fn flows(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.input.iter_mut().chain(&mut self.outputs)
    }

    /// Waits until something happens; says whether the process ended and whether there are signals.
    fn step(&mut self, process: Option<&OwnedFd>, signals: &Signals) -> Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(&signals.all, PollFlags::IN)];
        let wants = self.input.iter().chain(&self.outputs).filter_map(Flow::wants);
        fds.extend(wants.map(|(fd, what)| PollFd::from_borrowed_fd(fd, what)));
        let flows = fds.len();
        fds.extend(process.map(|process| PollFd::new(process, PollFlags::IN)));
        let patience = (process.is_none() && self.ending).then_some(&LAST_LOOK);
        match rustix::event::poll(&mut fds, patience) {
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            Ok(0) => return Ok((false, true)),
            other => other.during(|| "wait for the process")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let waiting = self.flows().filter(|flow| !flow.is_over());
        for (flow, _) in waiting.zip(&ready[1..flows]).filter(|(_, ready)| **ready) {
            flow.go_on();
        }
        // A terminal that nobody shows any more is gone for its process as well.
        if self.terminal.is_some() && self.outputs.first().is_some_and(Flow::is_over) {
            self.input = None;
            self.terminal = None;
        }
        Ok((ready.get(flows) == Some(&true), ready[0]))
    }

    /// Gives back what was read from a file and not taken, so that a script that shares the file's position with us (`while
    /// read line; do …; done < list`) finds its next line.
    fn give_back(&self) {
        let Some(pipe) = &self.untaken else { return };
        let held = self.input.as_ref().map_or(0, Flow::held) as u64;
        let back = held + rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        let back = SeekFrom::Current(-i64::try_from(back).unwrap_or(0));
        let _ = rustix::fs::seek(rustix::stdio::stdin(), back);
    }

    /// What the process said before it ended. Who has had enough need not wait for a slow reader.
    fn finish(&mut self, signals: &Signals) -> Result<()> {
        self.give_back();
        self.input = None;
        self.outputs.iter_mut().for_each(Flow::last);
        while !self.outputs.iter().all(Flow::is_over) {
            let (_, signalled) = self.step(None, signals)?;
            if signalled && (signals.enough(None)? || self.ending) {
                return Ok(());
            }
            self.outputs.iter_mut().for_each(Flow::take_the_rest);
        }
        Ok(())
    }
}

/// The process that is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Awaited<'a> {
    process: &'a OwnedFd,
    /// The child of ours that ends as it does.
    child: &'a Newborn,
}

impl<'a> From<&'a Newborn> for Awaited<'a> {
    fn from(child: &'a Newborn) -> Self {
        let process = &child.pidfd;
        Self { process, child }
    }
}

impl<'a> From<&'a Minded> for Awaited<'a> {
    fn from(minded: &'a Minded) -> Self {
        Self {
            process: &minded.process,
            child: &minded.minder,
        }
    }
}

/// Waits for the process's end and returns its exit status, 128 and the signal's number for a killed one.
///
/// What others write to its streams after its end is not waited for: a daemon that keeps them open does not hold us.
pub fn wait<'a>(awaited: impl Into<Awaited<'a>>, mut flows: Flows, signals: &Signals) -> Result<u8> {
    let Awaited { process, child } = awaited.into();
    flows.terminal.iter().for_each(copy_size);
    let raw = flows.terminal.as_ref().filter(|_| flows.raw).map(Raw::enter);
    // A program may close its terminal and open it again; without an open slave that would read as its end.
    let _slave = flows
        .terminal
        .as_ref()
        .and_then(|master| rootfs::open_peer(master.as_fd()).ok());
    loop {
        let (ended, signalled) = flows.step(Some(process), signals)?;
        if signalled {
            flows.ending |= pass_on(process, signals, flows.terminal.as_deref())?;
        }
        if ended {
            // Before a slow reader is waited for: no init ends before all of its container has been waited for.
            let status = child.exit_code()?;
            flows.finish(signals)?;
            drop(raw);
            return Ok(status);
        }
    }
}

/// Says whether one of them asks for our end.
fn pass_on(process: &OwnedFd, signals: &Signals, master: Option<&OwnedFd>) -> Result<bool> {
    let mut asked = false;
    while let Some(number) = signals.next()? {
        match (Signal::try_from(number), signal::from_number(number)) {
            (Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG), _) => {}
            (Ok(Signal::SIGWINCH), _) => master.into_iter().for_each(copy_size),
            (named, Some(signal)) => {
                asked |= named.is_ok_and(|signal| ENDING.contains(&signal));
                let _ = rustix::process::pidfd_send_signal(process, signal);
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
pub fn copy_size(master: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}
