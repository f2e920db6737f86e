//! cgroup v1: one directory per hierarchy, with a cgroup2 directory beside them (where it is mounted) that keeps track of
//! the processes: a child can be born into it, and it is frozen and killed as one.
//!
//! What v1 cannot do: buffered writes are not slowed down by `blkio`, device rules cannot be cut into, and only the cgroup2
//! directory can be delegated safely (`name=systemd` has no bound on the cgroups that are made below).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::below::Below;
use super::cpuset;
use super::dir::Dir;
use super::hierarchy::{Hierarchy, keyed, kill_each};
use super::stats::{self, Stats};
use super::unified::{Unified, below};
use crate::error::{Error, Result};
use crate::host;
use crate::undo::Undo;

/// How long freezing may take.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// A cgroup in all hierarchies.
#[derive(Debug)]
pub(super) struct Hybrid {
    /// Controllers and directory of each v1 hierarchy.
    v1: Vec<(Vec<String>, Dir)>,
    unified: Option<Unified>,
}

impl Hybrid {
    /// Creates the directories and their parents; the flag says whether all are new.
    pub(super) fn create(
        hierarchies: &[host::Hierarchy],
        unified: Option<&PathBuf>,
        path: &Path,
        undo: &mut Undo<'_>,
    ) -> Result<(Self, bool)> {
        if hierarchies.is_empty() && unified.is_none() {
            return Err(Error::unsupported(
                "resource control",
                "no cgroup hierarchy is mounted",
            ));
        }
        let mut all_new = true;
        let mut v1 = Vec::new();
        for hierarchy in hierarchies {
            let connect = |parent: &Dir, child: &Dir| {
                if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                    cpuset::inherit(parent, child)
                } else {
                    Ok(())
                }
            };
            let (dir, new) = Dir::create(&hierarchy.mount, path, undo, &connect)?;
            all_new &= new;
            v1.push((hierarchy.controllers.clone(), dir));
        }
        // Controllers of the cgroup2 hierarchy are enabled when a limit needs one: its other users are not ours to disturb.
        let unified = unified
            .map(|mount| Unified::create(mount, path, false, undo))
            .transpose()?;
        let unified = unified.map(|(unified, new)| {
            all_new &= new;
            unified
        });
        Ok((Self { v1, unified }, all_new))
    }

    /// Opens those of the directories that are there, if any is.
    pub(super) fn find(
        hierarchies: &[host::Hierarchy],
        unified: Option<&PathBuf>,
        path: &Path,
    ) -> Result<Option<Self>> {
        let mut v1 = Vec::new();
        for hierarchy in hierarchies {
            if let Some(dir) = Dir::find(below(&hierarchy.mount, path))? {
                v1.push((hierarchy.controllers.clone(), dir));
            }
        }
        let unified = match unified {
            Some(mount) => Unified::find(mount, path)?,
            None => None,
        };
        let found = unified.is_some() || !v1.is_empty();
        Ok(found.then_some(Self { v1, unified }))
    }

    /// The v1 directory of a controller.
    fn v1(&self, controller: &str) -> Option<&Dir> {
        self.v1
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|c| c == controller))
            .map(|(_, dir)| dir)
    }

    fn freezer(&self) -> Result<&Dir> {
        self.v1("freezer").ok_or_else(|| {
            Error::unsupported(
                "freezing",
                "neither cgroup2 nor the v1 controller `freezer` is mounted",
            )
        })
    }
}

impl Hierarchy for Hybrid {
    fn dirs(&self) -> Vec<(&str, &Dir)> {
        let v1 = self
            .v1
            .iter()
            .flat_map(|(controllers, dir)| controllers.iter().map(move |c| (c.as_str(), dir)));
        let unified = self.cgroup2().map(|dir| ("unified", dir));
        v1.chain(unified).collect()
    }

    fn place(&self, controller: &str) -> Result<&Dir> {
        if let Some(dir) = self.v1(controller) {
            return Ok(dir);
        }
        let missing =
            || Error::unsupported(format!("cgroup controller `{controller}`"), "no hierarchy has it");
        let unified = self.unified.as_ref().ok_or_else(missing)?;
        unified.enable(controller)?;
        unified.place(controller)
    }

    fn cgroup2(&self) -> Option<&Dir> {
        self.unified.as_ref().and_then(Unified::cgroup2)
    }

