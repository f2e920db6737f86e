//! A container that has been created: its status, and what can be done with it.

mod delete;
mod members;
mod update;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use super::hooks::{self, Surroundings};
use super::id::Id;
use super::state::{Folder, State};
use super::status::{Identity, Status};
use crate::cgroups::{Cgroup, Home};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::host::Host;
use crate::namespaces::Kind;

pub use delete::delete;

/// How many processes are held by descriptor at once.
const HANDFUL: usize = 256;

/// One container, by its facts on disk.
#[derive(Debug, Clone)]
pub struct Container {
    folder: Folder,
    state: State,
}

impl Container {
    /// Finds a container. One that was left half-made counts as not there, but for [`delete()`].
    pub fn load(root: &Path, id: &Id) -> Result<Self> {
        let folder = Folder::new(root, id);
        match folder.load()? {
            Some(state) => Ok(Self { folder, state }),
            None => Err(Error::NotFound {
                kind: "container",
                name: id.to_string(),
            }),
        }
    }

    /// A container that was just made.
    pub fn from_parts(folder: Folder, state: State) -> Self {
        Self { folder, state }
    }

    /// Waits until no other operation changes it.
    pub fn lock(&self) -> Result<Lock> {
        self.folder.lock()
    }

    /// Where its state is.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The lock; none of a container whose `create` holds it and has come to its hooks, one of which may be the caller.
    fn lock_or_join(&self) -> Result<Option<Lock>> {
        match self.folder.try_lock() {
            Err(Error::Busy(_)) if self.state.init.is_none() && self.state.claimed => Ok(None),
            Err(Error::Busy(_)) => self.folder.lock().map(Some),
            other => other.map(Some),
        }
    }

    /// The facts.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Notes that this process serves the container's memory, or does not any more.
    pub(super) fn serve(&self, serves: bool) -> Result<()> {
        let server = serves.then(Identity::own).transpose()?;
        let state = self.state.clone();
        self.folder.save(&State { server, ..state })
    }

