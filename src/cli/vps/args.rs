//! The commands and their options. What is documented here is the reference of the command line.

mod image;

use std::net::Ipv4Addr;
use std::path::PathBuf;

pub(super) use image::ImageCommand;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use rustix::process::Signal;

use super::copies::CopyCommand;
use super::cp::CpArgs;
use super::disk::DiskArgs;
use super::doctor::{self, DoctorArgs};
use super::events;
use super::first_boot::FirstBootArgs;
use super::inside::InsideArgs;
use super::limits::LimitArgs;
use super::network::{NetworkArgs, NetworkCommand};
use super::plan::PlanCommand;
use super::policy::{self, PolicyArgs, SetArgs};
use super::project::ProjectCommand;
use super::publish::{DoorCommand, PublishOption};
use super::repair;
use super::resize::{self, ResizeArgs};
use super::stats;
use super::system::{RebuildArgs, RescueArgs};
use super::top::{self, TopArgs};
use super::ui;
use super::usage::{address, assignment, digits};
use crate::process::signal;
use crate::vps::record::name::Name;

const EXAMPLES: &str = "\
Examples:
  condo image build images/busybox
  condo create web --image busybox --memory 512M --cpus 0.5 --start
  condo exec web -- ps
  condo stop web && condo delete web";

/// VPSs without virtual machines.
#[derive(Debug, Parser)]
#[command(name = "condo", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, infer_long_args = false, max_term_width = 110)]
pub(super) struct Args {
    /// Keep all state below DIR instead of /run/condo and /var/lib/condo.
    #[arg(
        long,
        global = true,
        env = "CONDO_ROOT",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(super) root: Option<PathBuf>,
    /// Work in this project: what is made goes into it, and VPSs of others are not there.
    #[arg(
        long,
        global = true,
        env = "CONDO_PROJECT",
        value_name = "PROJECT",
        hide_env_values = true
    )]
    pub(super) project: Option<Name>,
    /// Tell what is being done; twice tells how.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    #[command(subcommand)]
    pub(super) command: Command,
}

