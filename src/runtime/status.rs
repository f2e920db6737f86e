//! The status of a container, computed from facts and never stored.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::files;

/// Clock ticks a second in `/proc`: `USER_HZ`, which is 100 on every architecture condo is built for.
const TICKS: u64 = 100;

/// The statuses of the spec, and `paused` of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made, or left half-made by an invocation that died.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The cgroup is frozen.
    Paused,
    /// There is no init any more.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A process by pid and start time: a pid alone may have been given to somebody else since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Identity {
    /// The pid, in the runtime's pid namespace.
    pub pid: i32,
    /// Start in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub start_time: u64,
}

impl Identity {
    /// The identity of a process that is there now, dead or alive.
    pub fn of(pid: i32) -> Option<Self> {
        let (_, start_time) = stat(pid)?;
        Some(Self { pid, start_time })
    }

    /// The identity of this process.
    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        Self::of(pid).ok_or_else(|| Error::Corrupt("this process is not in /proc".into()))
    }

    /// Whether the process lives (a zombie does not).
    pub fn is_alive(&self) -> bool {
        matches!(stat(self.pid), Some((state, start)) if start == self.start_time && !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// Seconds since the process was started.
    pub fn uptime(&self) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let since_boot: u64 = text.split('.').next()?.parse().ok()?;
        Some(since_boot.saturating_sub(self.start_time / TICKS))
    }

    /// A pidfd to the process, if it lives.
    pub fn open(&self) -> Option<std::os::fd::OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.pid)?;
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // Checked after opening: from here on the handle means this process, whatever happens to the number.
        self.is_alive().then_some(fd)
    }
}

/// State letter and start time.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&files::stat_fields(pid)?)
}

fn parse_stat(fields: &str) -> Option<(char, u64)> {
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 3 was the state; 22 is the nineteenth after it.
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_start_are_found() {
        let fields = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 0";
        assert_eq!(parse_stat(fields), Some(('S', 99)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    /// Else a tenant's init would be taken for dead by what it calls itself.
    #[test]
    fn a_name_that_is_no_text_hides_nobody() {
        use std::os::unix::ffi::OsStrExt;
        let mut name = b"\xff) R 1 (".to_vec();
        name.extend(std::process::id().to_string().into_bytes());
        let program = std::env::temp_dir().join(std::ffi::OsStr::from_bytes(&name));
        let _ = std::fs::remove_file(&program);
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("100").spawn().unwrap();
        let found = Identity::of(child.id() as i32);
        let lives = found.as_ref().is_some_and(Identity::is_alive);
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&program).unwrap();
        assert!(lives && found.is_some_and(|found| !found.is_alive()));
    }

    #[test]
    fn we_are_alive_and_our_double_is_not() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive() && own.open().is_some());
        assert!(
            !Identity {
                start_time: own.start_time + 1,
                ..own
            }
            .is_alive()
        );
    }
}