    fn below(&self, paths: &Below) -> Result<Box<dyn Hierarchy>> {
        let there: Vec<&str> = self.dirs().into_iter().map(|(name, _)| name).collect();
        if let Some(controller) = paths.unknown(&there) {
            let problem = "is an unknown controller on this host";
            return Err(Error::invalid("--cgroup", controller, problem));
        }
        let sub = |(controllers, dir): &(Vec<String>, Dir)| -> Result<(Vec<String>, Dir)> {
            let names: Vec<&str> = controllers.iter().map(String::as_str).collect();
            Ok((controllers.clone(), dir.sub(paths.path(&names))?))
        };
        let v1 = self.v1.iter().map(sub).collect::<Result<_>>()?;
        let unified = self.unified.as_ref();
        let unified = unified.map(|u| u.sub(paths.path(&["unified"]))).transpose()?;
        Ok(Box::new(Self { v1, unified }))
    }

    fn processes(&self) -> &Dir {
        match &self.unified {
            Some(unified) => unified.processes(),
            // `find` and the host's layout leave none without any.
            None => self.v1("freezer").unwrap_or(&self.v1[0].1),
        }
    }

    /// All v1 hierarchies, back to back: a move waits 5 to 16 ms for a grace period unless another was just made.
    fn join(&self, pid: i32) -> Result<()> {
        self.v1.iter().try_for_each(|(_, dir)| dir.join(pid))
    }

    fn enter(&self) -> Result<()> {
        self.v1.iter().try_for_each(|(_, dir)| dir.enter())
    }

    fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let unified = self.unified.as_ref();
        unified.map_or(Ok(()), |unified| unified.delegate(uid, gid))
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        if let Some(unified) = &self.unified {
            unified.set_frozen(frozen)?;
            // Who freezes by v1 means is somebody else; who thaws means all of it.
            return match self.v1("freezer") {
                Some(freezer) if !frozen => freezer.write("freezer.state", "THAWED"),
                _ => Ok(()),
            };
        }
        let freezer = self.freezer()?;
        let state = if frozen { "FROZEN" } else { "THAWED" };
        let end = Instant::now() + FREEZE_LIMIT;
        while Instant::now() < end {
            // Written again each time: a process that forked while being frozen is only seen by a new attempt.
            freezer.write("freezer.state", state)?;
            if freezer.read("freezer.state")?.trim() == state {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        freezer.write("freezer.state", "THAWED")?;
        Err(Error::Busy(format!(
            "cgroup `{}` (not all of its processes would freeze)",
            freezer.path.display()
        )))
    }

    fn is_frozen(&self) -> Result<bool> {
        if let Some(unified) = &self.unified
            && unified.is_frozen()?
        {
            return Ok(true);
        }
        // What nothing here can freeze is not frozen.
        let Some(freezer) = self.v1("freezer") else {
            return Ok(false);
        };
        // Also `FREEZING`: as long as one of its processes does not stand still.
        Ok(freezer.read("freezer.state")?.trim() != "THAWED")
    }

    fn kill(&self) -> Result<()> {
        match &self.unified {
            Some(unified) => unified.kill()?,
            None => kill_each(self)?,
        }
        // Whoever was frozen by v1 means dies only once thawed.
        match self.v1("freezer") {
            Some(freezer) => freezer.write("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    fn is_populated(&self) -> Result<bool> {
        match &self.unified {
            Some(unified) => unified.is_populated(),
            None => Ok(!self.processes().pids()?.is_empty()),
        }
    }

    fn wait_empty(&self, limit: Duration) -> Result<bool> {
        if let Some(unified) = &self.unified {
            return unified.wait_empty(limit);
        }
        let end = Instant::now() + limit;
        while self.is_populated()? {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    fn oom_kills(&self) -> Result<u64> {
        match self.v1("memory") {
            Some(dir) => Ok(keyed(&dir.read("memory.oom_control")?, "oom_kill").unwrap_or_default()),
            None => self.unified.as_ref().map_or(Ok(0), Unified::oom_kills),
        }
    }

    fn stats(&self) -> Result<Stats> {
        let mut found = match &self.unified {
            Some(unified) => unified.stats()?,
            None => Stats::default(),
        };
        let place = |controller: &str| self.v1(controller);
        stats::v1::read(&place, &mut found)?;
        Ok(found)
    }
}
