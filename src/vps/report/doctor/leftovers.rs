//! What is left of VPSs and of commands that were killed.

use super::{Finding, Weight};
use crate::error::Result;
use crate::vps::record::instance::Condo;

impl Condo {
    pub(super) fn examine_leftovers(&self) -> Result<Vec<Finding>> {
        let left: Vec<String> = self.leftovers()?.iter().map(ToString::to_string).collect();
        let names = self.remains()?;
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let mut found = vec![killed(&left)];
        if let Some(finding) = unknown(&names) {
            found.push(finding);
        }
        Ok(found)
    }
}

fn killed(left: &[String]) -> Finding {
    if left.is_empty() {
        return Finding::new("leftovers", Weight::Good, "none");
    }
    Finding::new("leftovers", Weight::Warning, left.join("; ")).mended_by("condo repair")
}

/// Disks and containers that nobody has a record of, nor a copy of one.
fn unknown(names: &[&str]) -> Option<Finding> {
    names.first()?;
    let text = format!("VPSs without a record: {}", names.join(", "));
    let remedy = format!("condo delete --force {}", names.join(" "));
    Some(Finding::new("lost VPSs", Weight::Warning, text).mended_by(remedy))
}
