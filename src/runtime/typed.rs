//! What was typed for a terminal that does not take it yet.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

/// A ready terminal takes this much without blocking: its buffers come in pieces of 256 bytes, and it is ready while there is
/// room for one (`pty_write_room`, `tty_buffer_alloc`). To write more, or without having asked, waits for whoever reads at the
/// other side, who may never do so. `O_NONBLOCK` would be no help but a harm: it belongs to the open file, which others hold.
const PIECE: usize = 256;

/// Bytes on their way to a terminal's master.
#[derive(Debug, Default)]
pub struct Typed {
    bytes: Vec<u8>,
    written: usize,
}

impl Typed {
    /// Adds more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.written);
        self.written = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to ask `poll` for on the master, besides what is of interest anyway.
    pub fn wants(&self) -> PollFlags {
        if self.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        }
    }

    /// Writes a piece to a master that is ready for it; false when the other side is gone.
    pub fn write(&mut self, master: BorrowedFd<'_>) -> bool {
        let piece = &self.bytes[self.written..];
        match rustix::io::write(master, &piece[..piece.len().min(PIECE)]) {
            Ok(n) => self.written += n,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
        true
    }

    /// Writes as much as the master takes now.
    pub fn write_now(&mut self, master: BorrowedFd<'_>) {
        let now = Timespec::default();
        while !self.is_empty() {
            let mut fds = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::OUT)];
            match rustix::event::poll(&mut fds, Some(&now)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(1) if fds[0].revents().contains(PollFlags::OUT) => {}
                _ => return,
            }
            if !self.write(master) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_nobody_reads_blocks_nobody() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut typed = Typed::default();
        typed.push(&vec![b'x'; 1 << 20]);
        typed.write_now(pty.master.as_fd());
        assert!((1..1 << 20).contains(&typed.len()), "{} bytes wait", typed.len());
        let waiting = typed.len();
        typed.push(b"more");
        assert_eq!(typed.len(), waiting + 4);
    }

    #[test]
    fn bytes_arrive_in_order() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut typed = Typed::default();
        typed.push(&all[..600]);
        assert!(typed.write(write.as_fd()));
        typed.push(&all[600..]);
        typed.write_now(write.as_fd());
        assert!(typed.is_empty() && typed.wants().is_empty());
        let mut seen = vec![0; 2000];
        assert_eq!(rustix::io::read(&read, &mut seen[..]).unwrap(), 1000);
        assert_eq!(seen[..1000], all);
    }
}
