//! Network interfaces: each is on a network of condo's.

use condo::net::filter::{Action, Direction};
use condo::vps::record::attachment::{Attachment, DEFAULT_NETWORK, network_name};
use condo::vps::record::config::VpsConfig;
use condo::vps::record::name::Name;
use condo::vps::record::network::NetworkRecord;

use super::devices::{amend, each, free, put, remove};
use super::{Devices, Keys, Setup, values};
use crate::reply::Problem;

/// The interface that shows what all interfaces of the VPS have together.
const FIRST: &str = "eth0";

/// What becomes of packets that no rule of the instance's ACL is about.
const INGRESS: &str = "security.acls.default.ingress.action";
const EGRESS: &str = "security.acls.default.egress.action";

/// Sets what the interfaces say. One that says nothing but the usual is one of which nothing was said.
pub(super) fn set(config: &mut VpsConfig, devices: &Devices) -> Result<(), Problem> {
    let mut all = Vec::new();
    let nics = devices.iter().filter(|(_, options)| is_nic(options));
    for (name, options) in nics {
        let network = network(name, options)?;
        let mut attachment = Attachment::to(network);
        let mut place = None;
        each(name, options, |key, value| {
            option(config, &mut attachment, &mut place, key, value)
        })?;
        let is_common = |key: &String| key.starts_with("limits.") || key.starts_with("security.acls.");
        if let Some(key) = options.keys().find(|key| !all.is_empty() && is_common(key)) {
            return Err(Problem::bad(format!(
                "devices.{name}: `{key}` is for the first nic: all nics of the instance share it"
            )));
        }
        all.push((place.unwrap_or_else(|| name.clone()), attachment));
    }
    // `eth0` comes first, whatever the devices are called.
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut all: Vec<Attachment> = all.into_iter().map(|(_, attachment)| attachment).collect();
    let usual =
        |one: &Attachment| one.network.as_str() == DEFAULT_NETWORK && one.ip6.is_none() && one.mac.is_none();
    if let [one] = all.as_slice()
        && usual(one)
    {
        config.ip = one.ip;
        all.clear();
    }
    config.networks = all;
    Ok(())
}

fn is_nic(options: &Keys) -> bool {
    options.get("type").is_some_and(|kind| kind == "nic")
}

fn network(name: &str, options: &Keys) -> Result<Name, Problem> {
    let given = options.get("network").or(options.get("parent"));
    let given = given.filter(|text| !text.is_empty());
    given.map_or_else(
        || Err(Problem::bad(format!("devices.{name}: `network` is missing"))),
        |text| Ok(network_name(&format!("devices.{name}.network"), text)?),
    )
}

fn option(
    config: &mut VpsConfig,
    attachment: &mut Attachment,
    place: &mut Option<String>,
    key: &str,
    value: &str,
) -> Result<bool, Problem> {
    match key {
        "name" => {
            let number = value
                .strip_prefix("eth")
                .and_then(|number| number.parse::<u8>().ok());
            if number.is_none() {
                return Err(Problem::value(
                    key,
                    value,
                    "is not supported: interfaces are called eth0, eth1 …",
                ));
            }
            *place = Some(value.to_owned());
        }
        "nictype" => values::only(key, value, &["bridged"])?,
        "network" | "parent" => {}
        "ipv4.address" => {
            let address = value.parse();
            attachment.ip = Some(address.map_err(|_| Problem::value(key, value, "is not an IPv4 address"))?);
        }
        "ipv6.address" => {
            let address = value.parse();
            attachment.ip6 = Some(address.map_err(|_| Problem::value(key, value, "is not an IPv6 address"))?);
        }
        "hwaddr" => attachment.mac = Some(value.parse()?),
        // A VPS sends from its own addresses or not at all.
        "security.mac_filtering" | "security.ipv4_filtering" | "security.ipv6_filtering" => {
            if !values::truth(key, value)? {
                return Err(Problem::value(
                    key,
                    value,
                    "is not supported: addresses are always held to",
                ));
            }
        }
        "limits.ingress" => config.limits.rate_in = Some(values::bits(key, value)?),
        "limits.egress" => config.limits.rate_out = Some(values::bits(key, value)?),
        INGRESS => config
            .firewall
            .set_policy(Direction::In, values::policy(key, value)?),
        EGRESS => config
            .firewall
            .set_policy(Direction::Out, values::policy(key, value)?),
        "security.acls" => {
            let problem = "is not supported: the ACL of an instance has its name, and is always in force";
            return Err(Problem::value(key, value, problem));
        }
        "limits.max" => {
            config.limits.rate_in = Some(values::bits(key, value)?);
            config.limits.rate_out = config.limits.rate_in;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The networks that a configuration says.
fn networks(config: &VpsConfig) -> Vec<Name> {
    if config.networks.is_empty() {
        return vec![NetworkRecord::default_name()];
    }
    config.networks.iter().map(|one| one.network.clone()).collect()
}

/// Shows the interfaces as they are, where they are not what the setups say.
pub(super) fn correct(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    let (is, was) = (networks(config), networks(said));
    let on = |options: &Keys| {
        options
            .get("network")
            .or(options.get("parent"))
            .cloned()
            .unwrap_or_default()
    };
    for gone in was.iter().filter(|network| !is.contains(network)) {
        let names = expanded.devices.iter();
        let names = names.filter(|(_, options)| is_nic(options) && on(options) == gone.as_str());
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            remove(own, expanded, &name);
        }
    }
    for new in is.iter().filter(|network| !was.contains(network)) {
        let number = expanded
            .devices
            .values()
            .filter(|options| is_nic(options))
            .count();
        let name = free(expanded, &format!("eth{number}"));
        amend(own, expanded, &name, |options| {
            for (key, value) in [("type", "nic"), ("network", new.as_str())] {
                options.insert(key.to_owned(), value.to_owned());
            }
        });
    }
    let common = |config: &VpsConfig| {
        let (limits, firewall) = (&config.limits, &config.firewall);
        (
            limits.rate_in,
            limits.rate_out,
            firewall.incoming,
            firewall.outgoing,
        )
    };
    if common(config) != common(said) {
        let nics = || expanded.devices.iter().filter(|(_, options)| is_nic(options));
        let first = nics().find(|(name, _)| *name == FIRST).or(nics().next());
        let Some(name) = first.map(|(name, _)| name.clone()) else {
            return;
        };
        amend(own, expanded, &name, |options| show_common(options, config));
    }
}

/// What all interfaces have together, as options of the first.
fn show_common(options: &mut Keys, config: &VpsConfig) {
    options.remove("limits.max");
    let (limits, firewall) = (&config.limits, &config.firewall);
    put(options, "limits.ingress", limits.rate_in.map(values::bit_rate));
    put(options, "limits.egress", limits.rate_out.map(values::bit_rate));
    for (key, action) in [(INGRESS, firewall.incoming), (EGRESS, firewall.outgoing)] {
        let denies = action == Action::Deny;
        put(options, key, denies.then(|| "drop".to_owned()));
    }
}
