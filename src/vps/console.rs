//! A VPS's console: what it said, and what it says now.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::lifecycle::Condo;
use super::monitor;
use super::name::Name;
use super::view::VpsStatus;
use crate::error::{During, Error, Result};
use crate::runtime::console;
use crate::runtime::foreground::{self, Raw};
use crate::runtime::typed::Typed;

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
        foreground::copy_size(&master);
        let _raw = Raw::enter(master.as_fd());
        relay(&socket, &master)
    }
}

/// Copies until the user leaves, our input ends or the VPS does.
///
/// A VPS that does not read its console must hold neither us nor a user who wants to leave. What comes from a pipe waits; a
/// user's terminal is read on, for the way out, and keys that find no room are lost, as with any terminal.
fn relay(socket: &OwnedFd, master: &OwnedFd) -> Result<()> {
    let input = rustix::stdio::stdin();
    let person = rustix::termios::isatty(input);
    let (mut typed, mut open) = (Typed::default(), true);
    let mut buffer = [0; 4096];
    while open || !typed.is_empty() {
        let listen = if open && (person || typed.is_empty()) {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let [said, room, keys] = ready([
            (socket.as_fd(), PollFlags::IN),
            (master.as_fd(), typed.wants()),
            (input, listen),
        ])?;
        if said {
            let n = rustix::io::read(socket, &mut buffer)?;
            if n == 0 || !foreground::write_all(rustix::stdio::stdout(), &buffer[..n]) {
                return Ok(());
            }
        }
        if room && !typed.write(master.as_fd()) {
            return Ok(());
        }
        if keys {
            let n = rustix::io::read(input, &mut buffer)?;
            let piece = buffer[..n].split(|b| *b == LEAVE).next().unwrap_or_default();
            if typed.len() + piece.len() <= ROOM {
                typed.push(piece);
            }
            // A user who leaves or whose terminal is gone does not wait for the VPS.
            if piece.len() < n || n == 0 && person {
                typed.write_now(master.as_fd());
                return Ok(());
            }
            open = n > 0;
        }
    }
    Ok(())
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
