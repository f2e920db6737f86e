//! Resource control: a container's cgroup, its limits, and what it has used.
//!
//! [`Limits`] is a pure table, made from a spec before anything happens; [`Cgroup`] writes it. Cgroup v2 is the design;
//! hosts that still mount v1 controllers are served by a second implementation of the same trait, so that limits hold there
//! too. Each controller has a file of its own that turns OCI values into [`Setting`]s.
//!
//! # Life of a cgroup
//! ```text
//!  Limits::from_spec      before anything is made: what this host cannot hold is refused
//!  Home::create           systemd's scope, or
//!  Cgroup::create         directories; with cgroup v2 all controllers enabled on the way
//!  apply                  limits stand before the first process
//!  clone3 into birth()    joining later waits 5 to 16 ms for an RCU grace period
//!  enter                  v1 hierarchies, by the child itself, which waits for nothing; nothing to do on v2
//!  freeze thaw stats …
//!  kill, remove           whatever the tenant made below goes too
//! ```

mod below;
mod cpu;
mod cpuset;
pub mod delegated;
mod device_program;
mod devices;
mod dir;
mod guard;
mod hierarchy;
mod home;
mod hugetlb;
mod hybrid;
mod io;
mod limits;
mod members;
mod memory;
mod network;
mod own;
mod pids;
mod rdma;
mod resctrl;
mod setting;
mod share;
mod stats;
mod systemd;
mod unified;
mod verbatim;

pub use below::Below;
pub use cpuset::Cpuset;
pub use devices::{Kind as DeviceKind, Rule as DeviceRule, default_devices};
pub use guard::can_bound_tables;
pub use home::{Home, Manager};
pub use limits::Limits;
pub use own::mount_cgroup2;
pub use resctrl::Allocation;
pub use setting::{Missing, Setting};
pub use share::{Share, Stall};
pub use stats::{Cpu, Device, Hugetlb, Memory, MemoryEvents, MemoryParts, Pids, Stats};
pub use systemd::{Bus, Placeholder, Property, Scope};
pub use unified::birth_of;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::error::{During, Error, Failures, Result};
use crate::host::CgroupLayout;
use crate::undo::Undo;
use hierarchy::Hierarchy;
use hybrid::Hybrid;
use unified::Unified;

/// A parent may go between our making it and its child: another invocation that removed its last cgroup there tidies up
/// ([`Cgroup::remove_if_empty`]).
const CREATE_ATTEMPTS: u32 = 10;

/// A cgroup, in however many directories this host wants it.
///
/// Dropping it does nothing to the cgroup: it lives until [`Cgroup::remove`].
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    hierarchy: Box<dyn Hierarchy>,
    /// Whose it is, if it is not ours.
    scope: Option<Box<Scope>>,
}

impl Cgroup {
    /// Creates the cgroup at an absolute path such as `/condo/web`, with missing parents. With cgroup v2, every controller
    /// that is there is enabled on the way. One that is there already is taken as it is, if it is empty.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that is no such path, for a parent with processes of its own (cgroup v2 refuses to
    /// divide it), and for a cgroup that is in use or frozen. What was made until then is gone again.
    pub fn create(layout: &CgroupLayout, path: &str) -> Result<Self> {
        until_it_stays(|| {
            let (cgroup, new) = Self::create_or_open(layout, path)?;
            // What callers match is in runc's words.
            if !new && cgroup.is_populated()? {
                let problem = "is in use: container's cgroup is not empty";
                return Err(Error::invalid("cgroup path", path, problem));
            }
            Ok(cgroup)
        })
    }

    /// What is born in a frozen cgroup stands still, and on v1 does not even die.
    fn refuse_frozen(&self) -> Result<()> {
        if self.is_frozen()? {
            let problem = "cannot be used: container's cgroup unexpectedly frozen; thaw it (and those above it), or name another";
            return Err(Error::invalid("cgroup path", &self.path, problem));
        }
        Ok(())
    }

    /// The cgroup with all its directories; the flag says whether it is new.
    fn create_or_open(layout: &CgroupLayout, path: &str) -> Result<(Self, bool)> {
        let checked = check(path)?;
        let mut undo = Undo::new();
        let (hierarchy, new): (Box<dyn Hierarchy>, bool) = match layout {
            CgroupLayout::Unified(mount) => {
                let (unified, new) = Unified::create(mount, checked, true, &mut undo)?;
                (Box::new(unified), new)
            }
            CgroupLayout::Hybrid { v1, unified } => {
                let (hybrid, new) = Hybrid::create(v1, unified.as_ref(), checked, &mut undo)?;
                (Box::new(hybrid), new)
            }
        };
        let cgroup = Self {
            path: path.to_owned(),
            hierarchy,
            scope: None,
        };
        cgroup.refuse_frozen()?;
        undo.disarm();
        Ok((cgroup, new))
    }

