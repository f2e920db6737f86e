//! Where a container's cgroup is and who looks after it: what a later invocation needs to find it again.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dir::is_gone;
use super::systemd::{self, Placeholder, Scope};
use super::unified::Unified;
use super::{Cgroup, Limits};
use crate::error::{Error, Failures, Result};
use crate::host::{CgroupLayout, Host};

/// Who makes the cgroups of new containers (`--cgroup-manager`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// condo itself, as directories.
    #[default]
    Cgroupfs,
    /// systemd, as transient scopes.
    Systemd,
    /// Nobody: the container stays in its caller's cgroup, without limits of its own.
    Disabled,
}

/// The place of one container's cgroup. A container without a cgroup has none: `Option<Home>` throughout, and so
/// `Option<Cgroup>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Home {
    /// Directories that condo makes at this absolute path below the root of every hierarchy.
    Path(String),
    /// The scope that systemd makes.
    Scope(Box<Scope>),
}

impl Home {
    /// The scope that `linux.cgroupsPath` (`slice:prefix:name`) and the annotations `org.systemd.property.*` of the container
    /// `id` ask for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is in them, [`Error::Unsupported`] on a host without systemd or with cgroup v1.
    pub fn scope(
        host: &Host,
        cgroups_path: Option<&str>,
        id: &str,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Self> {
        let scope = Scope::plan(host, cgroups_path, id, annotations)?;
        Ok(Self::Scope(Box::new(scope)))
    }

    /// The path below the root of every hierarchy.
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Scope(scope) => scope.path(),
        }
    }

    /// Makes the cgroup, or takes one that is there and empty; [`Home::confine`] it next. A scope comes with a process that keeps it
    /// alive until [`Home::settle`].
    ///
    /// # Errors
    /// As [`Cgroup::create`]; what systemd says against a scope.
    pub fn create(&self, layout: &CgroupLayout, limits: &Limits) -> Result<(Cgroup, Option<Placeholder>)> {
        match self {
            Self::Path(path) => Ok((Cgroup::create(layout, path)?, None)),
            Self::Scope(scope) => {
                // Not ours to remove again: systemd would take it for its scope's.
                if let Ok(found) = self.open(layout) {
                    found.refuse_frozen()?;
                }
                let placeholder = scope.start(&roomy(limits))?;
                let cgroup = self.open(layout).map_err(|e| match e {
                    Error::NotFound { name, .. } => Error::Status(format!(
                        "systemd has made unit `{}`, but not as cgroup `{name}`",
                        scope.unit()
                    )),
                    e => e,
                })?;
                cgroup.refuse_frozen()?;
                enable_missing(layout, scope.path(), limits);
                Ok((cgroup, Some(placeholder)))
            }
        }
    }

    /// Puts the limits of a new container in force.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn confine(&self, cgroup: &Cgroup, limits: &Limits) -> Result<()> {
        match self {
            Self::Path(_) => cgroup.apply(limits),
            Self::Scope(_) => cgroup.apply(&systemd::rounded(&roomy(limits))),
        }
    }

    /// Init has been born: the process that kept a scope for it goes, and a limit that left no room for both is put in force.
    ///
    /// # Errors
    /// As [`Home::change`].
    pub fn settle(
        &self,
        layout: &CgroupLayout,
        placeholder: Option<Placeholder>,
        limits: &Limits,
    ) -> Result<()> {
        let shared = placeholder.is_some();
        drop(placeholder);
        match roomy(limits) {
            Cow::Owned(_) if shared => self.change(layout, limits),
            _ => Ok(()),
        }
    }

    /// Opens the cgroup that was made here.
    ///
    /// # Errors
    /// As [`Cgroup::open`].
    pub fn open(&self, layout: &CgroupLayout) -> Result<Cgroup> {
        let mut cgroup = Cgroup::open(layout, self.path())?;
        if let Self::Scope(scope) = self {
            cgroup.scope = Some(scope.clone());
        }
        Ok(cgroup)
    }

    /// Whether the processes of the cgroup that was made here stand still. Nothing but what can stop them is looked at: each `start`
    /// and `state` asks.
    ///
    /// # Errors
    /// As [`Cgroup::open`].
    pub fn is_frozen(&self, layout: &CgroupLayout) -> Result<bool> {
        Cgroup::open(&layout.freezers(), self.path())?.is_frozen()
    }

    /// Memory in use, in bytes, of the cgroup that was made here. `None` without the cgroup or the controller.
    pub fn memory_used(&self, layout: &CgroupLayout) -> Option<u64> {
        let cgroup = Cgroup::open(&layout.memories(), self.path()).ok()?;
        cgroup.memory_used()
    }

    /// Puts other limits in force.
    ///
    /// # Errors
    /// As [`Home::open`] and [`Cgroup::apply`]; what systemd says against them.
    pub fn change(&self, layout: &CgroupLayout, limits: &Limits) -> Result<()> {
        let cgroup = self.open(layout)?;
        cgroup.check_ceilings(limits)?;
        match self {
            Self::Path(_) => cgroup.apply(limits),
            Self::Scope(scope) => {
                scope.set(limits)?;
                enable_missing(layout, scope.path(), limits);
                cgroup.apply(&systemd::rounded(limits))
            }
        }
    }

    /// Ends what is in the cgroup and removes it. One that is gone already counts as removed.
    ///
    /// # Errors
    /// Whatever stays, each with its reason.
    pub fn remove(&self, layout: &CgroupLayout) -> Result<()> {
        self.remove_after(layout, || Ok(()))
    }

    /// Like [`Home::remove`], and waits in between for what has been killed to be dead.
    ///
    /// # Errors
    /// Whatever stays, each with its reason.
    pub fn remove_after(&self, layout: &CgroupLayout, wait: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut failures = Failures::default();
        let cgroup = self.open(layout);
        failures.note(cgroup.as_ref().map_or(Ok(()), kill));
        failures.note(wait());
        // Before the directory goes, which is systemd's as long as the unit is there.
        let stopped = match self {
            Self::Path(_) => Ok(()),
            Self::Scope(scope) => scope.stop(),
        };
        match (cgroup.and_then(|cgroup| cgroup.remove()), stopped) {
            // A scope without processes and directory is over, whether or not there is a bus left to say so.
            (Ok(()), Err(e)) => log::debug!("{e}"),
            (Err(left), Err(e)) if is_gone(&left) => log::debug!("{e}"),
            (removed, stopped) => {
                failures.note(stopped);
                failures.note(removed);
            }
        }
        failures.into_result()
    }

    /// Removes the cgroup unless somebody is in it: whoever made it did not come to say that it is this container's.
    ///
    /// # Errors
    /// As [`Home::remove`].
    pub fn abandon(&self, layout: &CgroupLayout) -> Result<()> {
        match self.open(layout).and_then(|cgroup| cgroup.is_populated()) {
            Ok(true) => Ok(()),
            Ok(false) => self.remove(layout),
            Err(e) if is_gone(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// systemd removes the cgroup of a scope as soon as nobody is in it, at any moment.
fn kill(cgroup: &Cgroup) -> Result<()> {
    match cgroup.kill() {
        Err(e) if is_gone(&e) => Ok(()),
        other => other,
    }
}

/// Enables the controllers of these limits that systemd knows nothing of, down to its scope. Where one cannot be had, whoever writes
/// the limit says so.
fn enable_missing(layout: &CgroupLayout, path: &str, limits: &Limits) {
    const UNKNOWN: [&str; 3] = ["hugetlb", "misc", "rdma"];
    let path = Path::new(path.trim_start_matches('/'));
    let scope = layout
        .unified()
        .and_then(|mount| Unified::find(mount, path).ok().flatten());
    let files = limits
        .settings()
        .iter()
        .map(|setting| setting.file.split('.').next());
    let needed: BTreeSet<_> = files.flatten().filter(|name| UNKNOWN.contains(name)).collect();
    for controller in needed {
        let _ = scope.as_ref().map(|scope| scope.enable(controller));
    }
}

/// Limits with room for the processes that are there while init is being born: a placeholder, and a stand-in that joins a user
/// namespace for it.
fn roomy(limits: &Limits) -> Cow<'_, Limits> {
    const TOGETHER: u64 = 3;
    limits.with("pids.max", |most| {
        let is_tight = most.parse().is_ok_and(|most: u64| most < TOGETHER);
        is_tight.then(|| TOGETHER.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_an_older_version_names_a_path() {
        let home: Option<Home> = serde_json::from_str(r#""/condo/web""#).unwrap();
        assert_eq!(home, Some(Home::Path("/condo/web".into())));
        assert_eq!(serde_json::to_string(&home).unwrap(), r#""/condo/web""#);
        assert_eq!(serde_json::from_str::<Option<Home>>("null").unwrap(), None);
    }

    #[test]
    fn a_scope_is_told_from_a_path() {
        let json = r#"{"unit":"a.scope","slice":"b.slice","path":"/b.slice/a.scope","bus":"user"}"#;
        let home: Home = serde_json::from_str(json).unwrap();
        assert!(matches!(home, Home::Scope(_)));
        assert_eq!(home.path(), "/b.slice/a.scope");
        assert_eq!(serde_json::to_string(&home).unwrap(), json);
    }

    #[test]
    fn a_limit_of_one_process_leaves_room_for_the_birth() {
        let layout = CgroupLayout::Unified("/nonexistent".into());
        let tasks = |json| {
            let limits = Limits::from_spec(&serde_json::from_str(json).unwrap(), &layout).unwrap();
            roomy(&limits).settings().last().map(|s| s.value.clone())
        };
        assert_eq!(tasks(r#"{"pids":{"limit":1}}"#).as_deref(), Some("3"));
        assert_eq!(tasks(r#"{"pids":{"limit":4}}"#).as_deref(), Some("4"));
        assert_eq!(tasks(r#"{"pids":{"limit":-1}}"#).as_deref(), Some("max"));
    }
}
