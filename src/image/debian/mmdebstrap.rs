//! mmdebstrap as a child process: its archive on one pipe, its words on another.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags};

use super::sources::{KEYRING, Source};
use crate::error::{During, Error, Result};
use crate::image::archive::{OnProgress, Progress};

/// Last lines of its words that go into an error.
const TAIL: usize = 12;

/// Transport settings of the host's apt that mmdebstrap, which reads no configuration of the host, is told.
const ACQUIRE: [&str; 4] = [
    "Acquire::http::Proxy ",
    "Acquire::https::Proxy ",
    "Acquire::Check-Valid-Until ",
    "Acquire::Check-Date ",
];

/// Documentation and translations, left out of what is installed now. What the tenant installs later has them.
const LEFT_OUT: [&str; 6] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// A running mmdebstrap; it reads as the archive it makes.
pub(super) struct Stream<'a, 'p> {
    child: Child,
    archive: ChildStdout,
    /// Gone when it has been closed.
    words: Option<ChildStderr>,
    tail: Tail,
    done: u64,
    ended: bool,
    progress: &'a mut OnProgress<'p>,
}

/// The last lines somebody said.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    partial: Vec<u8>,
}

/// Starts it.
pub(super) fn start<'a, 'p>(
    (suite, packages): (&str, &[String]),
    sources: &[Source],
    work: &Path,
    progress: &'a mut OnProgress<'p>,
) -> Result<Stream<'a, 'p>> {
    let mut child = command((suite, packages), sources, work)
        .spawn()
        .during(|| "start mmdebstrap")?;
    let (Some(archive), words) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::Corrupt("mmdebstrap was started without a pipe".into()));
    };
    Ok(Stream {
        child,
        archive,
        words,
        tail: Tail::default(),
        done: 0,
        ended: false,
        progress,
    })
}

/// The command line. `setpriv` and `unshare` tie everything it starts to our life: its mounts and its package scripts are in
/// namespaces that end with us, even by SIGKILL.
fn command((suite, packages): (&str, &[String]), sources: &[Source], work: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
        ])
        .args([
            "--mount-proc",
            "--",
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=tar",
        ])
        .args(["--skip=output/dev", "--keyring", KEYRING])
        .arg(format!("--include={}", packages.join(",")))
        .args(LEFT_OUT.iter().map(|o| format!("--dpkgopt={o}")))
        .args(acquire().iter().map(|o| format!("--aptopt={o}")))
        .args([suite, "-"])
        .args(
            sources
                .iter()
                .map(|s| format!("deb [signed-by={KEYRING}] {} {} main", s.uri, s.suite)),
        )
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", work)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn acquire() -> Vec<String> {
    let Ok(output) = Command::new("apt-config").arg("dump").output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| ACQUIRE.iter().any(|name| line.starts_with(name)))
        .map(Into::into)
        .collect()
}

impl Stream<'_, '_> {
    /// Waits for its end. What it says about a failure of its own goes before the broken archive that follows from it.
    pub(super) fn finish(mut self, unpacked: Result<()>) -> Result<()> {
        if !self.ended {
            // We could not unpack: it need not go on. It has ended by itself if this fails.
            let _ = self.child.kill();
        }
        while self.words.is_some() {
            self.listen()?;
        }
        let status = self.child.wait()?;
        if !self.ended || status.success() {
            return unpacked;
        }
        let words = self.tail.text();
        let missing = words.contains("mmdebstrap") && matches!(status.code(), Some(126 | 127));
        let hint = if missing {
            " (install it: `apt-get install mmdebstrap`)"
        } else {
            ""
        };
        Err(Error::unsupported(
            "installing Debian",
            format!("mmdebstrap ended with {status}{hint}: {words}"),
        ))
    }

    /// Takes in what it has to say, and shows it as progress.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = match &mut self.words {
            Some(words) => words.read(&mut buffer)?,
            None => 0,
        };
        if count == 0 {
            self.words = None;
        }
        if self.tail.add(&buffer[..count])
            && let Some(line) = self.tail.lines.back()
        {
            (self.progress)(Progress {
                stage: line.strip_prefix("I: ").unwrap_or(line),
                done: self.done,
                total: None,
                layer: None,
            });
        }
        Ok(())
    }

    /// Waits until the archive goes on, listening meanwhile.
    fn wait(&mut self) -> io::Result<()> {
        while let Some(words) = &self.words {
            let mut fds = [
                PollFd::new(&self.archive, PollFlags::IN),
                PollFd::new(words, PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
            let [archive, words] = fds.map(|fd| !fd.revents().is_empty());
            if words {
                self.listen()?;
            }
            if archive {
                break;
            }
        }
        Ok(())
    }
}

impl Read for Stream<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let count = self.archive.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        self.done += count as u64;
        Ok(count)
    }
}

impl Drop for Stream<'_, '_> {
    /// Nobody waits for it any more: end it and everything it started, and reap it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tail {
    /// Whether a line has become complete.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let mut complete = false;
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let line: String = String::from_utf8_lossy(&self.partial)
                        .chars()
                        .filter(|c| !c.is_control())
                        .collect();
                    self.partial.clear();
                    if !line.trim().is_empty() {
                        self.lines.push_back(line);
                        complete = true;
                    }
                }
                // A line without end is cut rather than kept.
                other if self.partial.len() < 1000 => self.partial.push(*other),
                _ => {}
            }
        }
        let excess = self.lines.len().saturating_sub(TAIL);
        self.lines.drain(..excess);
        complete
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        assert!(!tail.add(b"half"));
        assert!(tail.add(b" a line\n\n"));
        assert_eq!(tail.text(), "half a line");
        for n in 0..100 {
            tail.add(format!("line {n}\r").as_bytes());
        }
        assert_eq!(tail.lines.len(), TAIL);
        assert!(tail.text().ends_with("line 99"));
    }
}
