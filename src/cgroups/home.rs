//! Where a container's cgroup is and who looks after it: what a later invocation needs to find it again.

use serde::{Deserialize, Serialize};

use super::{Cgroup, Limits};
use crate::error::{Failures, Result};
use crate::host::CgroupLayout;

/// Who makes the cgroups of new containers (`--cgroup-manager`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// condo itself, as directories.
    #[default]
    Cgroupfs,
    /// Nobody: the container stays in its caller's cgroup, without limits of its own.
    Disabled,
}

/// The place of one container's cgroup. A container without a cgroup has none: `Option<Home>` throughout, and so
/// `Option<Cgroup>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Home {
    /// Directories that condo makes at this absolute path below the root of every hierarchy.
    Path(String),
}

impl Home {
    /// The path below the root of every hierarchy.
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) => path,
        }
    }

    /// Makes the cgroup, or takes one that is there and empty.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn create(&self, layout: &CgroupLayout) -> Result<Cgroup> {
        match self {
            Self::Path(path) => Cgroup::create(layout, path),
        }
    }

    /// Opens the cgroup that was made here.
    ///
    /// # Errors
    /// As [`Cgroup::open`].
    pub fn open(&self, layout: &CgroupLayout) -> Result<Cgroup> {
        Cgroup::open(layout, self.path())
    }

    /// Puts other limits in force.
    ///
    /// # Errors
    /// As [`Home::open`] and [`Cgroup::apply`].
    pub fn change(&self, layout: &CgroupLayout, limits: &Limits) -> Result<()> {
        self.open(layout)?.apply(limits)
    }

    /// Ends what is in the cgroup. One that is gone has nothing in it.
    ///
    /// # Errors
    /// As [`Cgroup::kill`].
    pub fn kill(&self, layout: &CgroupLayout) -> Result<()> {
        match self.open(layout) {
            Err(e) if e.is_gone() => Ok(()),
            other => other?.kill(),
        }
    }

    /// Ends what is in the cgroup and removes it. One that is gone already counts as removed.
    ///
    /// # Errors
    /// Whatever stays, each with its reason.
    pub fn remove(&self, layout: &CgroupLayout) -> Result<()> {
        let mut failures = Failures::default();
        match self.open(layout) {
            Err(e) if e.is_gone() => {}
            Err(e) => failures.note::<()>(Err(e)),
            Ok(cgroup) => {
                failures.note(cgroup.kill());
                failures.note(cgroup.remove());
            }
        }
        failures.into_result()
    }
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
}
