//! Running programs in a VPS.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::crowded;
use super::freeze::frozen;
use super::streams::Streams;
use super::users::{self, User};
use crate::error::{Error, Result};
use crate::files::Root;
use crate::process::{Process, inherited};
use crate::runtime::container::Container;
use crate::runtime::foreground::{self, Signals};
use crate::runtime::init::exec::{self, Place, Request};
use crate::runtime::init::minder;
use crate::runtime::init::patience::Patience;
use crate::runtime::status::Status;
use crate::runtime::{bundle, console};
use crate::seccomp::Answered;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// A program to run in a VPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment besides the VPS's own.
    pub env: BTreeMap<String, String>,
    /// `NAME`, `UID` or `UID:GID`, looked up in the VPS; root when absent.
    pub user: Option<String>,
    /// Working directory; the user's home when absent.
    pub cwd: Option<PathBuf>,
    /// Whether to give it a terminal also where ours are none.
    pub tty: bool,
}

impl Condo {
    /// Runs a program in a VPS and returns its exit status (128 and the signal's number, when one ended it).
    pub fn exec(&self, name: &Name, request: &ExecRequest) -> Result<i32> {
        let record = self.store.get(name)?;
        // What cannot be had is no more than the caller's own, as without condo.
        inherited::shed();
        let container = self.running(name)?;
        self.tend(name);
        let stopped = || Error::Status("the VPS is not running".into());
        let init = container.init().ok_or_else(stopped)?;
        let pid = container.state().init.map_or(0, |i| i.pid);
        // The trailing dot: the last component of a root must not be a link, and `/proc/PID/root` is one.
        let user = users::find(
            &Root::open(Path::new(&format!("/proc/{pid}/root/.")))?,
            request.user.as_deref(),
        )?;
        let spec = bundle::parse(&container.config()?)?;
        let streams = Streams::make(request.tty)?;
        streams.belong_to(record.uid_base.saturating_add(user.uid))?;
        let process = process(spec.process().as_ref(), request, &user, streams.terminal)?;
        let signals = Signals::take()?;
        let pair = streams.terminal.then(console::pair).transpose()?;
        let (ours, theirs) = pair.unzip();
        let cgroup = container.cgroup(&self.host)?;
        let linux = spec.linux().as_ref();
        let filter = linux
            .and_then(|l| l.seccomp().as_ref())
            .map(Answered::by_agent_or_kernel);
        let made = minder::make(
            |given_up| {
                let request = Request {
                    process: &process,
                    init: init.as_fd(),
                    init_pid: pid,
                    state: &container.oci_state("running"),
                    namespaces: &container.state().namespaces,
                    handed: None,
                    chrooted: false,
                    cgroup: cgroup.as_ref(),
                    place: Place::BesideInit,
                    seccomp: filter.as_ref(),
                    console: theirs,
                    copied: false,
                    streams: streams.theirs(),
                    pid_file: None,
                    pidfd_socket: None,
                    preserve_fds: 0,
                    patience: Some(exec::PATIENCE),
                    interrupt: Some(given_up),
                };
                let made = exec::exec(&self.host, &request);
                made.map_err(|e| crowded::explain(e, name, cgroup.as_ref()))
            },
            Patience::new(None, Some(signals.ending()))?,
        )?;
        let master = ours.map(|ours| console::receive_fd(ours.as_fd())).transpose()?;
        foreground::wait(&made, streams.relay(master), &signals).map(i32::from)
    }

    fn running(&self, name: &Name) -> Result<Container> {
        let container = self.container(name)?;
        match container.as_ref().map(|c| c.status(&self.host)) {
            Some(Status::Running) => container.ok_or_else(|| Error::Status("the VPS is not running".into())),
            Some(Status::Paused) => Err(frozen(name)),
            _ => Err(Error::Status(format!(
                "the VPS is not running; start it: condo start {name}"
            ))),
        }
    }
}

/// As the VPS's init is set up, with another program, user and environment.
fn process(
    init: Option<&oci::Process>,
    request: &ExecRequest,
    user: &User,
    terminal: bool,
) -> Result<Process> {
    let mut wanted = init.cloned().unwrap_or_default();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in wanted
        .env()
        .iter()
        .flatten()
        .filter_map(|line| line.split_once('='))
    {
        // systemd's container interface speaks to PID 1 alone.
        if !key.starts_with("container") {
            env.insert(key.into(), value.into());
        }
    }
    env.insert("HOME".into(), user.home.clone());
    env.insert(
        "USER".into(),
        user.name.clone().unwrap_or_else(|| user.uid.to_string()),
    );
    if let (true, Ok(term)) = (terminal, std::env::var("TERM")) {
        env.insert("TERM".into(), term);
    }
    env.extend(request.env.clone());
    let cwd = request.cwd.clone().unwrap_or_else(|| PathBuf::from(&user.home));
    if !cwd.is_absolute() {
        return Err(Error::invalid(
            "--workdir",
            cwd.display(),
            "must be an absolute path",
        ));
    }
    wanted
        .set_args(Some(request.args.clone()))
        .set_env(Some(
            env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        ))
        .set_terminal(Some(terminal))
        .set_cwd(cwd);
    let mut process = Process::from_spec(&wanted)?;
    // Ours are a VPS's by now. As its namespace is not ours, we could not set them from outside everywhere.
    process.limits.inherit();
    // From the beginning: a program that asks for its terminal's size at once must not find none.
    process.console_size = terminal.then(foreground::size).flatten();
    process.credentials.uid = user.uid;
    process.credentials.gid = user.gid;
    process.credentials.groups.clone_from(&user.groups);
    if user.uid != 0 {
        // An ordinary user has no privileges, but may gain what sudo and ping grant.
        process.capabilities.effective = 0;
        process.capabilities.permitted = 0;
    }
    Ok(process)
}
