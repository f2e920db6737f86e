//! Proxy devices: ports of the host that lead to an instance. condo's are translated by the firewall, with no process in between.

use std::net::IpAddr;
use std::str::FromStr;

use condo::net::publication::{Door, Publication, Transport};
use condo::vps::record::config::VpsConfig;

use super::devices::{amend, each, free, remove};
use super::{Devices, Keys, Setup, values};
use crate::reply::Problem;

/// Sets what the devices say.
pub(super) fn set(config: &mut VpsConfig, devices: &Devices) -> Result<(), Problem> {
    for (name, options) in devices.iter().filter(|(_, options)| is_proxy(options)) {
        each(name, options, option)?;
        let (publication, inside) = publication(name, options)?;
        let own = config
            .ip
            .into_iter()
            .chain(config.networks.iter().filter_map(|one| one.ip));
        let is_own =
            inside.is_loopback() || inside.is_unspecified() || own.into_iter().any(|ip| inside == ip);
        if !is_own {
            let problem =
                "is not the instance's own: say 127.0.0.1, or an address that its nic has as `ipv4.address`";
            return Err(Problem::value(
                &format!("devices.{name}.connect"),
                &inside.to_string(),
                problem,
            ));
        }
        config.publish.insert(publication);
    }
    Ok(())
}

fn is_proxy(options: &Keys) -> bool {
    options.get("type").is_some_and(|kind| kind == "proxy")
}

fn option(key: &str, value: &str) -> Result<bool, Problem> {
    match key {
        "listen" | "connect" => {}
        "bind" => values::only(key, value, &["host"])?,
        // It is done by address translation in either case, and callers keep their addresses.
        "nat" => drop(values::truth(key, value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// What a device publishes, and the address inside that it says.
fn publication(name: &str, options: &Keys) -> Result<(Publication, IpAddr), Problem> {
    let place = |key: &str| {
        let field = format!("devices.{name}.{key}");
        let value = options.get(key).map_or("", String::as_str);
        value
            .parse::<Place>()
            .map_err(|problem| Problem::value(&field, value, problem))
    };
    let (listen, connect) = (place("listen")?, place("connect")?);
    let refuse = |problem: &str| {
        let value = options.get("connect").map_or("", String::as_str);
        Err(Problem::value(&format!("devices.{name}.connect"), value, problem))
    };
    if listen.transport != connect.transport {
        return refuse("does not carry what `listen` does");
    }
    if listen.last - listen.first != connect.last - connect.first {
        return refuse("has not as many ports as `listen`");
    }
    let door = Door {
        transport: listen.transport,
        host: Some(listen.address).filter(|address| !address.is_unspecified()),
        first: listen.first,
        last: listen.last,
    };
    let to = connect.first;
    Ok((Publication { door, to }, connect.address))
}

/// `tcp:ADDRESS:PORT[-PORT]`.
struct Place {
    transport: Transport,
    address: IpAddr,
    first: u16,
    last: u16,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is not of the form tcp:ADDRESS:PORT or udp:ADDRESS:PORT-PORT";
        let (kind, rest) = text.split_once(':').ok_or(FORM)?;
        let transport = match kind {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(FORM),
        };
        let (address, ports) = rest.rsplit_once(':').ok_or(FORM)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let address = address.parse().map_err(|_| FORM)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(FORM);
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err("has ports that end before they begin");
        }
        Ok(Self {
            transport,
            address,
            first,
            last,
        })
    }
}

/// Shows the ports as they are, where they are not what the setups say.
pub(super) fn correct(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    for gone in said.publish.difference(&config.publish) {
        let devices = expanded.devices.iter().filter(|(_, options)| is_proxy(options));
        let names =
            devices.filter(|(name, options)| publication(name, options).is_ok_and(|(is, _)| is == *gone));
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            remove(own, expanded, &name);
        }
    }
    for new in config.publish.difference(&said.publish) {
        let kind = new.door.transport.as_str();
        let name = free(expanded, &format!("{kind}{}", new.door.first));
        amend(own, expanded, &name, |options| {
            let host = new.door.host.unwrap_or(IpAddr::from([0; 4]));
            let place = |address: IpAddr, first: u16, last: u16| {
                let address = if address.is_ipv6() {
                    format!("[{address}]")
                } else {
                    address.to_string()
                };
                let ports = if first == last {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                };
                format!("{kind}:{address}:{ports}")
            };
            let listen = place(host, new.door.first, new.door.last);
            let connect = place(IpAddr::from([127, 0, 0, 1]), new.to, new.to_last());
            for (key, value) in [
                ("type", "proxy".to_owned()),
                ("listen", listen),
                ("connect", connect),
            ] {
                options.insert(key.to_owned(), value);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_kind_an_address_and_ports() {
        let place: Place = "tcp:0.0.0.0:80".parse().unwrap();
        assert_eq!(
            (place.first, place.last, place.transport),
            (80, 80, Transport::Tcp)
        );
        let place: Place = "udp:[2001:db8::1]:1000-1010".parse().unwrap();
        assert_eq!(
            (place.first, place.last, place.address.is_ipv6()),
            (1000, 1010, true)
        );
        for bad in [
            "",
            "tcp:80",
            "unix:/x",
            "tcp:a:80",
            "tcp:1.2.3.4:0",
            "tcp:1.2.3.4:9-8",
            "tcp:1.2.3.4:70000",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
