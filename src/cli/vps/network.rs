//! `condo network`, and the options of `create` that name networks.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use clap::{ArgAction, Args, Subcommand};
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::usage::digits;
use crate::cli::exit::Exit;
use crate::cli::output::{fields, print, print_json, table};
use crate::error::{self, Error};
use crate::net::Kind;
use crate::vps::record::attachment::{Attachment, network_name};
use crate::vps::record::domain::Domain;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::{NetworkRecord, Range};
use crate::vps::record::view::NetworkView;
use crate::vps::wire::networks::{NetworkChange, NewNetwork};

// Networks of a new VPS.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// A network it is on, if not `condo0`; again for one more. The first is `eth0`, the next `eth1`.
    #[arg(long, value_name = "NAME[,ip=…][,ip6=…][,mac=…]", help_heading = "Network")]
    pub(super) network: Vec<Attachment>,
}

const CREATE_EXAMPLES: &str = "\
Examples:
  condo network create lan
  condo network create inner --kind isolated --subnet 10.50.0.0/24
  condo network create public --kind routed --subnet 203.0.113.64/27 --subnet6 2001:db8:7::/64
  condo network create office --kind bridged --bridge br0 --subnet 192.168.1.0/24 --gateway 192.168.1.254";

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum NetworkCommand {
    /// Make a network.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List all networks.
    List {
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show one network: its addresses, and who is on it.
    Show {
        /// The network.
        #[arg(value_name = "NETWORK", value_parser = network)]
        name: Name,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Change a network; VPSs have it when they start.
    #[command(after_help = "Example:\n  condo network set condo0 --mtu 1400")]
    Set(SetArgs),
    /// Be the name server of a network, until it is ended: dnsmasq at the gateway's address. For a unit: `condo-dns@NETWORK`.
    #[command(
        after_help = "Example:\n  condo network set lan --dns on && systemctl enable --now condo-dns@lan"
    )]
    Dns {
        /// The network.
        #[arg(value_parser = network)]
        network: Name,
    },
    /// Delete networks that no VPS is on.
    Delete {
        /// The networks.
        #[arg(value_name = "NETWORK", required = true, value_parser = network)]
        names: Vec<Name>,
    },
    /// Connect a VPS, running or stopped, to one more network.
    #[command(after_help = "Example:\n  condo network attach lan,ip=10.50.0.7 web")]
    Attach {
        /// The network.
        #[arg(value_name = "NETWORK[,ip=…][,ip6=…][,mac=…]")]
        network: Attachment,
        /// The VPS.
        vps: Name,
    },
    /// Take a VPS, running or stopped, off a network.
    #[command(after_help = "Example:\n  condo network detach lan web")]
    Detach {
        /// The network.
        #[arg(value_parser = network)]
        network: Name,
        /// The VPS.
        vps: Name,
    },
    /// Hand addresses of a network out only to who asks for them.
    #[command(
        after_help = "Examples:\n  condo network reserve lan 10.50.0.10\n  condo network reserve lan 10.50.0.100-10.50.0.199"
    )]
    Reserve {
        /// The network.
        #[arg(value_parser = network)]
        network: Name,
        /// The addresses: one, FIRST-LAST or ADDRESS/PREFIX.
        #[arg(value_name = "ADDRESS")]
        addresses: Range,
    },
    /// Take a reservation back.
    Release {
        /// The network.
        #[arg(value_parser = network)]
        network: Name,
        /// The addresses, as they were reserved.
        #[arg(value_name = "ADDRESS")]
        addresses: Range,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The network's name: a to z, 0 to 9 and `-`.
    #[arg(value_parser = network)]
    name: Name,
    /// What it is for: `nat` reaches the outside under the host's address, `routed` with addresses of yours, `bridged` is a bridge
    /// of yours, `isolated` reaches nothing.
    #[arg(long, value_name = "KIND", default_value = "nat")]
    kind: Kind,
    /// Its IPv4 addresses.
    #[arg(long, value_name = "CIDR", value_parser = subnet)]
    subnet: Option<Ipv4Network>,
    /// Its IPv6 addresses, a /64.
    #[arg(long, value_name = "CIDR", value_parser = subnet6)]
    subnet6: Option<Ipv6Network>,
    /// Largest packet.
    #[arg(long, value_name = "BYTES", value_parser = mtu)]
    mtu: Option<u32>,
    /// Your bridge, for `--kind bridged`.
    #[arg(long, value_name = "INTERFACE")]
    bridge: Option<String>,
    /// The router behind your bridge, if it has not the network's first address.
    #[arg(long, value_name = "ADDRESS", value_parser = gateway)]
    gateway: Option<Ipv4Addr>,
    /// Whether VPSs ask for names at the gateway: see `condo network dns`.
    #[arg(long, value_name = "on|off", value_parser = switch, default_value = "off", action = ArgAction::Set)]
    dns: bool,
    /// A domain of yours, where VPSs have a name besides `NAME.condo`.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<Domain>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// Largest packet.
    #[arg(long, value_name = "BYTES", value_parser = mtu)]
    mtu: Option<u32>,
    /// Its IPv6 addresses, a /64.
    #[arg(long, value_name = "CIDR", value_parser = subnet6)]
    subnet6: Option<Ipv6Network>,
    /// Whether VPSs ask for names at the gateway: see `condo network dns`.
    #[arg(long, value_name = "on|off", value_parser = switch)]
    dns: Option<bool>,
    /// A domain of yours, where VPSs have a name besides `NAME.condo`, or `none`.
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<OrNone>,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The network.
    #[arg(value_name = "NETWORK", value_parser = network)]
    name: Name,
    #[command(flatten)]
    changes: Changes,
}

