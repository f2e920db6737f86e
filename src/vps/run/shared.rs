//! The cgroup that all VPSs of a project are in, where its processors and memory are to be held for all of them together.
//!
//! A VPS is in it from its start on: what is running while a project is given or loses one stays where it is.

use oci_spec::runtime::LinuxResources;
use serde_json::json;

use crate::cgroups::{self, Cgroup};
use crate::error::{During, Result};
use crate::vps::record::instance::Condo;
use crate::vps::record::limits::{CPU_PERIOD, quota};
use crate::vps::record::name::Name;
use crate::vps::record::project::{Allowance, Project};
use crate::vps::record::store::Record;

impl Condo {
    /// Changes what a project may use, in force at once where its VPSs share a cgroup.
    ///
    /// # Errors
    /// As [`Store::change_project`]; what the kernel says to the new limits, which are recorded then, and hold from the next change
    /// or start on.
    ///
    /// [`Store::change_project`]: crate::vps::record::store::Store::change_project
    pub fn change_project(&self, name: &Name, change: &dyn Fn(Allowance) -> Result<Allowance>) -> Result<()> {
        let project = self.store.change_project(name, change)?;
        match Cgroup::open(&self.host.cgroups, &self.folders.project_cgroup(name)) {
            Ok(cgroup) => self.bound_all(&cgroup, &project.limits),
            Err(e) if e.is_gone() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The cgroup that a VPS is to be in.
    pub(super) fn place_of(&self, record: &Record) -> Result<String> {
        let shared = self.sharing(record)?.map(|project| project.name);
        Ok(self.place_in(shared.as_ref(), &record.name))
    }

    fn place_in(&self, shared: Option<&Name>, name: &Name) -> String {
        match shared {
            Some(project) => format!("{}/{name}", self.folders.project_cgroup(project)),
            None => self.folders.cgroup(name),
        }
    }

    /// Puts what its project may use in force around a VPS that has its cgroup there by now: before that, the end of another could
    /// remove the project's.
    pub(super) fn hold_project(&self, record: &Record) -> Result<()> {
        let Some(project) = self.sharing(record)? else {
            return Ok(());
        };
        let shared = self.folders.project_cgroup(&project.name);
        self.bound_all(&Cgroup::open(&self.host.cgroups, &shared)?, &project.limits)
    }

    /// Its project, if that has a cgroup for all.
    fn sharing(&self, record: &Record) -> Result<Option<Project>> {
        let project = record.config.project.as_ref();
        let project = project.map(|name| self.store.find_project(name)).transpose()?;
        Ok(project.filter(|project| project.limits.is_shared()))
    }

    /// Puts what a project may use in force.
    fn bound_all(&self, cgroup: &Cgroup, allowance: &Allowance) -> Result<()> {
        let held = allowance.is_shared();
        let cpus = allowance.cpus.filter(|_| held).map_or(-1, quota);
        let memory = allowance.memory.filter(|_| held);
        let memory = memory.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let resources: LinuxResources = serde_json::from_value(json!({
            "cpu": { "quota": cpus, "period": CPU_PERIOD }, "memory": { "limit": memory },
        }))?;
        let limits = cgroups::Limits::for_update(&resources, &self.host.cgroups)?;
        cgroup.apply(&limits).during(|| "hold what the project may use")
    }

    /// Removes what is left of the cgroup of a VPS, wherever it was, and that of its project with the last one. There may be one without
    /// a container when a start was killed in between.
    pub(super) fn clear_cgroup(&self, name: &Name, project: Option<&Name>) -> Result<()> {
        for shared in [None, project] {
            if let Ok(cgroup) = Cgroup::open(&self.host.cgroups, &self.place_in(shared, name)) {
                cgroup.kill()?;
                cgroup.remove()?;
            }
        }
        if let Some(project) = project
            && let Ok(all) = Cgroup::open(&self.host.cgroups, &self.folders.project_cgroup(project))
        {
            all.remove_if_empty();
        }
        self.tidy_cgroups();
        Ok(())
    }
}
