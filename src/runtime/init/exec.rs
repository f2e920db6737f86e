//! A further process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::console;
use super::super::lsm::Labels;
use super::announce::announce;
use super::child;
use super::link::{self, Done, Entering, Init, Joined, Parent};
use super::patience::Patience;
use super::{Newborn, born_in, step_aside};
use crate::cgroups::{self, Cgroup};
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::namespaces::{Kind, enter};
use crate::process::credentials::become_root;
use crate::process::program::Program;
use crate::process::{Process, limits, protect};
use crate::rootfs;
use crate::seccomp::{self, Agent, Answered};
use crate::sys;
use crate::sys::clone::Side;

/// How long a process may take to be inside and run its program: time enough for a busy machine, and an end for a container
/// whose processes freeze or stop whatever comes in.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the caller of `exec` asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// The process to be.
    pub process: &'a Process,
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// Its pid.
    pub init_pid: i32,
    /// The container's OCI state, for a seccomp agent.
    pub state: &'a [u8],
    /// The namespaces to join.
    pub namespaces: &'a [Kind],
    /// Those, where init hands them out itself.
    pub handed: Option<&'a [(Kind, OwnedFd)]>,
    /// Whether the container's root is not that of its mount namespace.
    pub chrooted: bool,
    /// The container's cgroup; without one the process stays in the caller's.
    pub cgroup: Option<&'a Cgroup>,
    /// Which one at or below it.
    pub place: Place,
    /// The filter of the process.
    pub seccomp: Option<&'a Answered<'a>>,
    /// Where a terminal's master goes.
    pub console: Option<OwnedFd>,
    /// Whether the caller copies the terminal to its own, see [`console::keep_newlines`].
    pub copied: bool,
    /// What is its standard input, output and error in place of ours, or of those of its terminal.
    pub streams: [Option<BorrowedFd<'a>>; 3],
    /// Where the process's pid is written.
    pub pid_file: Option<&'a Path>,
    /// A socket that gets the process's pidfd.
    pub pidfd_socket: Option<&'a Path>,
    /// Descriptors from 3 on that the process inherits.
    pub preserve_fds: u32,
    /// How long all of it may take; for ever when absent.
    pub patience: Option<Duration>,
    /// Can be read from when the caller is to give up.
    pub interrupt: Option<BorrowedFd<'a>>,
}

/// Where below a container's cgroup a process is put. Init may have moved to a cgroup below it (systemd does), and on v2 a cgroup
/// that divides its resources takes no processes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the cgroup itself.
    Exact,
    /// In the cgroup itself, where it takes processes, else with init.
    First,
    /// With init.
    BesideInit,
}

/// Starts the process and returns once its program runs.
///
/// Two clones are needed: one enters the namespaces, the other is born in the pid namespace, as our child.
pub fn exec(host: &Host, request: &Request<'_>) -> Result<Newborn> {
    limits::raise_files();
    let (parent, link) = link::pair::<Entering>()?;
    let parent = parent.with_patience(Patience::new(request.patience, request.interrupt)?.for_workers());
    let confined = request.process.affinity.begin()?;
    let (side, outside) = bear(host, request)?;
    match side {
        Side::Child => {
            drop(parent);
            enter_container(request, link)
        }
        Side::Parent { pid, pidfd } => {
            drop((link, confined));
            log::debug!("exec: process {pid} goes into the container");
            let standin = Newborn { pid, pidfd };
            if outside {
                adopt(host, request, pid)
                    .inspect_err(|_| standin.give_up())
                    .map_err(|e| not_ours(e, host))?;
            }
            let (process, link) = attend(request, &standin, parent).inspect_err(|_| standin.give_up())?;
            // Only once the program runs: a failed exec leaves no pid file. The process is our child, so that whatever
            // becomes of it, its pid is its own until we return.
            link.wait_for_exec()
                .and_then(|()| announce(&process, request.pid_file, request.pidfd_socket))
                .inspect_err(|_| process.give_up())?;
            Ok(process)
        }
    }
}

/// The first clone; the flag says that the child is outside of its cgroup.
fn bear(host: &Host, request: &Request<'_>) -> Result<(Side, bool)> {
    // What callers match is in runc's words.
    let what = || {
        let path = request
            .cgroup
            .and_then(|cgroup| cgroup.paths().into_values().next())
            .unwrap_or_default();
        format!(
            "--cgroup: adding pid of a new process to cgroups {}/cgroup.procs",
            path.display()
        )
    };
    let own = request.cgroup.and_then(Cgroup::birth);
    if own.is_none() || request.place != Place::BesideInit {
        match born_in(0, own) {
            Err(e) if request.place == Place::First && is_full(e.raw_os_error()) => {}
            other => return other.during(what),
        }
    }
    let beside = cgroups::birth_of(&host.cgroups, request.init_pid)?;
    born_in(0, beside.as_ref().map(AsFd::as_fd).or(own)).during(what)
}

/// What the kernel says of a cgroup that divides its resources, or threads, and so takes no processes.
fn is_full(errno: Option<i32>) -> bool {
    [Errno::BUSY, Errno::OPNOTSUPP]
        .iter()
        .any(|full| errno == Some(full.raw_os_error()))
}

