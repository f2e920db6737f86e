//! `condo-server trust`: who is trusted over TLS.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;

use super::{Identity, clients, secrets, sessions};
use crate::server::PORT;

/// Questions and orders about trust.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Print a token by which one client becomes trusted, once, within a day: lxc remote add HOST TOKEN.
    Add {
        /// What the client will be called.
        name: String,
        /// Where the client finds the server; all addresses of this host with port 8443, if not given. May be given again.
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Vec<String>,
        /// Let the client do nothing but work with the VPSs of this project. May be given again.
        #[arg(long, value_name = "PROJECT")]
        project: Vec<Name>,
    },
    /// List the clients that are trusted.
    List,
    /// Trust a client no more, from its next request on.
    Remove {
        /// Its name, or the beginning of its certificate's fingerprint.
        client: String,
    },
}

/// Whose link, and where to.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Where the browser finds the server; the first address of this host with port 8443, if not given.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<String>,
    /// Let the person do nothing but work with the VPSs of this project. May be given again.
    #[arg(long, value_name = "PROJECT")]
    project: Vec<Name>,
}

/// Prints a link by which one person logs in at a browser.
pub(crate) fn print_link(root: Option<&Path>, args: LinkArgs) -> Result<()> {
    let condo = Condo::open(root)?;
    let found = args.address.or_else(|| addresses(PORT).into_iter().next());
    let address = found.unwrap_or_else(|| format!("127.0.0.1:{PORT}"));
    let code = sessions::link(&condo, secrets::named(args.project))?;
    writeln!(std::io::stdout(), "https://{address}/ui/login?code={code}")?;
    Ok(())
}

/// Does one of them.
pub(crate) fn run(root: Option<&Path>, command: TrustCommand) -> Result<()> {
    let condo = Condo::open(root)?;
    let mut out = std::io::stdout().lock();
    match command {
        TrustCommand::Add {
            name,
            address,
            project,
        } => {
            clients::Certificate::new(&name, &[]).map_err(|problem| anyhow!(problem.text))?;
            let address = if address.is_empty() {
                addresses(PORT)
            } else {
                address
            };
            let own = super::fingerprint(&Identity::of(&condo)?.certificate);
            let issued = clients::issue(&condo, &name, secrets::named(project))?;
            writeln!(out, "{}", clients::token(&issued, &name, &own, &address))?;
        }
        TrustCommand::List => {
            for (fingerprint, certificate) in clients::all(&condo)? {
                let projects = certificate.projects.iter().flatten();
                let projects: Vec<&str> = projects.map(Name::as_str).collect();
                match certificate.projects {
                    Some(_) => writeln!(
                        out,
                        "{fingerprint}  {}  projects: {}",
                        certificate.name,
                        projects.join(", ")
                    )?,
                    None => writeln!(out, "{fingerprint}  {}", certificate.name)?,
                }
            }
        }
        TrustCommand::Remove { client } => {
            let (fingerprint, _) = clients::find(&condo, &client).map_err(|problem| anyhow!(problem.text))?;
            clients::distrust(&condo, &fingerprint)?;
        }
    }
    Ok(())
}

/// Where this host can be found at a port.
pub(crate) fn addresses(port: u16) -> Vec<String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let of = |address: nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(v4.ip().into()),
            (_, Some(v6)) => Some(v6.ip().into()),
            _ => None,
        }
    };
    let is_public = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let mut found: Vec<String> = all
        .filter_map(|interface| interface.address.and_then(of))
        .filter(is_public)
        .map(|address| std::net::SocketAddr::new(address, port).to_string())
        .collect();
    found.dedup();
    found
}
