//! Hooks: programs of the caller that run at fixed points of a container's life, with its state on standard input.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{During, Error, Result};

/// The six kinds, in the order of their lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Deprecated; in the runtime's namespaces, after the container's exist.
    pub prestart: Vec<Hook>,
    /// The same moment, after `prestart`.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces with the host's files, before the root is changed.
    pub create_container: Vec<Hook>,
    /// In the container, before its program.
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program started.
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after deletion.
    pub poststop: Vec<Hook>,
}

impl Set {
    /// Reads `hooks`, refusing relative paths and time-outs that are not above zero.
    pub fn from_spec(hooks: Option<&Hooks>) -> Result<Self> {
        let Some(hooks) = hooks else {
            return Ok(Self::default());
        };
        #[allow(deprecated, reason = "Docker still sends prestart hooks")]
        let prestart = checked("prestart", hooks.prestart().as_deref())?;
        Ok(Self {
            prestart,
            create_runtime: checked("createRuntime", hooks.create_runtime().as_deref())?,
            create_container: checked("createContainer", hooks.create_container().as_deref())?,
            start_container: checked("startContainer", hooks.start_container().as_deref())?,
            poststart: checked("poststart", hooks.poststart().as_deref())?,
            poststop: checked("poststop", hooks.poststop().as_deref())?,
        })
    }
}

fn checked(kind: &str, hooks: Option<&[Hook]>) -> Result<Vec<Hook>> {
    let hooks = hooks.unwrap_or_default();
    for (index, hook) in hooks.iter().enumerate() {
        let field = format!("hooks.{kind}[{index}]");
        if !hook.path().is_absolute() {
            return Err(Error::invalid(
                format!("{field}.path"),
                hook.path().display(),
                "must be an absolute path",
            ));
        }
        if let Some(timeout) = hook.timeout()
            && timeout <= 0
        {
            return Err(Error::invalid(
                format!("{field}.timeout"),
                timeout,
                "must be above zero",
            ));
        }
    }
    Ok(hooks.to_vec())
}

/// Runs hooks one after the other with the state on their standard input; the first failure ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &[u8]) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state).during(|| format!("{kind} hook {index} (`{}`)", hook.path().display()))?;
    }
    Ok(())
}

/// Runs hooks whose failure must not stop what goes on (poststart, poststop): it is logged.
pub fn run_all(kind: &str, hooks: &[Hook], state: &[u8]) {
    for hook in hooks {
        if let Err(e) = run_one(hook, state) {
            log::warn!("{kind} hook `{}`: {e}", hook.path().display());
        }
    }
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    let args = hook.args().as_deref().unwrap_or_default();
    let env = hook
        .env()
        .iter()
        .flatten()
        .filter_map(|line| line.split_once('='));
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(env)
        .stdin(Stdio::from(input(state)?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // `run` blocks signals to pass them on; that is not the hook's affair.
    crate::sys::signal::unblock_in(&mut command);
    let mut child = command.spawn()?;
    let timeout = hook
        .timeout()
        .and_then(|s| u64::try_from(s).ok())
        .map(Duration::from_secs);
    let said = collect(&mut child, timeout)?;
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let how = status.code().map_or_else(
        || format!("was killed by signal {}", status.signal().unwrap_or_default()),
        |code| format!("exited with status {code}"),
    );
    Err(Error::Status(format!(
        "{how}, stderr: {}",
        String::from_utf8_lossy(&said).trim()
    )))
}

/// The state as a file of no name: unlike a pipe it holds any length, for a hook that reads late or never.
fn input(state: &[u8]) -> Result<File> {
    let memory = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(state)?;
    file.rewind()?;
    Ok(file)
}

/// Most of what a hook says that is kept for the error.
const MAX_SAID: usize = 65536;

/// Reads what the hook says on standard error until it ends; kills it at the time-out.
///
/// Its end is told by its pidfd, not by the end of the stream, which a daemon it started may hold open.
fn collect(child: &mut Child, timeout: Option<Duration>) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    let Some(stderr) = child.stderr.take() else {
        return Ok(said);
    };
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Corrupt("a hook has no pid".into()))?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut open = true;
    loop {
        let events = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&stderr, events)];
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        match rustix::event::poll(&mut fds, left.and_then(|l| Timespec::try_from(l).ok()).as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Status(format!(
                    "did not end within {} s",
                    timeout.unwrap_or_default().as_secs()
                )));
            }
            other => other?,
        };
        let (ended, readable) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if open && readable {
            let mut buffer = [0; 4096];
            let n = rustix::io::read(&stderr, &mut buffer)?;
            open = n != 0;
            said.extend_from_slice(&buffer[..n.min(MAX_SAID - said.len())]);
        } else if ended {
            return Ok(said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: &str) -> Hook {
        serde_json::from_str(&format!(
            r#"{{"path":"/bin/sh","args":["sh","-c","{script}"]{timeout}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_hook_reads_the_state_and_its_failure_says_why() {
        run("prestart", &[hook("grep -q hello", "")], b"hello\n").unwrap();
        let e = run("prestart", &[hook("echo no luck >&2; exit 3", "")], b"")
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "prestart hook 0 (`/bin/sh`): exited with status 3, stderr: no luck"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let e = run("poststop", &[hook("exec sleep 100", r#","timeout":1"#)], b"").unwrap_err();
        assert!(e.to_string().contains("did not end within 1 s"), "{e}");
    }

    #[test]
    fn paths_and_time_outs_are_checked() {
        let hooks = |json: &str| Set::from_spec(Some(&serde_json::from_str(json).unwrap()));
        assert!(hooks(r#"{"poststart":[{"path":"sh"}]}"#).is_err());
        assert!(hooks(r#"{"poststart":[{"path":"/sh","timeout":0}]}"#).is_err());
        assert_eq!(
            hooks(r#"{"prestart":[{"path":"/sh"}]}"#).unwrap().prestart.len(),
            1
        );
    }
}
