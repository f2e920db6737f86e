//! `delete`: a container and all that belongs to it go, whatever state it is in.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Container;
use crate::cgroups::{Cgroup, Home};
use crate::error::{During, Error, Failures, Result};
use crate::files::Lock;
use crate::host::Host;
use crate::rootfs;
use crate::runtime::hooks::{self, Surroundings};
use crate::runtime::id::Id;
use crate::runtime::plan::DEFAULT_CGROUP;
use crate::runtime::state::Folder;
use crate::runtime::status::{Identity, Status};

/// How long `delete` waits for a killed init before it says so.
const DEATH: Duration = Duration::from_secs(10);

/// How long `delete` waits for another operation on the same container.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes a container and all that belongs to it; with `force` also one that runs, is half-made or is not there.
pub fn delete(host: &Host, root: &Path, id: &Id, force: bool) -> Result<()> {
    let folder = Folder::new(root, id);
    if force && matches!(folder.try_lock(), Err(Error::Busy(_))) && folder.waits_for_us() {
        return folder.call_off();
    }
    // It may go between the two: the lock's file is made anew by whoever waits for it.
    let found = patient_lock(&folder, force).and_then(|lock| Ok((lock, folder.load()?)));
    let (_lock, state) = match found {
        Err(e) if e.is_gone() && force => return Ok(()),
        other => other?,
    };
    let Some(state) = state else {
        folder.release_ids(None)?;
        return folder.remove();
    };
    let container = Container { folder, state };
    if force || container.state.init.is_none() {
        return container.clear(host);
    }
    match container.status(host) {
        status @ (Status::Running | Status::Paused) => {
            let text = format!("cannot delete container {id} that is not stopped: {status}");
            Err(Error::Status(text))
        }
        _ => container.clear(host),
    }
}

fn patient_lock(folder: &Folder, force: bool) -> Result<Lock> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Err(Error::Busy(_)) if folder.waits_for_us() => return folder.lock(),
            Err(Error::Busy(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
        if force {
            end_serving(folder)?;
        }
    }
}

/// Has a checkpoint give up whose pages nobody may ever fetch. It lets go of the processes first: killed while CRIU traces them, they
/// would not end.
fn end_serving(folder: &Folder) -> Result<()> {
    let state = match folder.load() {
        Err(e) if e.is_gone() => return Ok(()),
        other => other?,
    };
    let server = state
        .and_then(|state| state.server)
        .and_then(|server| server.open());
    if let Some(server) = server {
        let _ = rustix::process::pidfd_send_signal(&server, rustix::process::Signal::TERM);
    }
    Ok(())
}

impl Container {
    /// Kills, waits, removes; goes on after failures, and leaves the state when something is left to clear.
    ///
    /// Init's end is waited for before its cgroup is removed: until then the kernel refuses that.
    pub(in crate::runtime) fn clear(&self, host: &Host) -> Result<()> {
        if !self.state.claimed {
            return self.forget(host);
        }
        log::debug!("container `{}` is cleared away", self.state.id);
        let mut failures = Failures::default();
        let init = self.init();
        if let Some(init) = &init {
            let _ = rustix::process::pidfd_send_signal(init, rustix::process::Signal::KILL);
        }
        let dead = || init.as_ref().map_or(Ok(()), wait_for_death);
        match &self.state.cgroup {
            Some(home) => failures.note(home.remove_after(&host.cgroups, dead)),
            None => {
                if !self.owns_pids() {
                    log::warn!(
                        "{}, nor a pid namespace of its own: only its init was ended",
                        self.lacks_cgroup()
                    );
                }
                failures.note(dead());
            }
        }
        if let Some(mount) = self.state.covered_by {
            failures.note(rootfs::uncover(&self.state.rootfs, mount));
        }
        if let Some(allocation) = &self.state.resctrl {
            failures.note(allocation.remove());
        }
        drop_default_parent(host, self.state.cgroup.as_ref());
        failures.into_result()?;
        self.end_telling();
        self.release_ids()?;
        self.folder.remove()?;
        let around = Surroundings::of_bundle(&self.state.bundle);
        hooks::run_all(
            "poststop",
            &self.state.poststop,
            &self.oci_state("stopped"),
            around,
        );
        Ok(())
    }
}

impl Container {
    /// What is left of a `create` that ended before it knew that its cgroup is its own, which may be another container's.
    fn forget(&self, host: &Host) -> Result<()> {
        if let Some(home) = &self.state.cgroup {
            home.abandon(&host.cgroups)?;
        }
        drop_default_parent(host, self.state.cgroup.as_ref());
        self.release_ids()?;
        self.folder.remove()
    }

    /// Who tells its figures ends with init. An engine removes the cgroup of its own process next, and in that they are.
    fn end_telling(&self) {
        let tellers = self.folder.tellers();
        for teller in tellers.iter().filter_map(Identity::open) {
            let _ = rustix::process::pidfd_send_signal(&teller, rustix::process::Signal::KILL);
            // Nothing else depends on it.
            let _ = wait_for_death(&teller);
        }
    }

    /// When none of its processes has them any more.
    fn release_ids(&self) -> Result<()> {
        let held = self.state.ids;
        held.map_or(Ok(()), |held| self.folder.release_ids(Some(held)))
    }
}

/// The directory for relative cgroups goes with the last of them.
fn drop_default_parent(host: &Host, cgroup: Option<&Home>) {
    let name = DEFAULT_CGROUP.trim_start_matches('/');
    let above = cgroup.and_then(|home| Path::new(home.path()).parent());
    let default = above.and_then(|dir| dir.ancestors().find(|dir| dir.ends_with(name)));
    if let Some(path) = default.and_then(Path::to_str)
        && let Ok(parent) = Cgroup::open(&host.cgroups, path)
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
