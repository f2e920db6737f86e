//! The processes of a container.

use std::collections::HashSet;

use super::Container;
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::namespaces::{self, Kind};

impl Container {
    /// Its processes: those in its cgroup, or without one those in its pid namespace.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a container that has neither.
    pub fn pids(&self, host: &Host) -> Result<Vec<i32>> {
        match self.cgroup(host) {
            Err(e) if e.is_gone() => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(Some(cgroup)) => cgroup.pids(),
            Ok(None) if !self.owns_pids() => Err(Error::unsupported("`ps`", self.lacks_cgroup())),
            Ok(None) => match self.state.init.filter(|init| init.is_alive()) {
                Some(init) => namespaces::members(init.pid, Kind::Pid),
                None => Ok(Vec::new()),
            },
        }
    }

    /// Without a cgroup nobody knows all processes but the kernel, which ends those of a pid namespace with its init.
    pub(super) fn kill_through_init(&self, signal: rustix::process::Signal) -> Result<()> {
        if signal != rustix::process::Signal::KILL || !self.owns_pids() {
            let why = format!(
                "{}; only SIGKILL reaches all of its processes, and only in a pid namespace of its own",
                self.lacks_cgroup()
            );
            return Err(Error::unsupported("`kill --all`", why));
        }
        match self
            .init()
            .map(|init| rustix::process::pidfd_send_signal(&init, signal))
        {
            None | Some(Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(other) => other.during(|| "signal init"),
        }
    }
}

/// Signals those of `pids` that are in the cgroup. A number alone may belong to another process by now, even one of the host:
/// a descriptor holds on to one process, which a second look then finds in the cgroup or not.
pub(super) fn signal(cgroup: &Cgroup, pids: &[i32], wanted: rustix::process::Signal) -> Result<()> {
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
        match rustix::process::pidfd_send_signal(pidfd, wanted) {
            Err(Errno::SRCH) => {}
            other => other.during(|| format!("signal process {pid}"))?,
        }
    }
    Ok(())
}
