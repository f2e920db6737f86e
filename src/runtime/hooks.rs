//! Hooks: programs of the caller that run at fixed points of a container's life, with its state on standard input.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{During, Error, Result};
use crate::process::{limits, protect};

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

/// What hooks have that do not name it themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// The working directory; where absent or gone, this process's own.
    pub dir: Option<&'a Path>,
    /// The `NAME=value` lines of hooks without an `env`; where absent, this process's own.
    pub env: Option<&'a [OsString]>,
}

/// Runs hooks one after the other with the state on their standard input; the first failure ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &[u8], surroundings: Surroundings<'_>) -> Result<()> {
    Ready::make(kind, hooks, state)?.run(surroundings)
}

/// Runs hooks whose failure must not stop what goes on (poststop): it is logged.
pub fn run_all(kind: &str, hooks: &[Hook], state: &[u8], surroundings: Surroundings<'_>) {
    for hook in hooks {
        if let Err(e) = input(state).and_then(|input| run_one(hook, input, surroundings)) {
            log::warn!("{kind} hook `{}`: {e}", hook.path().display());
        }
    }
}

/// Hooks whose input is made, for a process that is about to lose the system calls and privileges for that.
#[derive(Debug)]
pub struct Ready<'a> {
    kind: &'a str,
    hooks: Vec<(&'a Hook, File)>,
}

impl<'a> Surroundings<'a> {
    /// What hooks of the runtime's namespaces have: the bundle, where engines' hooks look for `config.json`.
    pub fn of_bundle(bundle: &'a Path) -> Self {
        Self {
            dir: Some(bundle),
            env: None,
        }
    }
}

impl<'a> Ready<'a> {
    /// Makes the state that each is to read.
    pub fn make(kind: &'a str, hooks: &'a [Hook], state: &[u8]) -> Result<Self> {
        let with_input = |hook| Ok((hook, input(state)?));
        let hooks = hooks.iter().map(with_input).collect::<Result<_>>()?;
        Ok(Self { kind, hooks })
    }

    /// Runs them one after the other, as who this process is by now; the first failure ends it.
    pub fn run(self, surroundings: Surroundings<'_>) -> Result<()> {
        for (index, (hook, input)) in self.hooks.into_iter().enumerate() {
            run_one(hook, input, surroundings).during(|| {
                format!(
                    "error running {} hook #{index}: `{}`",
                    self.kind,
                    hook.path().display()
                )
            })?;
        }
        Ok(())
    }
}

fn run_one(hook: &Hook, input: File, surroundings: Surroundings<'_>) -> Result<()> {
    let mut child = command(hook, surroundings).stdin(input).spawn()?;
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
        || killed_by(status.signal().unwrap_or_default()),
        |code| format!("exited with status {code}"),
    );
    Err(Error::Status(format!(
        "{how}, stderr: {}",
        String::from_utf8_lossy(&said).trim()
    )))
}

/// With the signal's name as the system has it ("bad system call"), which callers of runc look for.
fn killed_by(signal: i32) -> String {
    let name = crate::sys::signal::describe(signal).to_lowercase();
    format!("was killed by signal {signal} ({name})")
}

fn command(hook: &Hook, surroundings: Surroundings<'_>) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().unwrap_or_default().split_first() {
        command.arg0(name).args(rest);
    }
    // Where runc hands a hook to init, none and an empty list are the same.
    let named = hook.env().as_ref();
    let named = named.filter(|env| !env.is_empty() || surroundings.env.is_none());
    match (named, surroundings.env) {
        (Some(env), _) => command
            .env_clear()
            .envs(env.iter().filter_map(|line| variable(line.as_ref()))),
        (None, Some(env)) => command
            .env_clear()
            .envs(env.iter().filter_map(|line| variable(line))),
        (None, None) => command.env_remove(protect::MARK),
    };
    if let Some(dir) = surroundings.dir.filter(|dir| dir.is_dir()) {
        command.current_dir(dir);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    // `run` blocks signals to pass them on; that is not the hook's affair.
    crate::sys::signal::unblock_in(&mut command);
    limits::restore_files_in(&mut command);
    command
}

fn variable(line: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = line.as_bytes();
    let end = bytes.iter().position(|b| *b == b'=')?;
    Some((
        OsStr::from_bytes(&bytes[..end]),
        OsStr::from_bytes(&bytes[end + 1..]),
    ))
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

/// How often a hook that cannot be held by a descriptor is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Reads what the hook says on standard error until it ends; kills it at the time-out.
///
/// Its end is told by its pidfd, not by the end of the stream, which a daemon it started may hold open.
fn collect(child: &mut Child, timeout: Option<Duration>) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    let Some(stderr) = child.stderr.take() else {
        return Ok(said);
    };
    let pidfd = held(child)?;
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut open = true;
    loop {
        let events = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&stderr, events)];
        fds.extend(pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let patience = if pidfd.is_some() { left } else { Some(GLANCE) };
        let patience = patience.and_then(|p| Timespec::try_from(p).ok());
        match rustix::event::poll(&mut fds, patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let readable = !fds[0].revents().is_empty();
        let ended = match fds.get(1) {
            Some(pidfd) => !pidfd.revents().is_empty(),
            None => child.try_wait()?.is_some(),
        };
        if open && readable {
            let mut buffer = [0; 4096];
            let n = rustix::io::read(&stderr, &mut buffer)?;
            open = n != 0;
            said.extend_from_slice(&buffer[..n.min(MAX_SAID - said.len())]);
        } else if ended {
            return Ok(said);
        } else if left.is_some_and(|left| left.is_zero()) {
            return Err(too_slow(child, timeout));
        }
    }
}

/// The hook's pidfd; none where the filter of its container, which this process has by now, refuses it.
fn held(child: &Child) -> Result<Option<OwnedFd>> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Corrupt("a hook has no pid".into()))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok())
}

/// Kills the hook. One that changed its user and cannot be killed is not waited for.
fn too_slow(child: &mut Child, timeout: Option<Duration>) -> Error {
    if child.kill().is_ok() {
        let _ = child.wait();
    }
    let seconds = timeout.unwrap_or_default().as_secs();
    Error::Status(format!("did not end within {seconds} s"))
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
        let around = Surroundings::default();
        run("prestart", &[hook("grep -q hello", "")], b"hello\n", around).unwrap();
        let e = run("prestart", &[hook("echo no luck >&2; exit 3", "")], b"", around)
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "error running prestart hook #0: `/bin/sh`: exited with status 3, stderr: no luck"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let hooks = [hook("exec sleep 100", r#","timeout":1"#)];
        let e = run("poststop", &hooks, b"", Surroundings::default()).unwrap_err();
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
