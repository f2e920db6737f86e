//! What of the host stands in the way of its VPSs, before they meet it.
//!
//! A check is a pure function of what was read from the host and of how many VPSs there are to be.

use serde::Serialize;

use super::tables::{self, Table};
use crate::error::Result;
use crate::namespaces::ranges::Ranges;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;

mod disks;
mod ids;
mod kernel;
mod leftovers;
mod wires;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// All is well.
    Good,
    /// Something will not hold, or not for so many VPSs.
    Warning,
    /// VPSs cannot run.
    Error,
}

impl Weight {
    /// The word it is shown as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How much it matters.
    pub weight: Weight,
    /// What was found.
    pub found: String,
    /// A command that mends it, where there is one.
    pub remedy: Option<String>,
    /// The sysctl that `--fix` sets, and its value.
    #[serde(skip)]
    pub sysctl: Option<(String, u64)>,
}

impl Finding {
    fn new(subject: &str, weight: Weight, found: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            weight,
            found: found.into(),
            remedy: None,
            sysctl: None,
        }
    }

    fn mended_by(self, command: impl Into<String>) -> Self {
        Self {
            remedy: Some(command.into()),
            ..self
        }
    }
}

impl Condo {
    /// Examines the host for `vpss` VPSs, or for those there are, at least 100. In a VPS, for as many as it has user ids for, and without
    /// what is for the host of that one to see to.
    pub fn examine(&self, vpss: Option<u64>) -> Result<Vec<Finding>> {
        let facts = Facts::probe(&self.host)?;
        let records = self.store.list()?;
        let is_host = self.host.caller.privileged;
        let usual = if is_host {
            100
        } else {
            Ranges::open()?.count().into()
        };
        let wanted = vpss.unwrap_or_else(|| (records.len() as u64).max(usual));
        let mut findings = kernel::all();
        if is_host {
            findings.extend(kernel::of_machine());
        }
        findings.extend([controllers(&facts, is_host), swap(&facts)]);
        let sizes = tables::ALL.iter();
        findings.extend(sizes.filter_map(|table| Some(capacity(table, table.read()?, wanted))));
        findings.extend(ids::all(&records, wanted)?);
        findings.extend(self.examine_disks()?);
        findings.extend(self.examine_network(wanted)?);
        findings.extend(self.examine_leftovers()?);
        Ok(findings)
    }
}

fn controllers(facts: &Facts, is_host: bool) -> Finding {
    let missing: Vec<&str> = ["cpu", "cpuset", "memory", "pids", "io"]
        .into_iter()
        .filter(|name| !facts.controllers.contains(*name))
        .collect();
    let layout = if facts.unified {
        "cgroup v2"
    } else {
        "controllers on cgroup v1"
    };
    if !missing.is_empty() {
        let found = format!("{layout}; not there: {}", missing.join(", "));
        // A VPS has none of those that its host has on cgroup v1: VPSs in it run without limits.
        let weight = if is_host { Weight::Error } else { Weight::Warning };
        return Finding::new("cgroups", weight, found);
    }
    if facts.unified {
        return Finding::new("cgroups", Weight::Good, layout);
    }
    let found =
        format!("{layout}: buffered writes are not limited, and engines inside have no limits of their own");
    Finding::new("cgroups", Weight::Warning, found).mended_by("boot with systemd.unified_cgroup_hierarchy=1")
}

fn swap(facts: &Facts) -> Finding {
    if facts.swap_accounting {
        return Finding::new("swap accounting", Weight::Good, "swap counts");
    }
    Finding::new(
        "swap accounting",
        Weight::Warning,
        "swap is not counted: --swap is refused",
    )
    .mended_by("boot with swapaccount=1")
}

/// Whether a table of the kernel's has room for so many VPSs.
fn capacity(table: &Table, size: u64, vpss: u64) -> Finding {
    let needed = table.base + table.each * vpss;
    let found = match size.saturating_sub(table.base).checked_div(table.each) {
        Some(enough) => format!("{size}, which is enough for {enough} VPSs"),
        None => format!("{size} for each VPS"),
    };
    if size >= needed {
        return Finding::new(table.sysctl, Weight::Good, found);
    }
    let mut finding = Finding::new(
        table.sysctl,
        Weight::Warning,
        format!("{found} ({})", table.holds),
    )
    .mended_by(format!("sysctl -w {}={needed}", table.sysctl));
    finding.sysctl = Some((table.sysctl.to_owned(), needed));
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_small_is_named_with_what_would_do() {
        let table = Table {
            sysctl: "kernel.pty.max",
            base: 100,
            each: 10,
            holds: "terminals",
        };
        let finding = capacity(&table, 600, 100);
        assert_eq!(finding.weight, Weight::Warning);
        assert_eq!(finding.found, "600, which is enough for 50 VPSs (terminals)");
        assert_eq!(finding.remedy.as_deref(), Some("sysctl -w kernel.pty.max=1100"));
        assert_eq!(capacity(&table, 1100, 100).weight, Weight::Good);
        let of_each = Table { each: 0, ..table };
        assert_eq!(
            capacity(&of_each, 99, 5).remedy.as_deref(),
            Some("sysctl -w kernel.pty.max=100")
        );
        assert_eq!(capacity(&of_each, 100, 5).found, "100 for each VPS");
    }
}
