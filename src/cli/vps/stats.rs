//! `condo stats` and `condo metrics`.

use anyhow::Result;

use crate::cli::exit::Exit;
use crate::cli::output::{print, print_json, table, write};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::view::VpsStatus;
use crate::vps::report::stats::VpsStats;

pub(super) const EXAMPLES: &str = "\
Examples:
  condo stats
  condo stats web --json | jq '.[].memory'";

pub(super) fn stats(condo: &Condo, names: &[Name], json: bool) -> Result<Exit> {
    let all = condo.stats(names)?;
    if json {
        print_json(&all)?;
    } else {
        print(&listed(&all))?;
    }
    Ok(Exit::Success)
}

pub(super) fn metrics(condo: &Condo) -> Result<Exit> {
    write(condo.metrics()?.as_bytes())?;
    Ok(Exit::Success)
}

fn listed(all: &[VpsStats]) -> String {
    let rows = all.iter().map(|vps| {
        let name = vps.name.to_string();
        if vps.status == VpsStatus::Stopped {
            return [name, "-".into(), "-".into(), "-".into(), "-".into(), "-".into()];
        }
        [
            name,
            format!("{}.{:02}s", vps.cpu / 1_000_000, vps.cpu / 10_000 % 100),
            of(size::display(vps.memory), vps.memory_limit.map(size::display)),
            of(vps.pids.to_string(), vps.pids_limit.map(|n| n.to_string())),
            size::display(vps.read_bytes),
            size::display(vps.write_bytes),
        ]
    });
    table(["NAME", "CPU TIME", "MEMORY", "PIDS", "READ", "WRITTEN"], rows)
}

/// What is used of what there is.
fn of(used: String, limit: Option<String>) -> String {
    match limit {
        Some(limit) => format!("{used} / {limit}"),
        None => used,
    }
}