/// Puts a process that was born outside into its cgroup.
fn adopt(host: &Host, request: &Request<'_>, pid: i32) -> Result<()> {
    let Some(cgroup) = request.cgroup else {
        return Ok(());
    };
    let beside = || cgroup.adopt_beside(&host.cgroups, request.init_pid, pid);
    match request.place {
        Place::BesideInit => beside(),
        Place::Exact => cgroup.adopt(pid),
        Place::First => match cgroup.adopt(pid) {
            Err(e) if is_full(e.errno()) => beside(),
            other => other,
        },
    }
}

/// The kernel lets an ordinary user move processes only within the tree that is the user's.
fn not_ours(e: Error, host: &Host) -> Error {
    if e.errno() != Some(Errno::ACCESS.raw_os_error()) || host.caller.privileged {
        return e;
    }
    let why = "processes are put into the container's cgroup only from within the tree that is delegated to you: call it from \
               there (systemd-run --user --scope)";
    Error::unsupported("`exec`", why)
}

fn attend(
    request: &Request<'_>,
    standin: &Newborn,
    link: Parent<Entering>,
) -> Result<(Newborn, Parent<Done>)> {
    let held = link.wait()?;
    let filter = request
        .seccomp
        .map(|filter| seccomp::compile(&filter.profile))
        .transpose()?
        .map_or(Vec::new(), |f| f.to_bytes());
    let link = held.grant(&filter)?;
    let process = Newborn::held(link.proxied()?)?;
    let work = || -> Result<Parent<Done>> {
        // It has nothing left to do, and still has to be let do it.
        link.patience().wait(standin.pidfd.as_fd())?;
        standin.reap()?;
        let held = link.wait()?;
        request.process.limits.bound(process.pid)?;
        request.process.affinity.finish(process.pid)?;
        request.process.prioritise(process.pid)?;
        held.grant(&process.pid.to_ne_bytes())
    };
    let link = work().inspect_err(|_| process.give_up())?;
    Ok((process, link))
}

/// The child's side, which never returns.
fn enter_container(request: &Request<'_>, link: Init<Entering>) -> ! {
    let Ok(reporter) = link.reporter() else {
        sys::clone::exit(1)
    };
    sys::fd::outlast(reporter.as_fd());
    child::report_panics(&reporter);
    let work = || -> Result<std::convert::Infallible> {
        request.process.limits.score_self()?;
        protect::hide()?;
        request.cgroup.map_or(Ok(()), Cgroup::enter)?;
        let (filter, link) = link.arrive()?;
        // The host's /proc is out of sight after the next line.
        let labels = Labels::of(request.process)?;
        let root = request.chrooted.then(|| root_of(request.init_pid)).transpose()?;
        match request.handed {
            Some(all) => enter::join_each(all)?,
            None => enter::join_process(request.init, request.namespaces)?,
        }
        if let Some(root) = root {
            rustix::process::fchdir(root)?;
            rustix::process::chroot(".").during(|| "change to the container's root")?;
        }
        step_aside(0, &reporter)?;
        go_on(
            request,
            Brought {
                filter: &filter,
                labels,
                agent: request.seccomp.and_then(|filter| filter.agent.as_ref()),
            },
            link,
        )
    };
    match work() {
        Err(e) => child::fail(&reporter, &e),
        Ok(never) => match never {},
    }
}

fn root_of(pid: i32) -> Result<OwnedFd> {
    let (path, flags) = (format!("/proc/{pid}/root"), OFlags::PATH | OFlags::CLOEXEC);
    rustix::fs::open(&path, flags, Mode::empty()).during(|| format!("open `{path}`"))
}

/// What a process brings from outside.
struct Brought<'a> {
    filter: &'a [u8],
    labels: Labels,
    agent: Option<&'a Agent>,
}

/// The second clone: inside, it only has to become the program.
fn go_on(
    request: &Request<'_>,
    brought: Brought<'_>,
    link: Init<Joined>,
) -> Result<std::convert::Infallible> {
    let process = request.process;
    rustix::process::setsid().during(|| "start a session")?;
    if request.namespaces.contains(&Kind::User) {
        become_root()?;
    }
    child::new_keyring(&brought.labels)?;
    if process.terminal {
        take_console(request)?;
    }
    console::replace_streams(request.streams)?;
    let mut needed = vec![link.as_fd()];
    needed.extend(brought.agent.map(AsFd::as_fd));
    let labels = brought.labels.open()?;
    child::forget_host(request.preserve_fds, needed, &labels)?;
    child::enter_directory(process)?;
    let env = child::environment_of(process, 0);
    let program = process.as_user(|| Program::find(&process.args, &env))?;
    let filter = child::received(brought.filter)?;
    process.acclimatise()?;
    let (pid, _done) = link.arrive()?;
    let pid = child::own_pid(&pid)?;
    let mut seccomp = || match &filter {
        Some(filter) => child::install(filter, brought.agent, pid, request.state),
        None => Ok(()),
    };
    child::become_process(process, &labels, request.preserve_fds, &mut seccomp)?;
    Err(program.exec())
}

fn take_console(request: &Request<'_>) -> Result<()> {
    let receiver = request.console.as_ref();
    let receiver =
        receiver.ok_or_else(|| Error::invalid("process.terminal", true, "needs --console-socket"))?;
    let master = rootfs::open_container_ptmx()?;
    let slave = rootfs::open_peer(master.as_fd())?;
    if request.copied {
        console::keep_newlines(slave.as_fd())?;
    }
    console::send_master(receiver.as_fd(), &master)?;
    console::adopt(slave.as_fd(), request.process.console_size, true)
}