    /// A cgroup below this one, which must be there.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not, [`Error::Invalid`] for a controller that has no path of its own here.
    pub fn below(&self, paths: &Below) -> Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            scope: self.scope.clone(),
            hierarchy: self.hierarchy.below(paths)?,
        })
    }

    /// Opens a cgroup made earlier. On a hybrid host one of its directories is enough, so that remains can be removed.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub fn open(layout: &CgroupLayout, path: &str) -> Result<Self> {
        let checked = check(path)?;
        let found: Option<Box<dyn Hierarchy>> = match layout {
            CgroupLayout::Unified(mount) => Unified::find(mount, checked)?.map(|u| Box::new(u) as _),
            CgroupLayout::Hybrid { v1, unified } => {
                Hybrid::find(v1, unified.as_ref(), checked)?.map(|h| Box::new(h) as _)
            }
        };
        let path = path.to_owned();
        match found {
            Some(hierarchy) => Ok(Self {
                path,
                hierarchy,
                scope: None,
            }),
            None => Err(Error::NotFound {
                kind: "cgroup",
                name: path,
            }),
        }
    }

    /// Puts limits in force. Every controller is tried; those whose limit does not hold are reported, each with file and value.
    ///
    /// Lowering memory below what is in use makes the kernel reclaim, and on v2 then kill, unless the spec says
    /// `checkBeforeUpdate`; v1 refuses with `EBUSY`.
    ///
    /// # Errors
    /// [`Error::Invalid`] from `checkBeforeUpdate`, before anything is written; [`Error::Unsupported`] for a file this kernel
    /// does not have; what the kernel says otherwise; [`Error::Several`] when more than one controller fails.
    pub fn apply(&self, limits: &Limits) -> Result<()> {
        self.check_ceilings(limits)?;
        let mut errors = Vec::new();
        for group in limits
            .settings()
            .chunk_by(|a, b| a.controller() == b.controller())
        {
            let place = self.hierarchy.place(group[0].controller());
            errors.extend(place.and_then(|dir| dir.set_all(group)).err());
        }
        if let (Some(rules), Some(dir)) = (limits.device_rules(), self.hierarchy.cgroup2()) {
            let result = device_program::enforce(dir.as_fd(), rules);
            errors.extend(result.during(|| format!("cgroup `{}`", self.path)).err());
        }
        // Not `Failures`: a file that is not there is no success here.
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }

    /// What `checkBeforeUpdate` asks for.
    fn check_ceilings(&self, limits: &Limits) -> Result<()> {
        let mut ceilings = limits.ceilings().iter();
        ceilings.try_for_each(|ceiling| self.check_ceiling(ceiling))
    }

    fn check_ceiling(&self, ceiling: &memory::Ceiling) -> Result<()> {
        let dir = self.hierarchy.place("memory")?;
        let number = |file: &str| dir.read(file).map(|text| text.trim().parse().unwrap_or(0));
        let used: u64 = number(ceiling.file)?;
        // What callers match is in runc's words.
        let refuse = |what: &str, limit: u64, used: u64, words: &str| {
            let problem = format!("is below the {used} bytes in use: rejecting memory{words} limit");
            Err(Error::invalid(
                format!("linux.resources.memory.{what}"),
                limit,
                problem,
            ))
        };
        if let Some(limit) = ceiling.with_swap {
            let used = used + number("memory.swap.current").unwrap_or(0);
            if used > limit {
                return refuse("swap", limit, used, "+swap");
            }
        }
        match used > ceiling.limit {
            true => refuse("limit", ceiling.limit, used, ""),
            false => Ok(()),
        }
    }

    /// Does `work`, which lowers the memory limit, once the kernel has taken back memory until no more than `bytes` are in use, and
    /// while it holds those who want more: a limit alone would make it kill.
    ///
    /// On v1 `work` is all there is, because the kernel refuses a limit that does not fit instead of killing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when more than that is in use for good, before any work; and what `work` says.
    pub fn squeezed<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let dir = self.hierarchy.place("memory")?;
        if !dir.has("memory.high") {
            return work();
        }
        // Writing the soft limit reclaims there and then, and kills nobody; it is not to stay.
        let before = dir.read("memory.high")?;
        dir.write("memory.high", &bytes.to_string())?;
        let ceiling = memory::Ceiling {
            file: "memory.current",
            limit: bytes,
            with_swap: None,
        };
        let done = self.check_ceiling(&ceiling).and_then(|()| work());
        dir.write("memory.high", before.trim())?;
        done
    }

    /// Lets a user (the container's root, as the host knows it) make sub-cgroups, which systemd as PID 1 needs: the directory
    /// and only the files in `/sys/kernel/cgroup/delegate` change owner, so that the limits themselves stay out of reach.
    ///
    /// How many cgroups are made below the cgroup2 directory, and how deep, is bounded. On a hybrid host it is given that
    /// directory alone: no v1 hierarchy has such a bound, and v1 controllers cannot be delegated safely.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        self.hierarchy.delegate(uid, gid)
    }

    /// Stops all processes, and waits (10 s at most) until they stand still.
    ///
    /// # Errors
    /// [`Error::Busy`] when one would not; they run again then.
    pub fn freeze(&self) -> Result<()> {
        self.hierarchy.set_frozen(true)
    }

    /// Lets all processes continue.
    pub fn thaw(&self) -> Result<()> {
        self.hierarchy.set_frozen(false)
    }

    /// Whether all processes are stopped by [`Cgroup::freeze`].
    pub fn is_frozen(&self) -> Result<bool> {
        self.hierarchy.is_frozen()
    }

    /// Sends `SIGKILL` to all processes here and below, in one step where the kernel can (5.14). It does not wait for their end.
    pub fn kill(&self) -> Result<()> {
        self.hierarchy.kill()
    }

    /// All processes here and below, as pids of the caller's pid namespace.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.hierarchy.processes().pids()
    }

    /// Whether there are processes here or below.
    pub fn is_populated(&self) -> Result<bool> {
        self.hierarchy.is_populated()
    }

    /// Waits until no process is left; `false` when some are after `limit`.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool> {
        self.hierarchy.wait_empty(limit)
    }

    /// How often the kernel ended a process here because memory ran out: asked before a death is called mysterious.
    pub fn oom_kills(&self) -> Result<u64> {
        self.hierarchy.oom_kills()
    }

    /// What has been used.
    ///
    /// # Errors
    /// One with [`Error::is_gone`] when the cgroup was removed.
    pub fn stats(&self) -> Result<Stats> {
        if !self.hierarchy.processes().has("cgroup.procs") {
            return Err(Error::NotFound {
                kind: "cgroup",
                name: self.path.clone(),
            });
        }
        self.hierarchy.stats()
    }

    /// Memory in use, in bytes: one file of the dozens that [`Cgroup::stats`] reads. `None` without the controller.
    pub fn memory_used(&self) -> Option<u64> {
        let dir = self.hierarchy.place("memory").ok()?;
        let text = dir
            .read("memory.current")
            .or_else(|_| dir.read("memory.usage_in_bytes"));
        text.ok()?.trim().parse().ok()
    }

    /// Removes the cgroup with all sub-cgroups a tenant made; nothing above it. One that is gone already counts as removed.
    ///
    /// # Errors
    /// `EBUSY` when processes are left after 2 s: [`Cgroup::kill`] them first.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Failures::default();
        for (_, dir) in self.hierarchy.dirs() {
            failures.note(dir.remove());
        }
        failures.into_result()
    }

    /// Removes the cgroup if there is nothing in it, neither processes nor sub-cgroups: a parent, after its last child. What
    /// stays is no harm, so there is nothing to report.
    pub fn remove_if_empty(&self) {
        for (_, dir) in self.hierarchy.dirs() {
            if let Err(e) = dir.remove_if_empty() {
                log::debug!("{e}");
            }
        }
    }

    /// The directories, for `state.json`: by v1 controller, with `unified` for the cgroup2 beside them; cgroup v2 alone has
    /// one, under the empty name.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.hierarchy
            .dirs()
            .into_iter()
            .map(|(name, dir)| (name.to_owned(), dir.path.clone()))
            .collect()
    }
}

/// Repeats what fails because a cgroup went meanwhile.
fn until_it_stays<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..CREATE_ATTEMPTS {
        match work() {
            Err(e) if dir::is_gone(&e) => {}
            other => return other,
        }
    }
    work()
}

/// Absolute, below the root, and nothing in it that would lead elsewhere.
fn check(path: &str) -> Result<&Path> {
    let normal = |p: &Path| p.components().skip(1).all(|c| matches!(c, Component::Normal(_)));
    let checked = Path::new(path);
    if checked.is_absolute()
        && checked.parent().is_some()
        && normal(checked)
        && !path.contains(char::is_control)
    {
        return Ok(checked);
    }
    Err(Error::invalid(
        "cgroup path",
        path.escape_default(),
        "must be absolute, below the root and without `..`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_pass() {
        for good in ["/condo", "/condo/web", "/a//b/"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "condo", "/../x", "/a/../b", "/a\n", "//"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_cgroup_is_gone() {
        let layout = CgroupLayout::Unified(std::env::temp_dir());
        let e = Cgroup::open(&layout, "/condo-not-there").unwrap_err();
        assert!(e.is_gone());
    }
}
