//! `condo resize`.

use anyhow::Result;
use clap::Args;

use super::disk::DiskArgs;
use super::limits::LimitArgs;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::error::Error;
use crate::vps::record::change::Change;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

pub(super) const EXAMPLES: &str = "\
Examples:
  condo resize web --memory 2G --cpus 2
  condo resize web --disk 40G
  condo resize web --no-limit io-read,io-write
  condo resize web --plan large";

#[derive(Debug, Args)]
pub(super) struct ResizeArgs {
    /// The VPS.
    pub(super) name: Name,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    disk: DiskArgs,
    /// Limits that are to hold no longer, by their options' names, such as memory. Several: comma or again.
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', help_heading = "Limits")]
    no_limit: Vec<String>,
    /// Another plan; limits that the VPS has of its own stay.
    #[arg(long, value_name = "PLAN", help_heading = "Limits")]
    plan: Option<String>,
}

pub(super) fn run(condo: &Condo, args: ResizeArgs) -> Result<Exit> {
    let change = Change {
        set: args.limits.into(),
        disk: args.disk.into(),
        lift: args.no_limit.into_iter().collect(),
        plan: args.plan,
    };
    if change.is_empty() {
        return Err(Error::invalid(
            "resize",
            &args.name,
            "is given no new limit; see condo resize --help",
        )
        .into());
    }
    condo.resize(&args.name, &change)?;
    output::print(&format!("{} resized", args.name))?;
    Ok(Exit::Success)
}