// Only the command that was asked for is built: all of them are 0.5 MB. Their arguments bear no text of their own, here and in the other
// rooms of the command line: it would take the place of what is said here in each command's help.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Command {
    /// Make, list and remove the images VPSs are based on.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Create a VPS: name, address and limits; it runs after `start`.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<CreateArgs>),
    /// Start VPSs.
    #[command(after_help = "Examples:\n  condo start web db\n  condo start --all")]
    Start {
        #[command(flatten)]
        targets: Targets,
    },
    /// Ask VPSs to shut down, and end them when they do not.
    #[command(after_help = "Examples:\n  condo stop web\n  condo stop --all --timeout 60")]
    Stop {
        #[command(flatten)]
        targets: Targets,
        /// How long a VPS may take to shut down by itself.
        #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = |t: &str| digits("--timeout", t))]
        timeout: u64,
    },
    /// Stop VPSs and start them again.
    #[command(after_help = "Example:\n  condo restart web --timeout 10")]
    Restart {
        #[command(flatten)]
        targets: Targets,
        /// How long a VPS may take to shut down by itself.
        #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = |t: &str| digits("--timeout", t))]
        timeout: u64,
    },
    /// Send a signal to the init of VPSs; KILL ends all of a VPS's processes.
    #[command(after_help = "Examples:\n  condo kill web\n  condo kill --signal RTMIN+4 web")]
    Kill {
        #[command(flatten)]
        targets: Targets,
        /// A signal's name or number.
        #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = |t: &str| signal::parse("--signal", t))]
        signal: Signal,
    },
    /// Stop all processes of VPSs where they are; they keep their memory.
    #[command(after_help = "Examples:\n  condo freeze web\n  condo freeze --all")]
    Freeze {
        #[command(flatten)]
        targets: Targets,
    },
    /// Let frozen VPSs go on.
    #[command(after_help = "Examples:\n  condo thaw web\n  condo thaw --all")]
    Thaw {
        #[command(flatten)]
        targets: Targets,
    },
    /// Give a stopped VPS another name; its host name follows where it was its name.
    #[command(after_help = "Example:\n  condo rename web shop")]
    Rename {
        /// The VPS.
        name: Name,
        /// Its new name.
        new: Name,
    },
    /// Empty a VPS's disk and base it on an image; name, address, limits and neighbours stay.
    Rebuild(Box<RebuildArgs>),
    /// Boot another system in a VPS's place, with the VPS's own disk at /mnt.
    Rescue(Box<RescueArgs>),
    /// Delete VPSs with their disks, addresses and records.
    #[command(after_help = "Examples:\n  condo delete web\n  condo delete --force --all")]
    Delete {
        #[command(flatten)]
        targets: Targets,
        /// Also those that run.
        #[arg(short, long)]
        force: bool,
    },
    /// Change the limits of a VPS, at once and for good.
    #[command(after_help = resize::EXAMPLES)]
    Resize(Box<ResizeArgs>),
    /// Plans: the limits that VPSs are sold by.
    Plan {
        #[command(subcommand)]
        command: PlanCommand,
    },
    /// Change what happens to a VPS by itself: when it ends, and when the host comes up.
    #[command(after_help = policy::EXAMPLES)]
    Set(SetArgs),
    /// Start the VPSs that are to come up with the host, in their order.
    #[command(after_help = "condo.service runs it when the host comes up.")]
    Autostart,
    /// Tell what happened to VPSs: created, started, stopped, exited, oom, resized, deleted …
    #[command(after_help = events::EXAMPLES)]
    Events {
        /// Those it is about; all without.
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
        /// Go on with what happens from now on.
        #[arg(short, long)]
        follow: bool,
        /// For scripts: an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Tell what VPSs use: processor time, memory, processes, disk.
    #[command(after_help = stats::EXAMPLES)]
    Stats {
        /// Those it is about; all without.
        #[arg(value_name = "NAME")]
        names: Vec<Name>,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Tell of limits that VPSs meet, as events, and put back what others take away of the firewall; for a unit.
    #[command(after_help = events::WATCH_EXAMPLES)]
    Watch {
        /// How often to look, in seconds.
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = |t: &str| digits("--every", t))]
        every: u64,
    },
    /// Show what VPSs use in a table that fills the terminal and follows.
    #[command(after_help = top::EXAMPLES)]
    Top(TopArgs),
    /// Print what all VPSs use for Prometheus (OpenMetrics).
    #[command(after_help = "Example:\n  condo metrics > /var/lib/prometheus/node-exporter/condo.prom")]
    Metrics,
    /// Print a link to the console in the browser; it logs one browser in, once, within ten minutes.
    #[command(after_help = ui::EXAMPLES)]
    Ui {
        /// Where the browser finds condo-server; the first address of this host with port 8443, if not given.
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<String>,
    },
    /// Look for what of this host stands in the way of VPSs, with what mends it.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Mend what killed commands and a lost power have left, and records that were lost.
    #[command(after_help = repair::EXAMPLES)]
    Repair {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Projects: tenants with limits on what their VPSs may use together.
    Project {
        #[command(subcommand)]
        command: ProjectCommand,
    },
    #[command(flatten)]
    Door(DoorCommand),
    /// Run a program in a running VPS; its exit status becomes ours.
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(ExecArgs),
    /// Open a login shell in a running VPS.
    #[command(after_help = "Example:\n  condo shell web")]
    Shell {
        /// The VPS.
        name: Name,
        /// Who to be in it: a name or UID of the VPS, and :GROUP or :GID behind it.
        #[arg(short, long, value_name = "USER")]
        user: Option<String>,
    },
    /// Copy files and folders into a VPS or out of it, whether or not it runs.
    Cp(CpArgs),
    /// List all VPSs.
    #[command(after_help = "Examples:\n  condo list\n  condo list --json | jq -r '.[].address'")]
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one VPS: status, address, limits, and how it ended last.
    #[command(after_help = "Examples:\n  condo show web\n  condo show web --json | jq .status")]
    Show {
        /// The VPS.
        name: Name,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Print what a VPS wrote to its console.
    #[command(after_help = "Example:\n  condo logs --follow web")]
    Logs {
        /// The VPS.
        name: Name,
        /// Go on until the VPS ends.
        #[arg(short, long)]
        follow: bool,
    },
    /// Join the terminal to a VPS's console; Ctrl-] leaves it.
    #[command(after_help = "Example:\n  condo console web")]
    Console {
        /// The VPS.
        name: Name,
    },
    #[command(flatten)]
    Copy(CopyCommand),
    /// Make, list and change networks, and connect VPSs to them.
    Network {
        #[command(subcommand)]
        command: NetworkCommand,
    },
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  condo completions bash > /etc/bash_completion.d/condo")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

// The VPSs a command is about.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(super) struct Targets {
    /// The VPSs.
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<Name>,
    /// All VPSs.
    #[arg(short, long)]
    pub(super) all: bool,
}

const CREATE_EXAMPLES: &str = "\
Sizes are bytes, or have a suffix K, M, G or T (1K is 1024).

Examples:
  condo create web --image busybox --start
  condo create db --image debian-12 --cpus 2 --memory 4G --disk 80G --io-write 50M
  condo create app --image debian-12 --ip 10.88.0.10 --allow db --env TZ=Europe/Berlin";

#[derive(Debug, ClapArgs)]
pub(super) struct CreateArgs {
    /// The VPS's name, which is also its host name: a to z, 0 to 9 and `-`.
    pub(super) name: Name,
    /// The image its root disk is based on.
    #[arg(short, long, value_name = "IMAGE")]
    pub(super) image: String,
    /// Its host name, if not its name.
    #[arg(long, value_name = "HOST")]
    pub(super) hostname: Option<String>,
    /// Environment of its init. May be given again.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(super) env: Vec<(String, String)>,
    /// Start it at once.
    #[arg(long)]
    pub(super) start: bool,
    #[command(flatten)]
    pub(super) first_boot: FirstBootArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    /// A plan of plans.toml: the limits it has where no option says otherwise.
    #[arg(long, value_name = "PLAN", help_heading = "Limits")]
    pub(super) plan: Option<String>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// Its address, if not one chosen by condo.
    #[arg(long, value_name = "ADDRESS", value_parser = address, help_heading = "Network")]
    pub(super) ip: Option<Ipv4Addr>,
    #[command(flatten)]
    pub(super) networks: NetworkArgs,
    #[command(flatten)]
    pub(super) publish: PublishOption,
    #[command(flatten)]
    pub(super) inside: InsideArgs,
}

const EXEC_EXAMPLES: &str = "\
Examples:
  condo exec web -- ps aux
  condo exec web -t -- top
  condo exec web -u www-data -w /srv -e LANG=C -- sh -c 'id; pwd'";

#[derive(Debug, ClapArgs)]
pub(super) struct ExecArgs {
    /// The VPS.
    pub(super) name: Name,
    /// Give the program a terminal also where ours is none.
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Who to be in the VPS: a name or UID of the VPS, and :GROUP or :GID behind it.
    #[arg(short, long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// The working directory.
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<PathBuf>,
    /// Environment of the program. May be given again.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(super) env: Vec<(String, String)>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[cfg(test)]
mod tests;
