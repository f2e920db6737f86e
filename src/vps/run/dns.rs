//! The name server of a network: dnsmasq(8) at the gateway's address, under a unit of the operator's service manager.

use std::convert::Infallible;
use std::ffi::OsString;

use rustix::mount::mount_bind;

use crate::error::{During, Error, Result};
use crate::namespaces::enter;
use crate::net::{self, Network};
use crate::process::program::Program;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
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
        let program = Program::find(&arguments(&record.network), &environment).map_err(|_| {
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

fn arguments(network: &Network) -> Vec<OsString> {
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
    use crate::net::Kind;

    #[test]
    fn an_isolated_network_asks_nobody() {
        let network = Network::new("condo7", "condo", "10.0.0.0/16".parse().unwrap());
        let asks = |network: &Network| {
            let words = arguments(network);
            words
                .iter()
                .any(|word| word.to_string_lossy().starts_with("--resolv-file") || word == "--server=9.9.9.9")
        };
        assert!(asks(&network));
        let isolated = Network {
            kind: Kind::Isolated,
            ..network
        };
        assert!(!asks(&isolated));
        assert!(arguments(&isolated).contains(&"--interface=condo7".into()));
    }
}
