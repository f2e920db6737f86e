//! Fault injection: the runtime, or the init it makes, is killed after its n-th system call, for every n there is. Whatever is
//! left then, `delete --force` clears all of it; and what a runtime that lives cannot finish, it clears by itself.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use super::Container;
use crate::harness;

tests![
    create_killed_after_every_system_call: 600,
    init_killed_after_every_system_call: 600,
    delete_killed_after_every_system_call: 600,
];

/// Rounds that run at once: most of a round is waiting for the kernel's grace periods.
const WORKERS: usize = 4;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Runtime,
    /// The first process the runtime makes, which is to be the container's init.
    Init,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    /// Whether the victim came as far as to be killed.
    cut: bool,
    success: bool,
}

/// A program under ptrace(2), whose system calls are counted.
struct Traced {
    child: Child,
    victim: Option<Pid>,
    wanted: Victim,
    counting: bool,
    calls: usize,
    limit: usize,
    /// Stops come in pairs, before and after a call.
    inside: bool,
}

impl Traced {
    /// Starts `command` below a shell that waits until it is traced.
    fn start(command: &Command, wanted: Victim, limit: usize) -> Result<Self> {
        let mut shell = Command::new("/bin/busybox");
        shell
            .args(["sh", "-c", "read go; exec \"$0\" \"$@\" </dev/null"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = shell.spawn()?;
        let pid = pid_of(&child)?;
        let mut options =
            Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
        if wanted == Victim::Init {
            options |=
                Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEVFORK;
        }
        ptrace::seize(pid, options)?;
        ptrace::interrupt(pid)?;
        child.stdin.take().context("no pipe")?.write_all(b"go\n")?;
        Ok(Self {
            child,
            victim: (wanted == Victim::Runtime).then_some(pid),
            wanted,
            counting: false,
            calls: 0,
            limit,
            inside: false,
        })
    }

    /// Runs it to its end; the victim is killed on the way if it makes as many calls.
    fn finish(mut self) -> Result<Ended> {
        let runtime = pid_of(&self.child)?;
        let mut cut = false;
        loop {
            // Of this thread alone: the other workers trace as well.
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
            match status {
                WaitStatus::Exited(pid, code) if pid == runtime => {
                    self.release_init()?;
                    return Ok(Ended {
                        cut,
                        success: code == 0,
                    });
                }
                WaitStatus::Signaled(pid, ..) if pid == runtime => return Ok(Ended { cut, success: false }),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                WaitStatus::PtraceSyscall(pid) if self.counts(pid) && self.calls == self.limit => {
                    cut = true;
                    kill(pid, Signal::SIGKILL)?;
                }
                stopped => self.go_on(stopped)?,
            }
        }
    }

    /// Whether this stop is the end of one more call of the victim.
    fn counts(&mut self, pid: Pid) -> bool {
        if !self.counting || Some(pid) != self.victim {
            return false;
        }
        self.inside = !self.inside;
        if self.inside {
            return false;
        }
        self.calls += 1;
        true
    }

    fn go_on(&mut self, status: WaitStatus) -> Result<()> {
        let (pid, signal) = match status {
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.heed(pid, event)?;
                (pid, None)
            }
            WaitStatus::PtraceSyscall(pid) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            other => bail!("a stop that nobody expects: {other:?}"),
        };
        match ptrace::syscall(pid, signal) {
            // Killed meanwhile; its end is the next report.
            Err(nix::Error::ESRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    fn heed(&mut self, pid: Pid, event: i32) -> Result<()> {
        if event == Event::PTRACE_EVENT_EXEC as i32 && self.wanted == Victim::Runtime {
            // The shell is over. An exec is reported within its call, whose end is the next stop.
            self.counting = true;
            self.inside = true;
        }
        let births = [
            Event::PTRACE_EVENT_FORK,
            Event::PTRACE_EVENT_CLONE,
            Event::PTRACE_EVENT_VFORK,
        ];
        if self.victim.is_none() && births.iter().any(|b| *b as i32 == event) {
            let born = ptrace::getevent(pid)?;
            self.victim = Some(Pid::from_raw(i32::try_from(born)?));
            self.counting = true;
        }
        Ok(())
    }

    /// An init that outlives the runtime waits for `start`, and must not be ours any more.
    fn release_init(&self) -> Result<()> {
        if self.wanted == Victim::Init
            && let Some(init) = self.victim
            && kill(init, Signal::SIGKILL).is_ok()
        {
            while !matches!(
                waitpid(init, Some(WaitPidFlag::__WALL)),
                Err(_) | Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            ) {}
        }
        Ok(())
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// A container with something of every kind to leave behind.
fn victim() -> Result<Container> {
    let mut c = Container::idle()?;
    c.set("/hooks/createRuntime", json!([{"path": "/bin/true"}]))?
        .push(
            "/mounts",
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        )?;
    Ok(c)
}

/// Calls `round` with 1, 2, 3 … until it says that there is no such system call. A machine that is slow takes every 40th only,
/// from a random one on: all of them would take it an hour.
fn for_every_call(round: impl Fn(&Container, usize) -> Result<bool> + Sync) -> Result<usize> {
    let step = if harness::timeout_factor() > 1 { 40 } else { 1 };
    let next = AtomicUsize::new(1 + std::process::id() as usize % step);
    let containers: Vec<Container> = (0..WORKERS).map(|_| victim()).collect::<Result<_>>()?;
    let work = |c: &Container| -> Result<()> {
        loop {
            let n = next.fetch_add(step, Ordering::Relaxed);
            if !round(c, n).with_context(|| format!("after call {n}"))? {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = containers.iter().map(|c| scope.spawn(|| work(c))).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread"))
    })?;
    Ok(next.load(Ordering::Relaxed) - WORKERS * step)
}

fn create_killed_after_every_system_call() -> Result<()> {
    known_difference!("runc", "keeps no state before it makes cgroups");
    let calls = for_every_call(|c, n| {
        let create = c.command(&["create", "--bundle", "%", "@"]);
        let ended = Traced::start(&create, Victim::Runtime, n)?.finish()?;
        ensure!(ended.cut != ended.success, "{ended:?}");
        c.cleared()?;
        Ok(ended.cut)
    })?;
    ensure!(calls > 100, "only {calls} system calls were seen");
    Ok(())
}

fn init_killed_after_every_system_call() -> Result<()> {
    needs!(ours);
    let calls = for_every_call(|c, n| {
        let create = c.command(&["create", "--bundle", "%", "@"]);
        let ended = Traced::start(&create, Victim::Init, n)?.finish()?;
        if ended.success {
            // It was killed at the very end, when all had been said.
            c.cleared()?;
        } else {
            ensure!(ended.cut, "{ended:?}");
            c.nothing_left()?;
        }
        Ok(ended.cut)
    })?;
    ensure!(calls > 50, "only {calls} system calls were seen");
    Ok(())
}

fn delete_killed_after_every_system_call() -> Result<()> {
    known_difference!("runc", "removes a state before all of it is cleared");
    let calls = for_every_call(|c, n| {
        c.up()?;
        let delete = c.command(&["delete", "--force", "@"]);
        let ended = Traced::start(&delete, Victim::Runtime, n)?.finish()?;
        ensure!(ended.cut != ended.success, "{ended:?}");
        c.cleared()?;
        Ok(ended.cut)
    })?;
    ensure!(calls > 50, "only {calls} system calls were seen");
    Ok(())
}
