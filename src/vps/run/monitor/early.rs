//! An init that ends at once: `condo start` waits as long as a first look takes, and tells.
//!
//! What fails to start fails at its first steps: no interpreter, no memory, a limit of the kernel's that is used up. So an init
//! that has begun to sleep has come up as far as anybody can tell from outside, and most do within milliseconds.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::log::{ALLOWED, Log};
use crate::error::{During, Result};
use crate::files;
use crate::pace::Pace;
use crate::runtime::init::Newborn;

/// How long an init is looked at that does not come to rest.
const LONGEST: Duration = Duration::from_secs(1);
/// How often: one that is asleep twice in a row has come to rest.
const LOOK: Duration = Duration::from_micros(500);
/// How much of what was said last is looked at, in bytes.
const TAIL: usize = 2048;
/// How many lines of that are told, and how many characters of each.
const LINES: usize = 4;
const WIDTH: usize = 160;

/// An end that came at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Early {
    /// Whether it was meant: status 0, or a system that shut itself down.
    pub(super) meant: bool,
    /// What happened, with the last words.
    pub(super) text: String,
}

/// Looks at an init that has just become its program, and copies what it says to the log meanwhile. One that reboots is
/// nobody's business here.
pub(super) fn look(init: &Newborn, console: BorrowedFd<'_>, log: &mut Log) -> Result<Option<Early>> {
    let begin = Instant::now();
    let mut ear = Ear {
        console,
        log,
        pace: Pace::new(ALLOWED),
        tail: Vec::new(),
    };
    let mut asleep = false;
    while begin.elapsed() < LONGEST {
        let ended = wait(&init.pidfd, LOOK)?;
        ear.listen()?;
        if ended {
            return how(init, &ear.tail);
        }
        let before = std::mem::replace(&mut asleep, is_asleep(init.pid));
        if before && asleep {
            return Ok(None);
        }
    }
    Ok(None)
}

fn wait(pidfd: impl AsFd, patience: Duration) -> Result<bool> {
    let patience = Timespec::try_from(patience).unwrap_or_default();
    match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        other => Ok(other.during(|| "wait for init")? > 0),
    }
}

/// Whether a process sleeps, and neither runs nor waits for the disk or for a processor.
fn is_asleep(pid: i32) -> bool {
    files::stat_fields(pid).is_some_and(|fields| fields.trim_start().starts_with('S'))
}

/// What reads the console.
struct Ear<'a> {
    console: BorrowedFd<'a>,
    log: &'a mut Log,
    pace: Pace,
    tail: Vec<u8>,
}

impl Ear<'_> {
    fn listen(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.pace.pause(Instant::now()).is_none() && wait(self.console, Duration::ZERO)? {
            let Ok(n @ 1..) = rustix::io::read(self.console, &mut buffer) else {
                break;
            };
            self.pace.spend(n as u64);
            self.log.write(&buffer[..n]);
            self.tail.extend_from_slice(&buffer[..n]);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        }
        Ok(())
    }
}

/// Looks at the end and leaves it for the one who waits for it.
fn how(init: &Newborn, tail: &[u8]) -> Result<Option<Early>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let end = rustix::process::waitid(WaitId::PidFd(init.pidfd.as_fd()), options)
        .during(|| "look at init's end")?;
    let Some(end) = end else { return Ok(None) };
    let (how, meant) = match (end.exit_status(), end.terminating_signal()) {
        // reboot(2) in a pid namespace, see the role `end`.
        (_, Some(signal)) if signal == Signal::HUP.as_raw() => return Ok(None),
        (_, Some(signal)) if signal == Signal::INT.as_raw() => ("has powered off already".to_owned(), true),
        (_, Some(signal)) => (format!("was killed at once, by signal {signal}"), false),
        (Some(0), _) => ("has ended already, with status 0".to_owned(), true),
        (status, _) => (
            format!("ended at once, with status {}", status.unwrap_or(0)),
            false,
        ),
    };
    let words = last_words(tail);
    let words = if words.is_empty() {
        "and said nothing on its console".to_owned()
    } else {
        format!("its last words: {words}")
    };
    Ok(Some(Early {
        meant,
        text: format!("its init {how}; {words}"),
    }))
}

/// The last lines, in one, without what could steer a terminal.
fn last_words(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(plain)
        .filter(|l| !l.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

/// A line without escape sequences (`ESC [ … letter`) and control characters.
fn plain(line: &str) -> String {
    let mut found = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\x1b' && letters.next_if_eq(&'[').is_some() {
            letters.by_ref().find(|c| ('@'..='~').contains(c));
        } else if !letter.is_control() {
            found.push(letter);
        }
    }
    found.trim().chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_plain_and_few() {
        let said = b"one\r\ntwo\r\n\x1b[1;31mthree\x1b[0m \x07\r\n\r\nfour\r\nfive\x1b[2J\r\n";
        assert_eq!(last_words(said), "two | three | four | five");
        assert_eq!(last_words(b""), "");
        assert_eq!(last_words(b"\x1b[\x1b"), "");
        assert_eq!(last_words(&[b'x'; 1000]).len(), WIDTH);
    }
}
