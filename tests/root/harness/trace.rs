//! A program under ptrace(2): its system calls are counted, and it or its first child can be killed after a certain one.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The program itself.
    Program,
    /// The first process it makes.
    FirstChild,
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether the victim came as far as to be killed.
    pub cut: bool,
    pub success: bool,
    /// System calls of the program and of all processes it made, from its exec to its end.
    pub calls: usize,
}

/// Runs a program to its end and counts.
pub fn count(command: &Command) -> Result<Ended> {
    Tracer::start(command, None)?.finish()
}

/// Runs a program to its end; the victim is killed after its `n`-th system call, if it makes as many.
pub fn kill_after(command: &Command, victim: Victim, n: usize) -> Result<Ended> {
    Tracer::start(command, Some((victim, n)))?.finish()
}

/// One traced process.
#[derive(Debug, Default)]
struct Seen {
    calls: usize,
    /// Stops come in pairs, before and after a call.
    inside: bool,
}

struct Tracer {
    child: Child,
    program: Pid,
    /// False while the program is still the shell it is started from.
    counting: bool,
    first_child: Option<Pid>,
    seen: HashMap<Pid, Seen>,
    kill: Option<(Victim, usize)>,
}

impl Tracer {
    /// Starts `command` below a shell that waits until it is traced.
    fn start(command: &Command, kill: Option<(Victim, usize)>) -> Result<Self> {
        let mut shell = Command::new("/bin/busybox");
        shell
            .args([
                "sh",
                "-c",
                "echo ready; read go; exec \"$0\" \"$@\" </dev/null >/dev/null",
            ])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = shell.spawn()?;
        // Its own exec is over then, and the next one is the program's.
        let mut ready = [0; 6];
        child.stdout.take().context("no pipe")?.read_exact(&mut ready)?;
        let program = Pid::from_raw(i32::try_from(child.id())?);
        let births =
            Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEVFORK;
        let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
        if !matches!(kill, Some((Victim::Program, _))) {
            options |= births;
        }
        ptrace::seize(program, options | Options::PTRACE_O_EXITKILL)?;
        ptrace::interrupt(program)?;
        child.stdin.take().context("no pipe")?.write_all(b"go\n")?;
        Ok(Self {
            child,
            program,
            counting: false,
            first_child: None,
            seen: HashMap::new(),
            kill,
        })
    }

    fn finish(mut self) -> Result<Ended> {
        let mut cut = false;
        loop {
            // Of this thread alone: others may trace as well.
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
            match status {
                WaitStatus::Exited(pid, code) if pid == self.program => return self.ended(cut, code == 0),
                WaitStatus::Signaled(pid, ..) if pid == self.program => return self.ended(cut, false),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.first_child = self.first_child.filter(|first| *first != pid);
                }
                WaitStatus::PtraceSyscall(pid) if self.is_the_last(pid) => {
                    cut = true;
                    kill(pid, Signal::SIGKILL)?;
                }
                stopped => self.go_on(stopped)?,
            }
        }
    }

    /// Counts, and says whether the process is to be killed now.
    fn is_the_last(&mut self, pid: Pid) -> bool {
        if !self.counting {
            return false;
        }
        let seen = self.seen.entry(pid).or_default();
        seen.inside = !seen.inside;
        seen.calls += usize::from(!seen.inside);
        let (inside, calls) = (seen.inside, seen.calls);
        match self.kill {
            Some((Victim::Program, n)) => pid == self.program && !inside && calls == n,
            Some((Victim::FirstChild, n)) => Some(pid) == self.first_child && !inside && calls == n,
            None => false,
        }
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
        let is = |e: Event| e as i32 == event;
        if is(Event::PTRACE_EVENT_EXEC) && pid == self.program && !self.counting {
            // The shell is over. An exec is reported within its call, whose end is the next stop.
            self.counting = true;
            self.seen.entry(pid).or_default().inside = true;
        }
        let born =
            is(Event::PTRACE_EVENT_FORK) || is(Event::PTRACE_EVENT_CLONE) || is(Event::PTRACE_EVENT_VFORK);
        if born && self.first_child.is_none() {
            self.first_child = Some(Pid::from_raw(i32::try_from(ptrace::getevent(pid)?)?));
        }
        Ok(())
    }

    /// A child that outlives the program must not be ours any more. It is killed: whoever traces does not need it.
    fn ended(mut self, cut: bool, success: bool) -> Result<Ended> {
        if let Some(child) = self.first_child
            && kill(child, Signal::SIGKILL).is_ok()
        {
            while !matches!(
                waitpid(child, Some(WaitPidFlag::__WALL)),
                Err(_) | Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
            ) {}
        }
        // Reaped above: this only lets the standard library know.
        let _ = self.child.try_wait();
        let calls = self.seen.values().map(|s| s.calls).sum();
        Ok(Ended { cut, success, calls })
    }
}
