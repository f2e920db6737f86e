//! `exec`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime as oci;

use super::args::Exec;
use crate::cgroups::{Below, Cgroup};
use crate::error::{During, Error, Result};
use crate::files;
use crate::host::Host;
use crate::namespaces::user::IdMap;
use crate::namespaces::{Kind, Namespaces};
use crate::process::{Process, capabilities, credentials};
use crate::runtime::bundle;
use crate::runtime::console;
use crate::runtime::container::Container;
use crate::runtime::foreground::{self, Flows, Signals};
use crate::runtime::id::Id;
use crate::runtime::init::door;
use crate::runtime::init::exec::{self, Place, Request};
use crate::runtime::plan;
use crate::runtime::status::Status;
use crate::seccomp::Answered;
use crate::vps::run::adopt;

/// `exec`: a further process in the container.
pub(super) fn exec(host: &Host, root: &Path, args: &Exec) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    let spec = bundle::parse(&container.config()?)?;
    let adopted = adopt::is_adopted(&container);
    let mut process = process(args, spec.process().as_ref(), adopted)?.of_container(spec.linux().as_ref())?;
    if process.terminal && args.console_socket.is_none() {
        // Ours, and from the beginning: a program that asks at once must not find a terminal of no size.
        process.console_size = process.console_size.or_else(foreground::size);
    }
    let ids = IdMap::from_spec(&spec)?;
    if !ids.is_empty() {
        plan::check_user(&process, &ids)?;
    }
    let init = runnable(&container, host, args.ignore_paused)?;
    adopt::figures::tend(root, &container, None);
    let handed = handed(host, &container)?;
    // Detached too: who is asked to end while the process is not there yet has something to clear away.
    let signals = Signals::take()?;
    let given = args.console_socket.as_deref().map(console::connect).transpose()?;
    let (socket, master) = match given {
        Some(socket) => (Some(socket), None),
        None if process.terminal && args.detach => {
            let text = "cannot allocate tty if runc will detach without setting console socket";
            return Err(Error::Status(text.into()));
        }
        None if process.terminal => console::pair().map(|(ours, theirs)| (Some(theirs), Some(ours)))?,
        None => (None, None),
    };
    let below = Below::parse(&args.cgroup)?;
    let cgroup = cgroup(&container, host, &below)?;
    let filter = filter(&spec, adopted)?;
    let request = Request {
        process: &process,
        init: init.as_fd(),
        init_pid: container.state().init.map_or(0, |init| init.pid),
        state: &container.oci_state("running"),
        namespaces: &container.state().namespaces,
        handed: handed.as_deref(),
        chrooted: !Namespaces::from_spec(&spec)?.is_new(Kind::Mount),
        cgroup: cgroup.as_ref(),
        place: place(&below),
        seccomp: filter.as_ref(),
        copied: master.is_some(),
        console: socket,
        streams: [None; 3],
        pid_file: args.pid_file.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        preserve_fds: args.preserve_fds,
        // A process in a paused container starts when that is resumed, whenever that may be.
        patience: if args.ignore_paused {
            None
        } else {
            Some(exec::PATIENCE)
        },
        interrupt: Some(signals.ending()),
    };
    let made = exec::exec(host, &request)?;
    drop(request);
    let master = master.map(|ours| console::receive_fd(ours.as_fd())).transpose()?;
    if args.detach {
        return Ok(0);
    }
    foreground::wait(&made, Flows::of(master), &signals)
}

/// The namespaces of a container that waits for its start: its init is this program still, and the kernel shows those of that to the
/// machine's root alone.
fn handed(host: &Host, container: &Container) -> Result<Option<Vec<(Kind, OwnedFd)>>> {
    let is_hidden = !host.caller.admin && container.status(host) == Status::Created;
    let ask = || door::ask(&container.folder().door(), &container.state().namespaces);
    is_hidden.then(ask).transpose()
}

fn cgroup(container: &Container, host: &Host, below: &Below) -> Result<Option<Cgroup>> {
    match below.is_empty() {
        true => container.cgroup(host),
        false => container
            .need_cgroup(host, "exec --cgroup")?
            .below(below)
            .map(Some),
    }
}

