//! Who writes the maps of a new user namespace: whoever may map any id, the caller for its own id, or `newuidmap` and
//! `newgidmap`, which know the further ids that `/etc/subuid` and `/etc/subgid` give to an ordinary user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, AtFlags, CWD};

use super::user::{IdMap, Range};
use crate::error::{During, Error, Result};
use crate::host::Caller;

/// Where the tools are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How long a tool may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who writes a pair of maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    /// The caller, who may map any ids.
    Caller,
    /// The caller, who may map itself alone, and only when the namespace gives up changing groups (`user_namespaces(7)`).
    Alone,
    /// `newuidmap(1)` and `newgidmap(1)`.
    Tools {
        /// The former, as an absolute path.
        uids: PathBuf,
        /// The latter.
        gids: PathBuf,
    },
}

impl Writer {
    /// Decides who can write these maps; `path` is the caller's `PATH`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it takes a tool that is not installed.
    pub fn choose(ids: &IdMap, caller: &Caller, path: Option<&OsStr>) -> Result<Self> {
        if caller.admin {
            return Ok(Self::Caller);
        }
        if is_only(&ids.uids, caller.uid) && is_only(&ids.gids, caller.gid) {
            return Ok(Self::Alone);
        }
        let find = |tool: &str, field: &str, ranges: &[Range]| {
            find(tool, path).ok_or_else(|| {
                let problem = format!(
                    "needs `{tool}`, which is not in $PATH: install it (package uidmap), or map only your own id, `0 {} 1`",
                    if tool == "newuidmap" { caller.uid } else { caller.gid }
                );
                Error::invalid(field, show(ranges), problem)
            })
        };
        Ok(Self::Tools {
            uids: find("newuidmap", "linux.uidMappings", &ids.uids)?,
            gids: find("newgidmap", "linux.gidMappings", &ids.gids)?,
        })
    }

    /// Whether processes of the namespace can choose their supplementary groups.
    pub fn allows_groups(&self) -> bool {
        *self != Self::Alone
    }

    /// Has the maps of the process's new user namespace written.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the tool's own words for ids the caller has not been given; `EPERM`.
    pub fn write(&self, ids: &IdMap, caller: &Caller, pid: i32) -> Result<()> {
        match self {
            Self::Caller => ids.write(pid),
            Self::Alone => {
                let path = format!("/proc/{pid}/setgroups");
                std::fs::write(&path, "deny").during(|| format!("write `{path}`"))?;
                ids.write(pid)
            }
            Self::Tools { uids, gids } => {
                call(uids, pid, &ids.uids, &Subject::users(caller))?;
                call(gids, pid, &ids.gids, &Subject::groups(caller))
            }
        }
    }
}

/// What one of the tools is about, for its errors.
struct Subject {
    field: &'static str,
    file: &'static str,
    user: u32,
    own: u32,
}

impl Subject {
    fn users(caller: &Caller) -> Self {
        Self {
            field: "linux.uidMappings",
            file: "/etc/subuid",
            user: caller.uid,
            own: caller.uid,
        }
    }

    fn groups(caller: &Caller) -> Self {
        Self {
            field: "linux.gidMappings",
            file: "/etc/subgid",
            user: caller.uid,
            own: caller.gid,
        }
    }
}

/// Whether one id alone is mapped, this one.
fn is_only(ranges: &[Range], id: u32) -> bool {
    matches!(ranges, [Range { outside, size: 1, .. }] if *outside == id)
}

/// A program on the path. Relative entries are left out: what the current directory has is nobody's tool.
fn find(tool: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(tool))
        .find(|tool| {
            tool.is_file() && rustix::fs::accessat(CWD, tool, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
        })
}

