//! Bytes for a descriptor that does not take them yet.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};

/// A ready terminal takes this much without blocking: its buffers come in pieces of 256 bytes, and it is ready while there is
/// room for one (`pty_write_room`, `tty_buffer_alloc`). To write more, or without having asked, waits for whoever reads at the
/// other side, who may never do so. `O_NONBLOCK` would be no help but a harm: it belongs to the open file, which others hold.
const TERMINAL: usize = 256;
/// A ready pipe takes a page (`pipe(7)`).
const PIPE: usize = 4096;

/// Bytes on their way to a descriptor.
#[derive(Debug)]
pub struct Waiting {
    bytes: Vec<u8>,
    written: usize,
    /// How much the descriptor takes without blocking when it is ready.
    room: usize,
}

impl Waiting {
    /// None yet.
    pub fn towards(to: BorrowedFd<'_>) -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            room: room(to),
        }
    }

    /// Forgets those that wait: how many there were.
    pub fn forget(&mut self) -> usize {
        let forgotten = self.len();
        self.bytes.clear();
        self.written = 0;
        forgotten
    }

    /// Adds more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.written);
        self.written = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Reads at most so many bytes, when none are left: how many, 0 at the end.
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> rustix::io::Result<usize> {
        self.written = 0;
        self.bytes.resize(most, 0);
        let read = rustix::io::read(from, &mut self.bytes[..]);
        self.bytes.truncate(read.unwrap_or(0));
        read
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to ask `poll` for on the descriptor, besides what is of interest anyway.
    pub fn wants(&self) -> PollFlags {
        if self.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        }
    }

    /// Writes a piece to a descriptor that is ready for it; false when the other side is gone.
    pub fn write(&mut self, to: BorrowedFd<'_>) -> bool {
        let piece = &self.bytes[self.written..];
        match rustix::io::write(to, &piece[..piece.len().min(self.room)]) {
            Ok(n) => self.written += n,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
        true
    }

    /// Writes as much as the descriptor takes now.
    pub fn write_now(&mut self, to: BorrowedFd<'_>) {
        let now = Timespec::default();
        while !self.is_empty() {
            let mut fds = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
            match rustix::event::poll(&mut fds, Some(&now)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(1) if fds[0].revents().contains(PollFlags::OUT) => {}
                _ => return,
            }
            if !self.write(to) {
                return;
            }
        }
    }
}

/// How much a descriptor that is ready takes without blocking.
fn room(fd: BorrowedFd<'_>) -> usize {
    if rustix::termios::isatty(fd) {
        return TERMINAL;
    }
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let never_blocks = || rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK));
    match kind {
        Ok(FileType::RegularFile) => usize::MAX,
        Ok(FileType::Fifo) if never_blocks() => usize::MAX,
        _ => PIPE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_nobody_reads_blocks_nobody() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut waiting = Waiting::towards(pty.master.as_fd());
        waiting.push(&vec![b'x'; 1 << 20]);
        waiting.write_now(pty.master.as_fd());
        assert!(
            (1..1 << 20).contains(&waiting.len()),
            "{} bytes wait",
            waiting.len()
        );
        let before = waiting.len();
        waiting.push(b"more");
        assert_eq!(waiting.len(), before + 4);
    }

    #[test]
    fn bytes_arrive_in_order() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let all: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut waiting = Waiting::towards(write.as_fd());
        waiting.push(&all[..6000]);
        assert!(waiting.write(write.as_fd()));
        assert_eq!(waiting.len(), 6000 - PIPE);
        waiting.push(&all[6000..]);
        waiting.write_now(write.as_fd());
        assert!(waiting.is_empty() && waiting.wants().is_empty());
        let mut seen = vec![0; 20_000];
        assert_eq!(rustix::io::read(&read, &mut seen[..]).unwrap(), 10_000);
        assert_eq!(seen[..10_000], all);
    }
}
