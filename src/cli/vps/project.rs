//! `condo project`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::usage::{digits, number};
use crate::cli::exit::Exit;
use crate::cli::output::{fields, print, print_json, table};
use crate::net::rate;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::project::{Allowance, ProjectView};
use crate::vps::record::size;

const CREATE_EXAMPLES: &str = "\
Names of VPSs are the machine's: two projects cannot both have a `web`.

Examples:
  condo project create shop --vpss 10 --memory 16G --cpus 4
  condo project create lab --memory 16G --cpus 4 --shared
  condo --project shop create web --image busybox --memory 512M --cpus 1";

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum ProjectCommand {
    /// Make a project: a tenant, with limits on what its VPSs may use together.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name.
        name: Name,
        #[command(flatten)]
        limits: AllowanceArgs,
    },
    /// Change what a project may use.
    #[command(after_help = "Example:\n  condo project set shop --memory 32G --no-limit cpus")]
    Set {
        /// The project.
        name: Name,
        #[command(flatten)]
        limits: AllowanceArgs,
        /// Limits that are to hold no longer: vpss, addresses, cpus, memory, disk, bandwidth, shared.
        #[arg(long, value_name = "LIMIT", value_delimiter = ',')]
        no_limit: Vec<String>,
    },
    /// List all projects.
    #[command(after_help = "Example:\n  condo project list --json | jq -r '.[].name'")]
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one project: its limits, what is used of them, its VPSs.
    #[command(after_help = "Example:\n  condo project show shop")]
    Show {
        /// The project.
        name: Name,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Delete a project that has no VPSs.
    #[command(after_help = "Example:\n  condo project delete shop")]
    Delete {
        /// The project.
        name: Name,
    },
}

// The most that all VPSs of a project may use together.
#[derive(Debug, Args)]
pub(super) struct AllowanceArgs {
    /// How many VPSs there may be.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--vpss", t))]
    vpss: Option<u64>,
    /// How many addresses they may have.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| digits("--addresses", t))]
    addresses: Option<u64>,
    /// Processors' worth of time: the sum of their --cpus.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = |t: &str| number("--cpus", t))]
    cpus: Option<f64>,
    /// The sum of their --memory.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--memory", t))]
    memory: Option<u64>,
    /// The sum of their --disk.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = |t: &str| size::parse("--disk", t))]
    disk: Option<u64>,
    /// The sum of their --rate, the greater of both directions of each.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = |t: &str| rate::parse("--bandwidth", t))]
    bandwidth: Option<u64>,
    /// Have the kernel hold --cpus and --memory for all VPSs together, from the next start of each on: they need no limits of their own,
    /// and what each may use is not added up.
    #[arg(long)]
    shared: bool,
}

impl AllowanceArgs {
    fn limits(&self) -> Allowance {
        Allowance {
            vpss: self.vpss,
            addresses: self.addresses,
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            bandwidth: self.bandwidth,
            shared: self.shared.then_some(true),
        }
    }
}

pub(super) fn run(condo: &Condo, command: &ProjectCommand) -> Result<Exit> {
    let store = &condo.store;
    match command {
        ProjectCommand::Create { name, limits } => {
            store.add_project(name, limits.limits())?;
            print(&format!("{name} created"))?;
        }
        ProjectCommand::Set {
            name,
            limits,
            no_limit,
        } => {
            condo.change_project(name, &|before| before.changed(limits.limits(), no_limit))?;
            print(&format!("{name} changed"))?;
        }
        ProjectCommand::List { json: true } => print_json(&store.projects()?)?,
        ProjectCommand::List { json: false } => print(&listed(&store.projects()?))?,
        ProjectCommand::Show { name, json: true } => print_json(&store.project(name)?)?,
        ProjectCommand::Show { name, json: false } => print(&shown(&store.project(name)?))?,
        ProjectCommand::Delete { name } => {
            store.remove_project(name)?;
            print(&format!("{name} deleted"))?;
        }
    }
    Ok(Exit::Success)
}

fn listed(all: &[ProjectView]) -> String {
    let rows = all.iter().map(|project| {
        let figures = project.limits.lines(&project.used);
        let figures = figures.into_iter().map(|(_, used, limit)| of(used, limit));
        let mut cells = std::iter::once(project.name.to_string()).chain(figures);
        std::array::from_fn::<_, 7, _>(|_| cells.next().unwrap_or_default())
    });
    table(
        ["NAME", "VPSS", "ADDRESSES", "CPUS", "MEMORY", "DISK", "BANDWIDTH"],
        rows,
    )
}

fn shown(project: &ProjectView) -> String {
    let mut lines = vec![("name", project.name.to_string())];
    lines.extend(
        project
            .limits
            .lines(&project.used)
            .into_iter()
            .map(|(field, used, limit)| (field, of(used, limit))),
    );
    let names: Vec<&str> = project.vpss.iter().map(|name| name.as_str()).collect();
    lines.push(("in it", names.join(" ")));
    fields(&lines)
}

/// What is used of what there is.
fn of(used: String, limit: Option<String>) -> String {
    match limit {
        Some(limit) => format!("{used} / {limit}"),
        None => used,
    }
}