fn network(text: &str) -> error::Result<Name> {
    network_name("NETWORK", text)
}

fn mtu(text: &str) -> error::Result<u32> {
    let bytes = digits("--mtu", text)?;
    bytes
        .try_into()
        .map_err(|_| Error::invalid("--mtu", text, "must be from 1280 to 65535"))
}

fn switch(text: &str) -> error::Result<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::invalid("--dns", text, "is neither `on` nor `off`")),
    }
}

/// A domain that can be taken away.
#[derive(Debug, Clone)]
struct OrNone(Option<Domain>);

fn domain(text: &str) -> error::Result<OrNone> {
    let given = (text != "none").then(|| text.parse());
    given.transpose().map(OrNone)
}

fn subnet(text: &str) -> error::Result<Ipv4Network> {
    let problem = "is not of the form 10.50.0.0/24";
    let parse = || text.contains('/').then(|| text.parse().ok())?;
    parse().ok_or_else(|| Error::invalid("--subnet", text, problem))
}

fn subnet6(text: &str) -> error::Result<Ipv6Network> {
    let problem = "is not of the form fd00:1:2:3::/64";
    let parse = || text.contains('/').then(|| text.parse().ok())?;
    parse().ok_or_else(|| Error::invalid("--subnet6", text, problem))
}

fn gateway(text: &str) -> error::Result<Ipv4Addr> {
    text.parse()
        .map_err(|_| Error::invalid("--gateway", text, "is not an IPv4 address"))
}