    /// The config as it was at create.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.folder.config()
    }

    /// The container's cgroup, if it has one.
    ///
    /// # Errors
    /// One with [`Error::is_gone`] when it is not there any more.
    pub fn cgroup(&self, host: &Host) -> Result<Option<Cgroup>> {
        let home = self.state.cgroup.as_ref();
        home.map(|home| home.open(&host.cgroups)).transpose()
    }

    /// The container's cgroup, which `operation` cannot do without.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a container without, and as [`Container::cgroup`].
    pub fn need_cgroup(&self, host: &Host, operation: &str) -> Result<Cgroup> {
        self.cgroup(host)?
            .ok_or_else(|| Error::unsupported(format!("`{operation}`"), self.lacks_cgroup()))
    }

    fn lacks_cgroup(&self) -> String {
        format!(
            "container `{}` was created without a cgroup (`--cgroup-manager disabled`, or none was delegated to its user)",
            self.state.id
        )
    }

    /// A pidfd of init, if it lives.
    pub fn init(&self) -> Option<OwnedFd> {
        self.state.init.and_then(|init| init.open())
    }

    /// A pidfd of init; an error when it does not live.
    pub fn running_init(&self) -> Result<OwnedFd> {
        self.init().ok_or_else(not_running)
    }

    /// The status, from what is there now.
    pub fn status(&self, host: &Host) -> Status {
        let Some(init) = self.state.init else {
            return if self.folder.try_lock().is_ok() {
                Status::Stopped
            } else {
                Status::Creating
            };
        };
        if !init.is_alive() {
            return Status::Stopped;
        }
        let is_frozen = |home: &Home| home.is_frozen(&host.cgroups).unwrap_or(false);
        match &self.state.cgroup {
            Some(home) if is_frozen(home) => Status::Paused,
            _ if files::exists(&self.folder.fifo()) && self.waits() => Status::Created,
            _ => Status::Running,
        }
    }

    /// Whether init still holds the fifo open: `start` may have died between its order and the removal.
    fn waits(&self) -> bool {
        self.order().is_ok()
    }

    /// The fifo's writing end; `ENXIO` when nobody waits at the other.
    fn order(&self) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.folder.fifo(), flags, Mode::empty())?)
    }

    /// Lets init become the container's program, and runs the poststart hooks.
    ///
    /// # Errors
    /// Also those of startContainer and poststart hooks. The container is gone then, as the spec has it.
    pub fn start(&self, host: &Host) -> Result<()> {
        let lock = self.folder.lock()?;
        self.check_created(host)?;
        let order = self.order()?;
        let answer = self.answer()?;
        log::debug!("container `{}`: init is told to start", self.state.id);
        rustix::io::write(&order, b"0").during(|| "start")?;
        drop(order);
        files::remove_file(&self.folder.fifo())?;
        if !host.caller.admin {
            files::remove_file(&self.folder.door())?;
        }
        // The hooks may use the runtime, and those inside may take their time.
        drop(lock);
        self.run_hooks(answer).inspect_err(|_| self.give_up(host))
    }

    fn check_created(&self, host: &Host) -> Result<()> {
        let text = match self.status(host) {
            Status::Created => return Ok(()),
            Status::Running => "cannot start an already running container",
            Status::Paused => "cannot start a container in the paused state",
            _ => "cannot start a container that has stopped",
        };
        Err(Error::Status(text.into()))
    }

    /// The fifo's reading end. Init may answer the order with what went wrong; by its end it lets go of the fifo.
    fn answer(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(
            self.folder.fifo(),
            flags,
            Mode::empty(),
        )?))
    }

    fn run_hooks(&self, answer: File) -> Result<()> {
        if self.state.start_hooks {
            hear(answer)?;
        }
        let around = Surroundings::of_bundle(&self.state.bundle);
        hooks::run(
            "poststart",
            &self.state.poststart,
            &self.oci_state("running"),
            around,
        )
    }

    fn give_up(&self, host: &Host) {
        let ended = self.folder.lock().and_then(|_lock| self.clear(host));
        if let Err(e) = ended {
            log::warn!("clean-up after a failed hook is incomplete: {e}");
        }
    }

    /// The OCI state with this status.
    pub fn oci_state(&self, status: &str) -> Vec<u8> {
        let pid = self.state.init.map_or(0, |init| init.pid);
        self.state.oci(if status == "stopped" { 0 } else { pid }, status)
    }

    /// Sends a signal to init, or to all processes.
    pub fn kill(&self, host: &Host, signal: rustix::process::Signal, all: bool) -> Result<()> {
        let outlives = || self.state.cgroup.is_some() && !self.owns_pids();
        let all = all || signal == rustix::process::Signal::KILL && outlives();
        let whom = if all { "all processes" } else { "init" };
        log::debug!(
            "container `{}`: signal {} to {whom}",
            self.state.id,
            signal.as_raw()
        );
        if all {
            return self.kill_all(host, signal);
        }
        let init = self.running_init()?;
        match rustix::process::pidfd_send_signal(&init, signal) {
            Err(rustix::io::Errno::SRCH) => Err(not_running()),
            other => other.during(|| "signal init"),
        }?;
        self.wake_for(host, signal)
    }

    fn kill_all(&self, host: &Host, signal: rustix::process::Signal) -> Result<()> {
        let cgroup = match self.cgroup(host) {
            // Nothing can run in a cgroup that is gone.
            Err(e) if e.is_gone() => return Ok(()),
            other => other?,
        };
        let Some(cgroup) = cgroup else {
            return self.kill_through_init(signal);
        };
        if signal == rustix::process::Signal::KILL {
            return cgroup.kill();
        }
        cgroup
            .pids()?
            .chunks(HANDFUL)
            .try_for_each(|pids| members::signal(&cgroup, pids, signal))
    }

    /// Whether its processes end with init, which is the first of a pid namespace that was made for it.
    fn owns_pids(&self) -> bool {
        self.state.namespaces.contains(&Kind::Pid) && !self.joins_pids().unwrap_or(false)
    }

    fn joins_pids(&self) -> Result<bool> {
        let config: serde_json::Value = serde_json::from_slice(&self.config()?)?;
        let namespaces = config["linux"]["namespaces"].as_array();
        let mut pids = namespaces.into_iter().flatten().filter(|n| n["type"] == "pid");
        Ok(pids.any(|n| n["path"].as_str().is_some_and(|path| !path.is_empty())))
    }

    /// A frozen v1 cgroup does not even die; v2 lets `SIGKILL` through by itself, where thawing does no harm.
    fn wake_for(&self, host: &Host, signal: rustix::process::Signal) -> Result<()> {
        if signal != rustix::process::Signal::KILL {
            return Ok(());
        }
        match self.cgroup(host) {
            Ok(Some(cgroup)) if cgroup.is_frozen().unwrap_or(false) => cgroup.thaw(),
            _ => Ok(()),
        }
    }

    /// Stops all processes where they stand.
    pub fn pause(&self, host: &Host) -> Result<()> {
        match self.status(host) {
            Status::Running | Status::Created => self.need_cgroup(host, "pause")?.freeze(),
            _ => Err(Error::Status("container not running or created".into())),
        }
    }

    /// Lets them go on.
    pub fn resume(&self, host: &Host) -> Result<()> {
        match self.status(host) {
            Status::Paused => self.need_cgroup(host, "resume")?.thaw(),
            _ => Err(Error::Status("container not paused".into())),
        }
    }
}

/// Waits until init has closed the fifo, as it does by becoming the program, and says what it wrote there.
fn hear(mut answer: File) -> Result<()> {
    let hangup = |answer: &File| {
        let mut fds = [PollFd::new(answer, PollFlags::empty())];
        rustix::event::poll(&mut fds, None).map(drop)
    };
    while let Err(e) = hangup(&answer) {
        if e != rustix::io::Errno::INTR {
            return Err(e).during(|| "wait for the startContainer hooks");
        }
    }
    let mut said = String::new();
    answer
        .read_to_string(&mut said)
        .during(|| "read what init says")?;
    // The order itself, of an init that was killed before it read it.
    match said.trim_start_matches('0') {
        "" => Ok(()),
        said => Err(Error::Init(said.into())),
    }
}

/// Engines match this text.
fn not_running() -> Error {
    Error::Status("container not running".into())
}
