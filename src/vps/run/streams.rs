//! The streams of a program that is run in a VPS, which are never ours.
//!
//! A descriptor of the host is a door into it: whoever keeps a copy reads what is typed at the host's shell later, or empties
//! the log that output was appended to. So the program gets a terminal of the VPS's where ours is one, and pipes elsewhere,
//! and condo copies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::error::{During, Result};
use crate::runtime::flow::{End, Flow};
use crate::runtime::foreground::Flows;

/// Standard input, output and error, in this order everywhere.
const ENDS: [End; 3] = [End::Input, End::Output, End::Error];

/// What a program is given, and our sides of it.
#[derive(Debug)]
pub(super) struct Streams {
    /// Whether it has a terminal for those that are no pipes.
    pub(super) terminal: bool,
    raw: bool,
    theirs: [Option<OwnedFd>; 3],
    ours: [Option<OwnedFd>; 3],
}

impl Streams {
    /// What fits our own streams; nothing but a terminal when `tty` asks for one.
    pub(super) fn make(tty: bool) -> Result<Self> {
        let own = [stdin(), stdout(), stderr()].map(isatty);
        let piped = piped(tty, own);
        let mut streams = Self {
            terminal: piped != [true; 3],
            raw: tty || !is(stdout(), FileType::Fifo),
            theirs: [None, None, None],
            ours: [None, None, None],
        };
        for at in (0..3).filter(|at| piped[*at]) {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).during(|| "make a pipe")?;
            let (theirs, ours) = if at == 0 { (read, write) } else { (write, read) };
            // Ours alone: the program's end is another open file.
            let flags = rustix::fs::fcntl_getfl(&ours)? | OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&ours, flags)?;
            streams.theirs[at] = Some(theirs);
            streams.ours[at] = Some(ours);
        }
        Ok(streams)
    }

    /// Gives the pipes to a user, a number of the host's, so that the program may reopen them (`/dev/stdout`).
    pub(super) fn belong_to(&self, uid: u32) -> Result<()> {
        for fd in self.theirs.iter().flatten() {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None).during(|| "give a pipe away")?;
        }
        Ok(())
    }

    /// The program's.
    pub(super) fn theirs(&self) -> [Option<BorrowedFd<'_>>; 3] {
        self.theirs.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd))
    }

    /// The way between them and ours, once the program has its own.
    pub(super) fn relay(mut self, master: Option<OwnedFd>) -> Flows {
        let own_input = self.theirs[0].take();
        let shown_at = self.shown_at();
        let [input, output, error] = self.ours.map(|fd| fd.map(|fd| End::Own(Rc::new(fd))));
        let terminal = master.map(Rc::new);
        let mut relay = Flows {
            raw: self.raw && terminal.is_some(),
            ..Flows::default()
        };
        if let Some(master) = &terminal {
            if !self.raw {
                silence(master.as_fd());
            }
            let end = || End::Own(master.clone());
            relay.input = Some(Flow::typed(End::Input, end()));
            relay.outputs.push(Flow::new(end(), shown_at));
        }
        if let Some(input) = input {
            relay.input = Some(Flow::new(End::Input, input));
            relay.untaken = own_input.filter(|_| is(stdin(), FileType::RegularFile));
        }
        let pipes = [(output, End::Output), (error, End::Error)];
        let pipes = pipes.into_iter().filter_map(|(from, to)| Some((from?, to)));
        relay.outputs.extend(pipes.map(|(from, to)| Flow::new(from, to)));
        relay.terminal = terminal;
        relay
    }

    /// Where a program's terminal shows.
    fn shown_at(&self) -> End {
        let unpiped = (1..3).find(|at| self.ours[*at].is_none());
        ENDS[unpiped.unwrap_or(0)].clone()
    }
}

/// Which streams are pipes. A program whose input is typed may want to know who types (`/dev/tty`), and one whose output is
/// kept in a file must not write it as for a screen.
fn piped(tty: bool, own: [bool; 3]) -> [bool; 3] {
    match own {
        _ if tty => [false; 3],
        [true, output, error] => [false, !output, !error],
        _ => [true; 3],
    }
}

fn is(fd: BorrowedFd<'_>, kind: FileType) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

/// No echo by a terminal whose input ours has echoed already.
///
/// Whose output goes on through a pipe shares our terminal with another program (`condo exec web -- dmesg | less`), which
/// would find it put back under its hands. So it stays as it is, and lines are passed on as they are typed.
fn silence(terminal: BorrowedFd<'_>) {
    if let Ok(mut modes) = tcgetattr(terminal) {
        modes.local_modes -= LocalModes::ECHO;
        let _ = tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_only_where_ours_is_one() {
        for (own, expected) in [
            ([true, true, true], [false, false, false]),
            ([true, false, true], [false, true, false]),
            ([true, false, false], [false, true, true]),
            ([false, true, true], [true, true, true]),
            ([false, false, false], [true, true, true]),
        ] {
            assert_eq!(piped(false, own), expected, "{own:?}");
            assert_eq!(piped(true, own), [false; 3]);
        }
    }
}
