//! One value for one file of a cgroup directory, and which controllers this host has.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::error::{Error, Result};
use crate::files;
use crate::host::CgroupLayout;

/// One value for one file of a cgroup directory. The file's name says its controller: `memory.max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The file below the cgroup's directory.
    pub file: String,
    /// What is written into it, in one `write(2)`.
    pub value: String,
    /// What to do on kernels that do not have the file.
    pub missing: Missing,
}

/// What a missing file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The limit would not hold: an error.
    Refuse,
    /// Nothing is lost.
    Skip,
    /// Another file does the same: its name and value.
    Instead(&'static str, String),
}

impl Setting {
    /// A value that must be written.
    pub(super) fn new(file: impl Into<String>, value: impl Display) -> Self {
        Self {
            file: file.into(),
            value: value.to_string(),
            missing: Missing::Refuse,
        }
    }

    /// A value that only matters where the kernel has the file.
    pub(super) fn optional(file: impl Into<String>, value: impl Display) -> Self {
        Self {
            missing: Missing::Skip,
            ..Self::new(file, value)
        }
    }

    /// The same, with another file to try where this one is missing.
    pub(super) fn or(self, file: &'static str, value: impl Display) -> Self {
        Self {
            missing: Missing::Instead(file, value.to_string()),
            ..self
        }
    }

    /// The controller, by the name its hierarchy has it under.
    pub fn controller(&self) -> &str {
        controller_of(&self.file)
    }
}

/// A name that goes into a line of a cgroup file: one word, so that it cannot become more lines or other values.
///
/// # Errors
/// [`Error::Invalid`] for `field`.
pub(super) fn word<'a>(field: &str, name: &'a str) -> Result<&'a str> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(field, name.escape_debug(), "must be one word"));
    }
    Ok(name)
}

/// The controller a file belongs to: what stands before the first dot.
pub(super) fn controller_of(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

/// Which interface a controller is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The controllers of this host.
#[derive(Debug, Clone, Default)]
pub(super) struct Controllers {
    v1: BTreeSet<String>,
    v2: Cgroup2,
    /// The container has no cgroup, which is why it has no controllers.
    disabled: bool,
}

/// What the cgroup2 hierarchy offers.
#[derive(Debug, Clone, Default)]
enum Cgroup2 {
    /// It is not mounted.
    #[default]
    Absent,
    /// It is the only hierarchy and does not say (a layout made up by a test): everything.
    Everything,
    /// Its `cgroup.controllers`.
    These(BTreeSet<String>),
}

impl Controllers {
    /// Those of a container without a cgroup.
    pub(super) fn none() -> Self {
        Self {
            disabled: true,
            ..Self::default()
        }
    }

    /// What this layout has. Reads `cgroup.controllers` of the cgroup2 mount; nothing else is touched.
    pub(super) fn of(layout: &CgroupLayout) -> Self {
        let listed = layout
            .unified()
            .and_then(|mount| files::read_text(&mount.join("cgroup.controllers")).ok())
            .map(|text| text.split_ascii_whitespace().map(Into::into).collect());
        match layout {
            CgroupLayout::Unified(_) => Self {
                v2: listed.map_or(Cgroup2::Everything, Cgroup2::These),
                ..Self::default()
            },
            CgroupLayout::Hybrid { v1, unified } => Self {
                v1: v1.iter().flat_map(|h| h.controllers.iter().cloned()).collect(),
                v2: match unified {
                    Some(_) => Cgroup2::These(listed.unwrap_or_default()),
                    None => Cgroup2::Absent,
                },
                disabled: false,
            },
        }
    }

    /// How `controller` (by its v2 name) is reached.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the controller that `field` needs.
    pub(super) fn version(&self, controller: &str, field: &str) -> Result<Version> {
        if self
            .v1
            .contains(if controller == "io" { "blkio" } else { controller })
        {
            return Ok(Version::V1);
        }
        self.check_cgroup(field)?;
        match &self.v2 {
            Cgroup2::Everything => Ok(Version::V2),
            Cgroup2::These(found) if found.contains(controller) => Ok(Version::V2),
            _ => Err(Error::unsupported(
                field,
                format!("the kernel offers no cgroup controller `{controller}`"),
            )),
        }
    }

    /// That there is a cgroup at all.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the limit that `field` asks for.
    pub(super) fn check_cgroup(&self, field: &str) -> Result<()> {
        if self.disabled {
            return Err(Error::unsupported(
                field,
                "a container without a cgroup has no limits; leave it out or use another `--cgroup-manager`",
            ));
        }
        Ok(())
    }

    /// How access to devices is controlled: a v1 controller, or programs attached to a cgroup2 directory.
    pub(super) fn devices(&self) -> Result<Version> {
        match self.v2 {
            _ if self.v1.contains("devices") => Ok(Version::V1),
            Cgroup2::Absent => Err(Error::unsupported(
                "linux.resources.devices",
                "neither the v1 controller `devices` nor cgroup2 is mounted",
            )),
            _ => Ok(Version::V2),
        }
    }

    /// Whether cgroup2 is all there is.
    pub(super) fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host with everything on cgroup2.
    pub(in super::super) fn v2() -> Controllers {
        Controllers {
            v2: Cgroup2::Everything,
            ..Controllers::default()
        }
    }

    /// A hybrid host with everything on v1 and nothing on cgroup2.
    pub(in super::super) fn v1() -> Controllers {
        let all = "cpu cpuset memory blkio pids hugetlb devices rdma net_cls net_prio";
        Controllers {
            v1: all.split(' ').map(Into::into).collect(),
            v2: Cgroup2::These(BTreeSet::new()),
            disabled: false,
        }
    }

    /// `file=value` lines, for golden comparisons.
    pub(in super::super) fn lines(settings: &[Setting]) -> Vec<String> {
        settings
            .iter()
            .map(|s| format!("{}={}", s.file, s.value))
            .collect()
    }

    #[test]
    fn a_controller_on_either_side_of_a_hybrid_host_is_found() {
        let host = Controllers {
            v1: ["memory".to_owned()].into(),
            v2: Cgroup2::These(["hugetlb".to_owned()].into()),
            disabled: false,
        };
        assert_eq!(host.version("memory", "x").unwrap(), Version::V1);
        assert_eq!(host.version("hugetlb", "x").unwrap(), Version::V2);
        let e = host.version("pids", "linux.resources.pids").unwrap_err();
        assert!(e.to_string().contains("`pids`"), "{e}");
    }

    #[test]
    fn the_file_says_the_controller() {
        assert_eq!(Setting::new("hugetlb.2MB.max", 1).controller(), "hugetlb");
    }
}
