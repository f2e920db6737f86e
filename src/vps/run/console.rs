//! A VPS's console: what it said, and what it says now.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::monitor;
use crate::error::{During, Error, Result};
use crate::runtime::console;
use crate::runtime::flow::{End, Flow};
use crate::runtime::foreground::{self, Raw, Signals};
use crate::runtime::waiting::Waiting;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::view::VpsStatus;

/// Leaves the console: Ctrl-] as in telnet, virsh and systemd-nspawn.
const LEAVE: u8 = 0x1d;
/// How much a user may type ahead of a VPS that does not read.
const ROOM: usize = 64 * 1024;
/// How often a followed log is looked at.
const PULSE: Duration = Duration::from_millis(200);

impl Condo {
    /// Writes what a VPS's console said, and with `follow` what it says until it ends.
    pub fn logs(&self, name: &Name, follow: bool, out: &mut dyn Write) -> Result<()> {
        self.store.get(name)?;
        let path = self.folders.console_log(name);
        copy(open(&monitor::older_log(&path))?, out)?;
        let mut file = open(&path)?;
        loop {
            // Asked first, so that what was said before the end is still copied.
            let ended = self.status(name)? == VpsStatus::Stopped;
            if file.is_none() {
                file = open(&path)?;
            }
            file = copy(file, out)?;
            if !follow || ended {
                return Ok(());
            }
            if renewed(file.as_ref(), &path) {
                copy(file.take(), out)?;
            }
            std::thread::sleep(PULSE);
        }
    }

    /// Joins our terminal to a VPS's console until the user leaves it.
    pub fn console(&self, name: &Name) -> Result<()> {
        self.store.get(name)?;
        if self.status(name)? == VpsStatus::Stopped {
            return Err(Error::Status(format!(
                "the VPS is not running; start it: condo start {name}"
            )));
        }
        let socket = console::connect(&self.folders.run_of(name).join("console.sock"))
            .during(|| "its monitor does not answer")?;
        let master = console::receive_fd(socket.as_fd())?;
        let signals = Signals::take()?;
        foreground::copy_size(&master);
        let _raw = Raw::enter(&master);
        relay(socket, &master, &signals)
    }
}

/// Copies until the user leaves, our input ends or the VPS does.
fn relay(socket: OwnedFd, master: &OwnedFd, signals: &Signals) -> Result<()> {
    let mut shown = Flow::new(End::Own(Rc::new(socket)), End::Output);
    let mut keys = Keys::new(master);
    while keys.open || !keys.waiting.is_empty() {
        let Some(output) = shown.wants() else { break };
        let [signalled, said, room, typed] = ready([
            (signals.any(), PollFlags::IN),
            output,
            (master.as_fd(), keys.waiting.wants()),
            (rustix::stdio::stdin(), keys.listens()),
        ])?;
        if signalled && signals.enough(Some(master))? {
            break;
        }
        if said {
            shown.go_on();
        }
        if room && !keys.waiting.write(master.as_fd()) {
            break;
        }
        if typed && !keys.read(master)? {
            break;
        }
    }
    Ok(())
}

/// What is typed.
///
/// A VPS that does not read its console must hold neither us nor a user who wants to leave. What comes from a pipe waits; a
/// user's terminal is read on, for the way out, and keys that find no room are lost, as with any terminal.
struct Keys {
    person: bool,
    open: bool,
    waiting: Waiting,
}

impl Keys {
    fn new(master: &OwnedFd) -> Self {
        Self {
            person: rustix::termios::isatty(rustix::stdio::stdin()),
            open: true,
            waiting: Waiting::towards(master.as_fd()),
        }
    }

    fn listens(&self) -> PollFlags {
        if self.open && (self.person || self.waiting.is_empty()) {
            PollFlags::IN
        } else {
            PollFlags::empty()
        }
    }

    /// False when the user leaves.
    fn read(&mut self, master: &OwnedFd) -> Result<bool> {
        let mut buffer = [0; 4096];
        let n = match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(true),
            other => other.during(|| "read what is typed")?,
        };
        let piece = buffer[..n].split(|b| *b == LEAVE).next().unwrap_or_default();
        if self.waiting.len() + piece.len() <= ROOM {
            self.waiting.push(piece);
        }
        self.open = n > 0;
        // A user who leaves or whose terminal is gone does not wait for the VPS.
        if piece.len() < n || n == 0 && self.person {
            self.waiting.write_now(master.as_fd());
            return Ok(false);
        }
        Ok(true)
    }
}

/// Waits until something happens to one of them, and says to which. One of which nothing is wanted is not looked at: `poll`
/// would report it hung up, again and again.
fn ready<const N: usize>(wanted: [(BorrowedFd<'_>, PollFlags); N]) -> Result<[bool; N]> {
    let mut fds: Vec<PollFd<'_>> = wanted
        .iter()
        .filter(|(_, flags)| !flags.is_empty())
        .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
        .collect();
    match rustix::event::poll(&mut fds, None) {
        Err(rustix::io::Errno::INTR) => return Ok([false; N]),
        other => other.during(|| "wait for the console")?,
    };
    let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(wanted.map(|(_, flags)| !flags.is_empty() && found.next().unwrap_or(false)))
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).during(|| format!("open `{}`", path.display())),
    }
}

/// Copies what is new; gives the file back at its end.
fn copy(file: Option<File>, out: &mut dyn Write) -> Result<Option<File>> {
    let Some(mut file) = file else { return Ok(None) };
    let mut buffer = [0; 8192];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => out.write_all(&buffer[..n])?,
        }
    }
    out.flush()?;
    Ok(Some(file))
}

/// Whether the log has started anew since we opened it.
fn renewed(file: Option<&File>, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let held = file.and_then(|f| f.metadata().ok());
    let named = std::fs::metadata(path).ok();
    matches!((held, named), (Some(held), Some(named)) if held.ino() != named.ino())
}