pub(super) fn run(condo: &Condo, command: NetworkCommand) -> Result<Exit> {
    match command {
        NetworkCommand::Create(args) => create(condo, args),
        NetworkCommand::List { json } => list(condo, json),
        NetworkCommand::Show { name, json } => show(condo, &name, json),
        NetworkCommand::Set(args) => {
            let change = NetworkChange {
                mtu: args.changes.mtu,
                subnet6: args.changes.subnet6,
                dns: args.changes.dns,
                domain: args.changes.domain.map(|OrNone(domain)| domain),
            };
            let record = condo.change_network(&args.name, &change)?;
            print(&format!("{} changed", record.name)).map(|()| Exit::Success)
        }
        NetworkCommand::Dns { network } => match condo.serve_names(&network)? {},
        NetworkCommand::Delete { names } => delete(condo, &names),
        NetworkCommand::Attach { network, vps } => {
            let interface = condo
                .attach_network(&vps, &network)
                .with_context(|| format!("attach `{vps}` to `{}`", network.network))?;
            print(&format!(
                "{vps} has {} on {network}, address {}",
                interface.name(),
                interface.address,
                network = network.network
            ))
            .map(|()| Exit::Success)
        }
        NetworkCommand::Detach { network, vps } => {
            condo
                .detach_network(&vps, &network)
                .with_context(|| format!("detach `{vps}` from `{network}`"))?;
            Ok(Exit::Success)
        }
        NetworkCommand::Reserve { network, addresses } => {
            condo.reserve(&network, addresses)?;
            Ok(Exit::Success)
        }
        NetworkCommand::Release { network, addresses } => {
            condo.release(&network, addresses)?;
            Ok(Exit::Success)
        }
    }
}

fn create(condo: &Condo, args: CreateArgs) -> Result<Exit> {
    let record = condo.create_network(&NewNetwork {
        name: args.name,
        kind: args.kind,
        subnet: args.subnet,
        subnet6: args.subnet6,
        mtu: args.mtu,
        bridge: args.bridge,
        gateway: args.gateway,
        dns: args.dns,
        domain: args.domain,
    })?;
    let NetworkRecord { name, network, .. } = record;
    print(&format!("{name} created, {} {}", network.kind, network.subnet)).map(|()| Exit::Success)
}

fn delete(condo: &Condo, names: &[Name]) -> Result<Exit> {
    let mut exit = Exit::Success;
    for name in names {
        let deleted = condo
            .delete_network(name)
            .with_context(|| format!("delete `{name}`"));
        exit = deleted.map_or_else(|e| crate::cli::report::report(&e), |()| exit);
    }
    Ok(exit)
}

fn list(condo: &Condo, json: bool) -> Result<Exit> {
    let mut views = Vec::new();
    for record in condo.networks()? {
        let (record, users) = condo.network(&record.name)?;
        views.push(NetworkView::new(record, users));
    }
    if json {
        print_json(&views)?;
    } else {
        let rows = views.iter().map(|view| {
            [
                view.name.to_string(),
                view.kind.to_string(),
                view.subnet.to_string(),
                view.subnet6.map_or("-".into(), |subnet| subnet.to_string()),
                view.link.clone(),
                view.used_by.len().to_string(),
            ]
        });
        print(&table(
            ["NAME", "KIND", "SUBNET", "SUBNET6", "LINK", "VPSS"],
            rows,
        ))?;
    }
    Ok(Exit::Success)
}

fn show(condo: &Condo, name: &Name, json: bool) -> Result<Exit> {
    let (record, users) = condo.network(name)?;
    let view = NetworkView::new(record, users);
    if json {
        return print_json(&view).map(|()| Exit::Success);
    }
    let joined = |all: Vec<String>| {
        if all.is_empty() {
            "-".to_owned()
        } else {
            all.join(", ")
        }
    };
    let lines = [
        ("name", view.name.to_string()),
        ("kind", view.kind.to_string()),
        ("link", view.link.clone()),
        ("subnet", view.subnet.to_string()),
        ("gateway", view.gateway.map_or("-".into(), |ip| ip.to_string())),
        (
            "subnet6",
            view.subnet6.map_or("-".into(), |subnet| subnet.to_string()),
        ),
        ("dns", if view.dns { "on" } else { "off" }.to_owned()),
        (
            "domain",
            view.domain.map_or("-".into(), |domain| domain.to_string()),
        ),
        ("mtu", view.mtu.map_or("-".into(), |mtu| mtu.to_string())),
        (
            "reserved",
            joined(view.reserved.iter().map(ToString::to_string).collect()),
        ),
        (
            "used by",
            joined(view.used_by.iter().map(ToString::to_string).collect()),
        ),
    ];
    print(&fields(&lines)).map(|()| Exit::Success)
}
