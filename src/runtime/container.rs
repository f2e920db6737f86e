//! A container that has been created: its status, and what can be done with it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::hooks;
use super::id::Id;
use super::init::parent::{remove_cgroup, state_json};
use super::plan::DEFAULT_CGROUP;
use super::state::{Folder, State};
use super::status::Status;
use crate::cgroups::{Cgroup, Limits};
use crate::error::{During, Error, Failures, Result};
use crate::files::{self, Lock};
use crate::host::Host;

/// How long `delete` waits for a killed init before it says so.
const DEATH: Duration = Duration::from_secs(10);
/// How long `delete` waits for another operation on the same container.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many processes are held by descriptor at once.
const HANDFUL: usize = 256;

/// One container, by its facts on disk.
#[derive(Debug, Clone)]
pub struct Container {
    folder: Folder,
    state: State,
}

impl Container {
    /// Finds a container. One that was left half-made counts as not there, but for [`delete`].
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

    /// The facts.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The config as it was at create.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.folder.config()
    }

    /// The container's cgroup, if it is still there.
    pub fn cgroup(&self, host: &Host) -> Result<Cgroup> {
        Cgroup::open(&host.cgroups, &self.state.cgroup)
    }

    /// A pidfd of init, if it lives.
    pub fn init(&self) -> Option<OwnedFd> {
        self.state.init.and_then(|init| init.open())
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
        if files::exists(&self.folder.fifo()) && self.waits() {
            return Status::Created;
        }
        match self.cgroup(host).and_then(|c| c.is_frozen()) {
            Ok(true) => Status::Paused,
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

    /// Lets init become the container's program.
    pub fn start(&self, host: &Host) -> Result<()> {
        let _lock = self.folder.lock()?;
        match self.status(host) {
            Status::Created => {}
            Status::Running | Status::Paused => {
                return Err(Error::Status("cannot start an already running container".into()));
            }
            _ => return Err(Error::Status("cannot start a container that has stopped".into())),
        }
        rustix::io::write(self.order()?, b"0").during(|| "start")?;
        files::remove_file(&self.folder.fifo())?;
        hooks::run_all("poststart", &self.state.poststart, &self.oci_state("running"));
        Ok(())
    }

    /// The OCI state with this status.
    pub fn oci_state(&self, status: &str) -> Vec<u8> {
        let pid = self.state.init.map_or(0, |init| init.pid);
        state_json(&self.state, if status == "stopped" { 0 } else { pid }, status)
    }

    /// Sends a signal to init, or to all processes.
    pub fn kill(&self, host: &Host, signal: rustix::process::Signal, all: bool) -> Result<()> {
        if all {
            return self.kill_all(host, signal);
        }
        let not_running = || Error::Status("container not running".into());
        let init = self.init().ok_or_else(not_running)?;
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
        if signal == rustix::process::Signal::KILL {
            return cgroup.kill();
        }
        cgroup
            .pids()?
            .chunks(HANDFUL)
            .try_for_each(|pids| signal_members(&cgroup, pids, signal))
    }

    /// A frozen v1 cgroup does not even die; v2 lets `SIGKILL` through by itself, where thawing does no harm.
    fn wake_for(&self, host: &Host, signal: rustix::process::Signal) -> Result<()> {
        if signal != rustix::process::Signal::KILL {
            return Ok(());
        }
        match self.cgroup(host) {
            Ok(cgroup) if cgroup.is_frozen().unwrap_or(false) => cgroup.thaw(),
            _ => Ok(()),
        }
    }

    /// Puts new limits in force: a `LinuxResources` document that changes what it names and leaves the rest.
    ///
    /// Period and quota, limit and swap depend on each other, so the new document is laid over the container's own before
    /// it is read as a whole. Device rules change only when they are named.
    pub fn update(&self, host: &Host, wanted: Value) -> Result<()> {
        let _lock = self.folder.lock()?;
        if self.status(host) == Status::Stopped {
            return Err(Error::Status("cannot update a stopped container".into()));
        }
        let mut config: Value = serde_json::from_slice(&self.config()?)?;
        let devices = wanted.get("devices").is_some();
        let resources = &mut config["linux"]["resources"];
        lay_over(resources, wanted);
        let mut effective = resources.clone();
        if !devices && let Some(fields) = effective.as_object_mut() {
            fields.remove("devices");
        }
        let effective = serde_json::from_value(effective).during(|| "resources")?;
        self.cgroup(host)?
            .apply(&Limits::for_update(&effective, &host.cgroups)?)?;
        self.folder.save_config(&serde_json::to_vec(&config)?)
    }

    /// Stops all processes where they stand.
    pub fn pause(&self, host: &Host) -> Result<()> {
        match self.status(host) {
            Status::Running | Status::Created => self.cgroup(host)?.freeze(),
            _ => Err(Error::Status("container not running or created".into())),
        }
    }

    /// Lets them go on.
    pub fn resume(&self, host: &Host) -> Result<()> {
        match self.status(host) {
            Status::Paused => self.cgroup(host)?.thaw(),
            _ => Err(Error::Status("container not paused".into())),
        }
    }
}

/// Removes a container and all that belongs to it; with `force` also one that runs, is half-made or is not there.
pub fn delete(host: &Host, root: &Path, id: &Id, force: bool) -> Result<()> {
    let folder = Folder::new(root, id);
    let _lock = match patient_lock(&folder) {
        Err(e) if e.is_gone() && force => return Ok(()),
        other => other?,
    };
    let Some(state) = folder.load()? else {
        return folder.remove();
    };
    let container = Container { folder, state };
    let status = if container.state.init.is_none() {
        Status::Stopped
    } else {
        container.status(host)
    };
    match status {
        Status::Running | Status::Paused if !force => {
            let text = format!("cannot delete container {id} that is not stopped: {status}");
            Err(Error::Status(text))
        }
        _ => container.clear(host),
    }
}

/// Signals those of `pids` that are in the cgroup. A number alone may belong to another process by now, even one of the host:
/// a descriptor holds on to one process, which a second look then finds in the cgroup or not.
fn signal_members(cgroup: &Cgroup, pids: &[i32], signal: rustix::process::Signal) -> Result<()> {
    use rustix::io::Errno;
    let mut held = Vec::new();
    for pid in pids {
        let Some(raw) = rustix::process::Pid::from_raw(*pid) else {
            continue;
        };
        match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
            // Gone, or the number is that of a thread.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => {}
            other => held.push((*pid, other.during(|| format!("hold process {pid}"))?)),
        }
    }
    let members: HashSet<i32> = cgroup.pids()?.into_iter().collect();
    for (pid, pidfd) in held.iter().filter(|(pid, _)| members.contains(pid)) {
        match rustix::process::pidfd_send_signal(pidfd, signal) {
            Err(Errno::SRCH) => {}
            other => other.during(|| format!("signal process {pid}"))?,
        }
    }
    Ok(())
}

