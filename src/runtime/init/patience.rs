//! How long we wait for a process that others can stop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{During, Error, Result};

/// An end to waiting. The default one never ends.
///
/// A process in a container is at the mercy of those that are there already: they may freeze the cgroup it is in, or stop
/// it. Whoever waits for it needs a time after which to give up, and an ear for who asks for that sooner.
#[derive(Debug, Default)]
pub struct Patience {
    end: Option<(Instant, Duration)>,
    interrupt: Option<OwnedFd>,
}

impl Patience {
    /// Patience for `limit` from now on (for ever, if there is none), and until `interrupt` can be read from.
    pub fn new(limit: Option<Duration>, interrupt: Option<BorrowedFd<'_>>) -> Result<Self> {
        let interrupt = interrupt
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3))
            .transpose()?;
        let end = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Ok(Self { end, interrupt })
    }

    /// Waits until `fd` can be read from.
    ///
    /// # Errors
    /// [`Error::Status`] when patience ends first.
    pub fn wait(&self, fd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&fd, PollFlags::IN)];
            if let Some(interrupt) = &self.interrupt {
                fds.push(PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN));
            }
            let left = self
                .end
                .and_then(|(end, _)| Timespec::try_from(end.saturating_duration_since(Instant::now())).ok());
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.during(|| "wait")?,
            };
            // What has come counts, even when patience ends at the same moment.
            return if !fds[0].revents().is_empty() {
                Ok(())
            } else if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                Err(Error::Status("interrupted by a signal".into()))
            } else {
                let seconds = self.end.map_or(0, |(_, limit)| limit.as_secs());
                Err(Error::Status(format!(
                    "no answer within {seconds} s (does something inside freeze or stop the processes?)"
                )))
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_time_and_by_interrupt_but_not_before_an_answer() {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((answer, say), (interrupt, end)) = (pipe(), pipe());
        let short = Patience::new(Some(Duration::from_millis(1)), Some(interrupt.as_fd())).unwrap();
        let said = short.wait(answer.as_fd()).unwrap_err().to_string();
        assert!(said.contains("no answer within 0 s"), "{said}");

        let long = Patience::new(None, Some(interrupt.as_fd())).unwrap();
        rustix::io::write(&end, b"x").unwrap();
        let said = long.wait(answer.as_fd()).unwrap_err().to_string();
        assert!(said.contains("interrupted"), "{said}");

        rustix::io::write(&say, b"x").unwrap();
        long.wait(answer.as_fd()).unwrap();
        short.wait(answer.as_fd()).unwrap();
    }
}
