//! How processes come into a cgroup: born there, by themselves, or moved.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::dir::Dir;
use super::{Cgroup, unified, until_it_stays};
use crate::error::{During, Error, Result};
use crate::host::CgroupLayout;

impl Cgroup {
    /// Moves the calling process, which has one thread, into a cgroup it may share with others of its kind; the cgroup is
    /// created as by [`Cgroup::create`] when it is missing. The last to go has it removed by [`Cgroup::remove_if_empty`].
    ///
    /// # Errors
    /// As [`Cgroup::create`] and [`Cgroup::adopt`].
    pub fn retreat(layout: &CgroupLayout, path: &str) -> Result<()> {
        until_it_stays(|| {
            let cgroup = Self::refuge(layout, path)?;
            if let Some(dir) = cgroup.hierarchy.cgroup2()
                && !cgroup.is_ours()
            {
                dir.write("cgroup.procs", "0")?;
            }
            cgroup.enter()
        })
    }

    /// The cgroup that [`Cgroup::retreat`] moves to. A process that is born in it ([`Cgroup::birth`]) saves the 5 to 16 ms that
    /// a write to `cgroup.procs` waits.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn refuge(layout: &CgroupLayout, path: &str) -> Result<Self> {
        Ok(Self::create_or_open(layout, path)?.0)
    }

    /// Whether the calling process is in it, in cgroup2 (`0::` of `/proc/self/cgroup`, `cgroups(7)`).
    pub fn is_ours(&self) -> bool {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        own.lines()
            .any(|line| line.strip_prefix("0::") == Some(self.path.as_str()))
    }

    /// The cgroup2 directory for `CLONE_INTO_CGROUP`; `None` on a host with v1 alone.
    pub fn birth(&self) -> Option<BorrowedFd<'_>> {
        self.hierarchy.cgroup2().map(AsFd::as_fd)
    }

    /// Moves a process that was born in [`Cgroup::birth`] into the v1 hierarchies; on a cgroup v2 host it is there already.
    ///
    /// # Errors
    /// `ESRCH` when the process is gone, `EINVAL` for a v1 cgroup without realtime budget and a realtime process.
    pub fn join(&self, pid: i32) -> Result<()> {
        self.hierarchy
            .join(pid)
            .during(|| format!("move process `{pid}` into cgroup `{}`", self.path))
    }

    /// Moves the calling process, born in [`Cgroup::birth`] and of one thread, into the v1 hierarchies without the wait that
    /// [`Cgroup::join`] may cost. Call it before joining a user namespace: the files belong to the host's root.
    ///
    /// # Errors
    /// As [`Cgroup::join`].
    pub fn enter(&self) -> Result<()> {
        self.hierarchy
            .enter()
            .during(|| format!("enter cgroup `{}`", self.path))
    }

    /// Moves a process in from anywhere, in all hierarchies (slower than being born there). Who may not do so himself, because the
    /// process comes from a cgroup of somebody else's, has it done by the systemd whose scope this is.
    ///
    /// # Errors
    /// As [`Cgroup::join`], and `EBUSY` for a cgroup2 directory with controllers enabled for its children.
    pub fn adopt(&self, pid: i32) -> Result<()> {
        if let Some(dir) = self.hierarchy.cgroup2() {
            self.move_into(dir, pid)?;
        }
        self.join(pid)
    }

    /// Like [`Cgroup::adopt`], into the cgroup at or below this one that the process `beside` is in by now.
    ///
    /// # Errors
    /// As [`Cgroup::adopt`] and [`super::birth_of`].
    pub fn adopt_beside(&self, layout: &CgroupLayout, beside: i32, pid: i32) -> Result<()> {
        if let Some(path) = unified::place_of(layout, beside)? {
            self.move_into(&Dir::open(path)?, pid)?;
        }
        self.join(pid)
    }

    fn move_into(&self, dir: &Dir, pid: i32) -> Result<()> {
        let denied = |e: &Error| {
            matches!(
                e.errno().map(Errno::from_raw_os_error),
                Some(Errno::ACCESS | Errno::PERM)
            )
        };
        match (dir.join(pid), &self.scope) {
            (Err(e), Some(scope)) if denied(&e) => {
                let path = dir.path.to_string_lossy();
                let below = path.split_once(scope.path()).map_or("", |(_, below)| below);
                scope.attach(if below.is_empty() { "/" } else { below }, pid)
            }
            (other, _) => other,
        }
    }
}
