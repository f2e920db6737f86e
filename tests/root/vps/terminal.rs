//! A terminal with a command of ours on it.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use super::house::patience;

/// The user's side of a terminal.
pub struct Terminal {
    master: std::fs::File,
    slave: OwnedFd,
    heard: String,
}

impl Terminal {
    /// A terminal of 40 rows and 100 columns.
    pub fn new() -> Result<Self> {
        let size = Winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None)?;
        for fd in [&pty.master, &pty.slave] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(Self {
            master: pty.master.into(),
            slave: pty.slave,
            heard: String::new(),
        })
    }

    /// Runs a command on it.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let end = || self.slave.try_clone();
        Ok(command.stdin(end()?).stdout(end()?).stderr(end()?).spawn()?)
    }

    /// Reads from it as a shell does whose commands have ended.
    pub fn read_as_shell(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut fds = [PollFd::new(self.slave.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience())?;
        ensure!(poll(&mut fds, patience)? > 0, "nothing is left to read");
        Ok(rustix::io::read(&self.slave, buffer)?)
    }

    /// Gives it another size, as a window that is dragged; who runs on it is told by hand, for it is nobody's controlling one.
    pub fn resize(&self, rows: u16, columns: u16, child: &Child) -> Result<()> {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size)?;
        let pid = nix::unistd::Pid::from_raw(child.id().try_into()?);
        Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH)?)
    }

    /// How it treats what is typed and printed (`termios(3)`).
    pub fn settings(&self) -> Result<nix::sys::termios::Termios> {
        Ok(nix::sys::termios::tcgetattr(&self.slave)?)
    }

    /// Types.
    pub fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Reads until `text` has come.
    pub fn hear(&mut self, text: &str) -> Result<()> {
        ensure!(
            self.hears(text, patience())?,
            "`{text}` did not come: {}",
            self.heard
        );
        Ok(())
    }

    /// Reads until `text` has come, or the time is over; whether it has.
    pub fn hears(&mut self, text: &str, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        while !self.heard.contains(text) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(100_u8))? > 0 {
                let mut buffer = [0; 4096];
                let n = rustix::io::read(&self.master, &mut buffer)?;
                self.heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
        let at = self.heard.find(text).unwrap_or(0) + text.len();
        self.heard.drain(..at);
        Ok(true)
    }
}