fn call(tool: &Path, pid: i32, ranges: &[Range], subject: &Subject) -> Result<()> {
    let numbers = ranges.iter().flat_map(|r| [r.inside, r.outside, r.size]);
    let mut command = Command::new(tool);
    command
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = in_time(command, PATIENCE).during(|| format!("run `{}`", tool.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Error::invalid(
        subject.field,
        show(ranges),
        format!("is refused ({said}): {}", remedy(ranges, subject)),
    ))
}

/// Runs a tool to its end, or ends it: it asks the machine for names of users, which may never answer.
fn in_time(mut command: Command, limit: Duration) -> Result<Output> {
    let mut child = command.spawn()?;
    let pid = rustix::process::Pid::from_child(&child);
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let time = Timespec::try_from(limit).ok();
    if rustix::event::poll(&mut [PollFd::new(&ended, PollFlags::IN)], time.as_ref()) == Ok(0) {
        child.kill()?;
        child.wait()?;
        let text = format!("it has not ended after {} s", limit.as_secs());
        return Err(Error::Status(text));
    }
    Ok(child.wait_with_output()?)
}

/// The line that would allow it.
fn remedy(ranges: &[Range], subject: &Subject) -> String {
    let further = ranges.iter().find(|r| r.outside != subject.own || r.size != 1);
    further.map_or_else(
        || format!("user {} must have an entry in /etc/passwd", subject.user),
        |r| {
            format!(
                "the host's ids must be yours in {}, as by the line `{}:{}:{}`",
                subject.file, subject.user, r.outside, r.size
            )
        },
    )
}

fn show(ranges: &[Range]) -> String {
    let lines: Vec<String> = ranges
        .iter()
        .map(|r| format!("{} {} {}", r.inside, r.outside, r.size))
        .collect();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller {
        uid: 1000,
        gid: 100,
        admin: false,
        privileged: false,
    };

    fn map(uids: &str, gids: &str) -> IdMap {
        let read = |text: &str| serde_json::from_str::<Vec<_>>(text).unwrap();
        IdMap::from_mappings(&read(uids), &read(gids), "linux").unwrap()
    }

    const OWN_UID: &str = r#"[{"containerID":0,"hostID":1000,"size":1}]"#;
    const OWN_GID: &str = r#"[{"containerID":0,"hostID":100,"size":1}]"#;
    const MORE: &str =
        r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":200000,"size":9}]"#;

    #[test]
    fn the_own_ids_take_no_tool_and_give_up_groups() {
        let alone = Writer::choose(&map(OWN_UID, OWN_GID), &USER, None).unwrap();
        assert_eq!(alone, Writer::Alone);
        assert!(!alone.allows_groups());
        assert_eq!(
            Writer::choose(&map(MORE, MORE), &Caller::ROOT, None).unwrap(),
            Writer::Caller
        );
    }

    #[test]
    fn more_ids_take_tools_from_absolute_directories() {
        let dir = std::env::temp_dir().join(format!("condo-subordinate-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for tool in ["newuidmap", "newgidmap"] {
            use std::os::unix::fs::OpenOptionsExt;
            std::fs::File::options()
                .create(true)
                .append(true)
                .mode(0o755)
                .open(dir.join(tool))
                .unwrap();
        }
        let path = format!("bin:/nowhere:{}", dir.display());
        let chosen = Writer::choose(&map(MORE, OWN_GID), &USER, Some(path.as_ref()));
        std::fs::remove_dir_all(&dir).unwrap();
        let expected = Writer::Tools {
            uids: dir.join("newuidmap"),
            gids: dir.join("newgidmap"),
        };
        assert_eq!(chosen.unwrap(), expected);
    }

    #[test]
    fn a_missing_tool_is_named_with_the_way_out() {
        let e = Writer::choose(&map(MORE, OWN_GID), &USER, Some("/nowhere".as_ref())).unwrap_err();
        let text = "linux.uidMappings: `0 1000 1, 1 200000 9` needs `newuidmap`, which is not in $PATH: \
            install it (package uidmap), or map only your own id, `0 1000 1`";
        assert_eq!(e.to_string(), text);
    }

    #[test]
    fn the_remedy_is_a_line_to_copy() {
        let ids = map(MORE, OWN_GID);
        let text = remedy(&ids.uids, &Subject::users(&USER));
        assert!(
            text.ends_with("/etc/subuid, as by the line `1000:200000:9`"),
            "{text}"
        );
        assert!(remedy(&ids.gids, &Subject::groups(&USER)).contains("/etc/passwd"));
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let mut sleep = Command::new("/bin/sleep");
        sleep.arg("1000");
        let e = in_time(sleep, Duration::from_millis(10)).unwrap_err();
        assert!(e.to_string().contains("has not ended"), "{e}");
    }
}
