//! `condo repair`.

use anyhow::Result;
use serde_json::json;

use crate::cli::exit::Exit;
use crate::cli::output::{complain, print, print_json};
use crate::vps::record::instance::Condo;

pub(super) const EXAMPLES: &str = "\
Nothing that belongs to a VPS is removed. `condo doctor` tells the same without changing anything.

Example:
  condo repair";

/// Mends what it can; what fails is told, and the rest goes on.
pub(super) fn run(condo: &Condo, json: bool) -> Result<Exit> {
    let mut done: Vec<(String, Option<String>)> = Vec::new();
    if condo.repair_database()? {
        done.push((
            "the database, made anew of the copies of its records".to_owned(),
            None,
        ));
    }
    for leftover in condo.leftovers()? {
        let failure = condo.mend(&leftover).err().map(|e| e.to_string());
        done.push((leftover.to_string(), failure));
    }
    // Of deletes that were killed at their very end.
    condo.sweep()?;
    let failed = done.iter().any(|(_, failure)| failure.is_some());
    if json {
        let all = done
            .iter()
            .map(|(what, failure)| json!({ "what": what, "failure": failure }));
        print_json(&all.collect::<Vec<_>>())?;
    } else if done.is_empty() {
        print("nothing to repair")?;
    } else {
        for (what, failure) in &done {
            match failure {
                None => print(&format!("mended: {what}"))?,
                Some(why) => complain(&format!("cannot mend {what}: {why}")),
            }
        }
    }
    Ok(if failed { Exit::Failure } else { Exit::Success })
}
