//! Bytes from one descriptor to another, in a loop that waits for none of them alone.
//!
//! An end may be one of our standard streams, whose open file others hold as well: no flag of it is changed, it may be
//! non-blocking or not, and it gets no more at once than it takes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};

use super::waiting::Waiting;

/// Read at once: what a pipe holds.
const PIECE: usize = 64 * 1024;
/// The most that a terminal holds when its process has ended, and more. One that goes on writing does not hold us.
const REST: usize = 128 * 1024;

/// One end of a flow.
#[derive(Debug, Clone)]
pub enum End {
    /// Our standard input.
    Input,
    /// Our standard output.
    Output,
    /// Our standard error.
    Error,
    /// A descriptor of our own.
    Own(Rc<OwnedFd>),
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Input => rustix::stdio::stdin(),
            Self::Output => rustix::stdio::stdout(),
            Self::Error => rustix::stdio::stderr(),
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

impl End {
    /// Lets go of it, so that whoever is at its other side hears of it. Files have none, and a terminal has to be put back yet.
    fn close(self) {
        let kind = rustix::fs::fstat(&self).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if !matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
            return;
        }
        let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let _ = match self {
            Self::Input => rustix::stdio::dup2_stdin(null),
            Self::Output => rustix::stdio::dup2_stdout(null),
            Self::Error => rustix::stdio::dup2_stderr(null),
            Self::Own(_) => Ok(()),
        };
    }
}

/// One direction. While bytes wait for the one side, nothing is read from the other, so that whoever feeds us waits as well.
#[derive(Debug)]
pub struct Flow {
    /// Both ends; nothing once it is over.
    ends: Option<(End, End)>,
    waiting: Waiting,
    /// Said to the receiver in place of our end, which a terminal does not hear of.
    farewell: &'static [u8],
    over: bool,
    /// How much is still read, once nobody is expected to write any more.
    left: Option<usize>,
}

impl Flow {
    /// From the one to the other, until either is gone.
    pub fn new(from: End, to: End) -> Self {
        Self {
            waiting: Waiting::towards(to.as_fd()),
            ends: Some((from, to)),
            farewell: b"",
            over: false,
            left: None,
        }
    }

    /// As [`Flow::new`], to a terminal: at the end of what is read, end of file is typed.
    pub fn typed(from: End, terminal: End) -> Self {
        Self {
            farewell: b"\x04",
            ..Self::new(from, terminal)
        }
    }

    /// Whether nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.ends.is_none()
    }

    /// What it waits for; nothing when it is over.
    pub fn wants(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (from, to) = self.ends.as_ref()?;
        Some(if self.waiting.is_empty() {
            (from.as_fd(), PollFlags::IN)
        } else {
            (to.as_fd(), PollFlags::OUT)
        })
    }

    /// One step, when what it waits for has come.
    pub fn go_on(&mut self) {
        let Some((_, to)) = &self.ends else { return };
        if self.waiting.is_empty() {
            self.read(PIECE);
        } else if !self.waiting.write(to.as_fd()) {
            self.stop();
        }
        if self.over && self.waiting.is_empty() {
            self.stop();
        }
    }

    fn read(&mut self, most: usize) {
        let Some((from, _)) = &self.ends else { return };
        match self.waiting.fill(from.as_fd(), most) {
            Ok(n) if n > 0 => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(n);
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            _ => {
                self.waiting.push(self.farewell);
                self.over = true;
            }
        }
    }

    /// Lets go of both ends.
    pub fn stop(&mut self) {
        if let Some((from, to)) = self.ends.take() {
            from.close();
            to.close();
        }
    }

    /// The program that writes has ended: what it left still goes its way. Others that hold its end may go on writing for
    /// ever, and nobody waits for them.
    pub fn last(&mut self) {
        let Some((from, _)) = &self.ends else { return };
        self.left = Some(if rustix::termios::isatty(from) {
            REST
        } else {
            rustix::io::ioctl_fionread(from).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
        });
        self.take_the_rest();
    }

    /// Reads the next of what was left. When there is no more, the flow is over.
    pub fn take_the_rest(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        match (&self.ends, self.left) {
            (Some((from, _)), Some(left)) if left > 0 && readable(from) => self.read(left.min(PIECE)),
            (_, Some(_)) => self.stop(),
            _ => {}
        }
        if self.waiting.is_empty() {
            self.stop();
        }
    }

    /// How many bytes were read and not passed on yet.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (End, OwnedFd, OwnedFd, End) {
        let (a, b) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (c, d) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (End::Own(Rc::new(a)), b, c, End::Own(Rc::new(d)))
    }

    #[test]
    fn what_a_program_left_arrives_and_no_more() {
        let (from, source, sink, to) = pipe();
        let mut flow = Flow::new(from, to);
        rustix::io::write(&source, &[7; 10_000]).unwrap();
        flow.last();
        // Somebody else goes on.
        rustix::io::write(&source, &[8; 5000]).unwrap();
        while !flow.is_over() {
            flow.go_on();
            flow.take_the_rest();
        }
        let mut seen = vec![0; 20_000];
        let n = rustix::io::read(&sink, &mut seen[..]).unwrap();
        assert_eq!((n, seen[n - 1]), (10_000, 7));
        assert_eq!(rustix::io::read(&sink, &mut seen[..]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn ends_are_let_go_from_either_side() {
        let (from, source, sink, to) = pipe();
        let mut flow = Flow::new(from, to);
        drop(source);
        flow.go_on();
        assert!(flow.is_over());
        let (from, source, sink_2, to) = pipe();
        drop((sink, sink_2));
        let mut flow = Flow::new(from, to);
        rustix::io::write(&source, b"x").unwrap();
        flow.go_on();
        flow.go_on();
        assert!(flow.is_over());
        // A process that another test makes has our descriptors until it becomes its program.
        let refused = || matches!(rustix::io::write(&source, b"x"), Err(rustix::io::Errno::PIPE));
        assert!((0..1000).any(|_| refused() || {
            std::thread::sleep(std::time::Duration::from_millis(1));
            false
        }));
    }
}
