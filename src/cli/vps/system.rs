//! What changes the system of a VPS and leaves the VPS: `rebuild`, `rescue`, `rename`.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::first_boot::FirstBootArgs;
use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::run::rebuild::Rebuild;
use crate::vps::run::rescue::RescueRequest;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  condo rebuild web --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub --start"
)]
pub(super) struct RebuildArgs {
    /// The VPS.
    name: Name,
    /// The image of its new system.
    #[arg(short, long, value_name = "IMAGE")]
    image: String,
    /// Also if it runs: it is ended first, and started again.
    #[arg(short, long)]
    force: bool,
    /// Start it at once.
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    first_boot: FirstBootArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  condo rescue web --ssh-key ~/.ssh/id_ed25519.pub\n  condo rescue web --end"
)]
pub(super) struct RescueArgs {
    /// The VPS.
    name: Name,
    /// The image to boot, if not the VPS's own.
    #[arg(short, long, value_name = "IMAGE", conflicts_with = "end")]
    image: Option<String>,
    /// End the rescue: the VPS has its own system again, which runs if it did before.
    #[arg(long)]
    end: bool,
    /// Also if it runs: it is stopped first.
    #[arg(short, long, conflicts_with = "end")]
    force: bool,
    /// How long it may take to shut down by itself.
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = |t: &str| digits("--timeout", t))]
    timeout: u64,
    #[command(flatten)]
    first_boot: FirstBootArgs,
}

pub(super) fn rebuild(condo: &Condo, args: RebuildArgs) -> Result<Exit> {
    let name = args.name;
    let rebuild = Rebuild {
        image: args.image,
        first_boot: args.first_boot.read()?,
    };
    let ran = condo
        .rebuild(&name, &rebuild, args.force)
        .with_context(|| format!("rebuild `{name}`"))?;
    if ran || args.start {
        condo
            .start(&name)
            .with_context(|| format!("`{name}` was rebuilt, but does not start"))?;
    }
    output::print(&format!("{name} rebuilt from {}", rebuild.image))?;
    Ok(Exit::Success)
}

pub(super) fn rescue(condo: &Condo, args: RescueArgs) -> Result<Exit> {
    let name = args.name;
    let timeout = Duration::from_secs(args.timeout);
    if args.end {
        let runs = condo
            .end_rescue(&name, timeout)
            .with_context(|| format!("end the rescue of `{name}`"))?;
        let how = if runs { "runs" } else { "is stopped" };
        output::print(&format!("{name} {how}, with its own system"))?;
        return Ok(Exit::Success);
    }
    let request = RescueRequest {
        image: args.image,
        first_boot: args.first_boot.read()?,
        force: args.force,
        timeout,
    };
    condo
        .rescue(&name, &request)
        .with_context(|| format!("rescue `{name}`"))?;
    output::print(&format!("{name} runs a rescue system; its own disk is at /mnt"))?;
    Ok(Exit::Success)
}

pub(super) fn rename(condo: &Condo, name: &Name, new: &Name) -> Result<Exit> {
    condo
        .rename(name, new)
        .with_context(|| format!("rename `{name}`"))?;
    Ok(Exit::Success)
}
