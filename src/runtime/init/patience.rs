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
    limit: Option<Duration>,
    end: Option<Instant>,
    interrupt: Option<OwnedFd>,
    for_workers: bool,
}

/// How often in its time a patience looks whether somebody still works.
const LOOKS: u32 = 10;

impl Patience {
    /// Patience for `limit` from now on (for ever, if there is none), and until `interrupt` can be read from.
    pub fn new(limit: Option<Duration>, interrupt: Option<BorrowedFd<'_>>) -> Result<Self> {
        let interrupt = interrupt
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3))
            .transpose()?;
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        Ok(Self {
            limit,
            end,
            interrupt,
            for_workers: false,
        })
    }

    /// Has the time begin anew as long as processes that we have begun get processor time, however little: the limit of a cgroup may
    /// leave them a thousandth of a processor. One that is frozen or stopped gets none.
    pub fn for_workers(self) -> Self {
        Self {
            for_workers: true,
            ..self
        }
    }

    /// Waits until `fd` can be read from.
    ///
    /// # Errors
    /// [`Error::Status`] when patience ends first.
    pub fn wait(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let (mut end, mut worked) = (self.end, Duration::ZERO);
        loop {
            let mut fds = vec![PollFd::new(&fd, PollFlags::IN)];
            if let Some(interrupt) = &self.interrupt {
                fds.push(PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN));
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let look = self
                .limit
                .filter(|_| self.for_workers)
                .map_or(Duration::MAX, |limit| limit / LOOKS);
            let left = left.map(|left| left.min(look));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.during(|| "wait")?,
            };
            // What has come counts, even when patience ends at the same moment.
            return if !fds[0].revents().is_empty() {
                Ok(())
            } else if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                Err(Error::Status("interrupted by a signal".into()))
            } else if self.for_workers && renewed(&mut worked) {
                end = self.limit.and_then(|limit| Instant::now().checked_add(limit));
                continue;
            } else if end.is_some_and(|end| Instant::now() < end) {
                continue;
            } else {
                let seconds = self.limit.map_or(0, |limit| limit.as_secs());
                Err(Error::Status(format!(
                    "no answer within {seconds} s (does something inside freeze or stop the processes?)"
                )))
            };
        }
    }
}

/// Whether processes below us have had more of the processors than when this was asked last.
fn renewed(worked: &mut Duration) -> bool {
    let now = worked_below("self");
    std::mem::replace(worked, now) < now
}

/// The processor time of all processes below this one that live; nothing where the kernel does not tell.
fn worked_below(process: &str) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    let children = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let of = |child: &str| {
        let told = std::fs::read_to_string(format!("/proc/{child}/schedstat")).unwrap_or_default();
        let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or(0)) + worked_below(child)
    };
    children
        .map(|pids| pids.split_whitespace().map(of).sum::<Duration>())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_is_waited_for() {
        // Every tenth of its time it has a bit of a processor, and its answer comes when the limit is over. On a machine that is busy
        // with something else a process may wait for several tenths of a second.
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 0.1; done; echo done";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let answer = child.stdout.take().unwrap();
        let patience = Patience::new(Some(Duration::from_secs(1)), None)
            .unwrap()
            .for_workers();
        let waited = patience.wait(answer.as_fd());
        child.wait().unwrap();
        waited.unwrap();
    }

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
