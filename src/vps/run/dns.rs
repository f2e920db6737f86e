//! The name server of a network: dnsmasq(8) at the gateway's address, under a unit of the operator's service manager.

use std::convert::Infallible;
use std::ffi::OsString;

use rustix::mount::mount_bind;

use crate::error::{During, Error, Result};
use crate::namespaces::enter;
use crate::net;
use crate::process::program::Program;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::wire::{network, resolver};

/// Where dnsmasq finds the folder of names: it runs as nobody, who may not look for it where it is.
const NAMES: &str = "/mnt";
/// How long others may take it that an address is a name's, in seconds: VPSs come and go.
const VALID: u32 = 5;

impl Condo {
    /// Becomes the name server of a network. It knows the names of the VPSs that run on it as they come and go, and asks the
    /// host's name servers about all others; on an isolated network it asks nobody.
    ///
    /// # Errors
    /// [`Error::Status`] for a network whose VPSs ask elsewhere, [`Error::Unsupported`] where there is no dnsmasq.
    pub fn serve_names(&self, name: &Name) -> Result<Infallible> {
        let record = network::named(self, name)?;
        if !record.network.dns {
            let text = format!("its VPSs ask elsewhere for names; first `condo network set {name} --dns on`");
            return Err(Error::Status(text));
        }
        let environment: Vec<OsString> = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()].into();
        let program = Program::find(&arguments(&record), &environment).map_err(|_| {
            Error::unsupported(
                "a name server",
                "there is no dnsmasq; install it (Debian: dnsmasq-base)",
            )
        })?;
        resolver::open(self, &record)?;
        let names = resolver::folder(self, &record);
        enter::leave_mounts()?;
        mount_bind(&names, NAMES).during(|| format!("show the names at `{NAMES}`"))?;
        Err(program.exec())
    }
}

fn arguments(record: &NetworkRecord) -> Vec<OsString> {
    let network = &record.network;
    let mut arguments: Vec<String> = [
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        // Nothing of the host's own dnsmasq, nor the host's own names.
        "--conf-file=/dev/null",
        "--no-hosts",
        "--pid-file=",
        "--user=nobody",
        "--group=nogroup",
        // Only what comes in by the network's link; it comes and goes with the first and the last VPS.
        "--bind-dynamic",
        "--except-interface=lo",
        // What nobody else can know is asked of nobody else.
        "--local=/condo/",
        "--domain-needed",
        "--bogus-priv",
    ]
    .map(String::from)
    .into();
    arguments.extend([
        format!("--interface={}", network.bridge),
        format!("--hostsdir={NAMES}"),
        format!("--local-ttl={VALID}"),
    ]);
    arguments.extend(record.domain.iter().map(|domain| format!("--local=/{domain}/")));
    match net::resolver_file() {
        // Questions would be a way out.
        _ if !network.kind.has_a_way_out() => arguments.push("--no-resolv".into()),
        Some(file) => arguments.push(format!("--resolv-file={}", file.display())),
        None => {
            arguments.push("--no-resolv".into());
            arguments.extend(net::PUBLIC_RESOLVERS.map(|server| format!("--server={server}")));
        }
    }
    arguments.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Kind, Network};

    fn record() -> NetworkRecord {
        NetworkRecord {
            name: "lan".parse().unwrap(),
            number: 7,
            network: Network::new("condo7", "condo", "10.0.0.0/16".parse().unwrap()),
            reserved: Vec::new(),
            domain: None,
        }
    }

    #[test]
    fn an_isolated_network_asks_nobody() {
        let mut record = record();
        let asks = |record: &NetworkRecord| {
            let words = arguments(record);
            words
                .iter()
                .any(|word| word.to_string_lossy().starts_with("--resolv-file") || word == "--server=9.9.9.9")
        };
        assert!(asks(&record));
        record.network.kind = Kind::Isolated;
        assert!(!asks(&record));
        assert!(arguments(&record).contains(&"--interface=condo7".into()));
    }

    #[test]
    fn names_below_the_networks_domain_are_nobody_elses() {
        let mut record = record();
        assert_eq!(record.names_of(&"web".parse().unwrap()), "web.condo");
        record.domain = Some("vps.example.net".parse().unwrap());
        assert_eq!(
            record.names_of(&"web".parse().unwrap()),
            "web.condo web.vps.example.net"
        );
        assert!(arguments(&record).contains(&"--local=/vps.example.net/".into()));
    }
}
