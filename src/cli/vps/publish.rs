//! `condo publish` and `condo unpublish`, and beside them `condo firewall`.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::firewall::{self, FirewallArgs};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::net::publication::Publication;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

const PUBLISH_EXAMPLES: &str = "\
PORT is [HOSTADDR:]HOSTPORT[-END]:PORT[-END][/tcp|/udp], TCP where it does not say.

Examples:
  condo publish web 8080:80
  condo publish web 203.0.113.5:443:443 [2001:db8::5]:443:443
  condo publish sip 5060:5060/udp 10000-10100:10000-10100/udp";

const UNPUBLISH_EXAMPLES: &str = "\
Examples:
  condo unpublish web 8080:80
  condo unpublish web 8080
  condo unpublish web --all";

/// The commands about what leads into a VPS.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum DoorCommand {
    /// Make ports of the host lead to a VPS, at once and for good.
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(PublishArgs),
    /// Take published ports back.
    #[command(after_help = UNPUBLISH_EXAMPLES)]
    Unpublish(UnpublishArgs),
    /// Say what a VPS lets in and out.
    #[command(after_help = firewall::EXAMPLES)]
    Firewall(FirewallArgs),
}

pub(super) fn run(condo: &Condo, command: &DoorCommand) -> Result<Exit> {
    match command {
        DoorCommand::Publish(args) => publish(condo, args),
        DoorCommand::Unpublish(args) => unpublish(condo, args),
        DoorCommand::Firewall(args) => firewall::run(condo, args),
    }
}

#[derive(Debug, Default, Args)]
pub(super) struct PublishOption {
    /// VPSs it may talk to, and they to it; all others are out of reach. Several: comma or again.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Network")]
    pub(super) allow: Vec<Name>,
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        help_heading = "Network",
        help = "A port of the host that leads to it: [HOSTADDR:]HOSTPORT[-END]:PORT[-END][/tcp|/udp]. May be given again"
    )]
    pub(super) publish: Vec<Publication>,
}

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The VPS.
    name: Name,
    /// What of the host leads where in the VPS.
    #[arg(value_name = "PORT", required = true)]
    ports: Vec<Publication>,
}

#[derive(Debug, Args)]
pub(super) struct UnpublishArgs {
    /// The VPS.
    name: Name,
    /// As it was published, or the host's side of it.
    #[arg(value_name = "PORT", required_unless_present = "all", conflicts_with = "all")]
    ports: Vec<String>,
    /// All that is published.
    #[arg(short, long)]
    all: bool,
}

fn publish(condo: &Condo, args: &PublishArgs) -> Result<Exit> {
    condo.publish(&args.name, &args.ports)?;
    let ports: Vec<String> = args.ports.iter().map(ToString::to_string).collect();
    output::print(&format!("{} published at {}", args.name, ports.join(", ")))?;
    Ok(Exit::Success)
}

fn unpublish(condo: &Condo, args: &UnpublishArgs) -> Result<Exit> {
    // Whether there are none or all are meant is the same to clap's rules and to this.
    condo.unpublish(&args.name, &args.ports)?;
    Ok(Exit::Success)
}