fn patient_lock(folder: &Folder) -> Result<Lock> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Err(Error::Busy(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

impl Container {
    /// Kills, waits, removes; goes on after failures, and leaves the state when something is left to clear.
    pub(super) fn clear(&self, host: &Host) -> Result<()> {
        let mut failures = Failures::default();
        let init = self.init();
        match self.cgroup(host) {
            Ok(cgroup) => {
                if let Some(init) = &init {
                    let _ = rustix::process::pidfd_send_signal(init, rustix::process::Signal::KILL);
                    failures.note(self.wake_for(host, rustix::process::Signal::KILL));
                }
                failures.note(remove_cgroup(&cgroup));
            }
            Err(e) if e.is_gone() => {
                if let Some(init) = &init {
                    let _ = rustix::process::pidfd_send_signal(init, rustix::process::Signal::KILL);
                }
            }
            Err(e) => failures.note::<()>(Err(e)),
        }
        if let Some(init) = init {
            failures.note(wait_for_death(&init));
        }
        drop_default_parent(host, &self.state.cgroup);
        failures.into_result()?;
        self.folder.remove()?;
        hooks::run_all("poststop", &self.state.poststop, &self.oci_state("stopped"));
        Ok(())
    }
}

/// The directory for relative cgroups goes with the last of them.
fn drop_default_parent(host: &Host, cgroup: &str) {
    if Path::new(cgroup).starts_with(DEFAULT_CGROUP)
        && let Ok(parent) = Cgroup::open(&host.cgroups, DEFAULT_CGROUP)
    {
        parent.remove_if_empty();
    }
}

fn wait_for_death(init: &OwnedFd) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match rustix::event::poll(&mut [PollFd::new(&init.as_fd(), PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                let text = "init does not die: it hangs in the kernel, or the caller of `exec` has not waited for its process; try again later";
                return Err(Error::Status(text.into()));
            }
            other => return other.map(drop).during(|| "wait for init's end"),
        }
    }
}

/// Replaces what `new` names in `old`, object by object; `null` names nothing.
fn lay_over(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                lay_over(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_update_changes_what_it_names() {
        let mut old = json!({ "cpu": { "quota": 5, "period": 10 }, "pids": { "limit": 3 } });
        lay_over(
            &mut old,
            json!({ "cpu": { "quota": 7, "shares": null }, "memory": { "limit": 1 } }),
        );
        let expected = json!({ "cpu": { "quota": 7, "period": 10, "shares": null }, "pids": { "limit": 3 }, "memory": { "limit": 1 } });
        assert_eq!(old, expected);
    }
}