/// Its filter: the container's.
fn filter(spec: &oci::Spec, adopted: bool) -> Result<Option<Answered<'_>>> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let answered = |profile| match adopted {
        true => Ok(Answered::by_agent_or_kernel(profile)),
        false => Answered::by_agent(profile),
    };
    profile.map(answered).transpose()
}

fn place(named: &Below) -> Place {
    match named.is_empty() {
        true => Place::First,
        false => Place::Exact,
    }
}

fn runnable(container: &Container, host: &Host, ignore_paused: bool) -> Result<OwnedFd> {
    match container.status(host) {
        Status::Paused if !ignore_paused => Err(Error::Status(
            "cannot exec in a paused container (use --ignore-paused to override)".into(),
        )),
        Status::Created | Status::Running | Status::Paused => container
            .init()
            .ok_or_else(|| Error::Status("cannot exec in a stopped container".into())),
        _ => Err(Error::Status("cannot exec in a stopped container".into())),
    }
}

/// The process: from its file, which may vanish once we return, or the container's own with the flags' changes. What a file does not
/// name, the container's own has.
fn process(args: &Exec, base: Option<&oci::Process>, adopted: bool) -> Result<Process> {
    if let Some(path) = &args.process {
        let raw = files::read(path)?;
        let mut process = bundle::parse_process(&raw).during(|| format!("--process `{}`", path.display()))?;
        if let Some(base) = base {
            inherit(&mut process, base);
        }
        if adopted {
            adopt::adapt(&mut process)?;
        }
        return Process::from_spec(&process);
    }
    if args.args.is_empty() {
        return Err(Error::invalid(
            "exec",
            "",
            "needs a command, or --process with a file",
        ));
    }
    let mut process = base.cloned().unwrap_or_default();
    process.set_terminal(Some(args.tty)).set_console_size(None);
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut process = Process::from_spec(&process)?;
    process.set_args(&args.args)?;
    process.add_env(&args.env)?;
    adjust(&mut process, args)?;
    Ok(process)
}

/// What belongs to the container more than to its first process.
fn inherit(process: &mut oci::Process, base: &oci::Process) {
    fn or<T: Clone>(own: &Option<T>, other: &Option<T>) -> Option<T> {
        own.clone().or_else(|| other.clone())
    }
    let capabilities = or(process.capabilities(), base.capabilities());
    let scheduler = or(process.scheduler(), base.scheduler());
    let priority = or(process.io_priority(), base.io_priority());
    let affinity = or(process.exec_cpu_affinity(), base.exec_cpu_affinity());
    let apparmor = or(process.apparmor_profile(), base.apparmor_profile());
    let selinux = or(process.selinux_label(), base.selinux_label());
    let score = process.oom_score_adj().or(base.oom_score_adj());
    process
        .set_capabilities(capabilities)
        .set_scheduler(scheduler)
        .set_io_priority(priority)
        .set_exec_cpu_affinity(affinity)
        .set_apparmor_profile(apparmor)
        .set_selinux_label(selinux)
        .set_oom_score_adj(score);
}

fn adjust(process: &mut Process, args: &Exec) -> Result<()> {
    if let Some(user) = args.user.as_deref().filter(|user| !user.is_empty()) {
        let (uid, gid) = credentials::user_and_group(user)
            .ok_or_else(|| Error::invalid("--user", user, "is not UID or UID:GID in digits"))?;
        process.credentials.uid = uid;
        process.credentials.gid = gid.unwrap_or(process.credentials.gid);
    }
    process.credentials.groups.extend(&args.additional_gids);
    for name in &args.cap {
        match capabilities::bit(name) {
            Some(bit) => process.capabilities.add(bit),
            None => log::warn!("--cap: ignoring unknown capability `{name}`"),
        }
    }
    process.no_new_privileges = args.no_new_privs.unwrap_or(process.no_new_privileges);
    process.apparmor_profile = args.apparmor.clone().or(process.apparmor_profile.take());
    process.selinux_label = args.process_label.clone().or(process.selinux_label.take());
    Ok(())
}
