//! Devices: the root disk and the network interface. What else a device may be is refused by name.

use condo::vps::record::config::VpsConfig;

use super::{Devices, Keys, Setup, values};
use crate::reply::Problem;

/// Sets what the devices say.
pub(super) fn set(config: &mut VpsConfig, devices: &Devices) -> Result<(), Problem> {
    let mut nics = 0;
    for (name, options) in devices {
        let option = |key: &str| options.get(key).map_or("", String::as_str);
        match (option("type"), option("path")) {
            ("none", _) => {}
            ("disk", "/") => each(name, options, |key, value| root(config, key, value))?,
            ("nic", _) => {
                nics += 1;
                each(name, options, |key, value| nic(config, key, value))?;
            }
            ("", _) => return Err(Problem::bad(format!("devices.{name}: `type` is missing"))),
            ("disk", path) => {
                let problem = "is not supported: the root disk, with the path /, is";
                return Err(Problem::value(&format!("devices.{name}.path"), path, problem));
            }
            (other, _) => {
                let problem = "is not supported: disk and nic are";
                return Err(Problem::value(&format!("devices.{name}.type"), other, problem));
            }
        }
    }
    if nics > 1 {
        return Err(Problem::bad("devices: more than one nic is not supported"));
    }
    Ok(())
}

/// Sets each option; an error names the device.
fn each(
    name: &str,
    options: &Keys,
    mut set: impl FnMut(&str, &str) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    for (key, value) in options
        .iter()
        .filter(|(key, value)| *key != "type" && !value.is_empty())
    {
        let known = set(key, value).map_err(|e| Problem::bad(format!("devices.{name}.{}", e.text)))?;
        if !known {
            return Err(Problem::bad(format!(
                "devices.{name}: option `{key}` is not supported"
            )));
        }
    }
    Ok(())
}

fn root(config: &mut VpsConfig, key: &str, value: &str) -> Result<bool, Problem> {
    match key {
        "path" => {}
        "pool" => values::only(key, value, &["default"])?,
        "limits.read" => rate(config, key, value, true)?,
        "limits.write" => rate(config, key, value, false)?,
        "limits.max" => {
            rate(config, key, value, true)?;
            rate(config, key, value, false)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Bytes a second, or requests (`100iops`).
fn rate(config: &mut VpsConfig, key: &str, value: &str, read: bool) -> Result<(), Problem> {
    let limits = &mut config.limits;
    let (times, bytes) = if read {
        (&mut limits.iops_read, &mut limits.io_read)
    } else {
        (&mut limits.iops_write, &mut limits.io_write)
    };
    match value.strip_suffix("iops") {
        Some(number) => *times = Some(values::number(key, number)?),
        None => *bytes = Some(values::size(key, value)?),
    }
    Ok(())
}

fn nic(config: &mut VpsConfig, key: &str, value: &str) -> Result<bool, Problem> {
    match key {
        "name" => values::only(key, value, &["eth0"])?,
        "nictype" => values::only(key, value, &["bridged"])?,
        // The one network there is goes by the name of its bridge.
        "network" | "parent" => {}
        "ipv4.address" => {
            let address = value.parse();
            config.ip = Some(address.map_err(|_| Problem::value(key, value, "is not an IPv4 address"))?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Shows the limits of the root disk as they are, where they are not what the devices say.
pub(super) fn correct(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    let (is, was) = (&config.limits, &said.limits);
    let read = (is.io_read, is.iops_read) != (was.io_read, was.iops_read);
    let write = (is.io_write, is.iops_write) != (was.io_write, was.iops_write);
    if !(read || write) {
        return;
    }
    let is_root = |options: &Keys| options.get("path").is_some_and(|path| path == "/");
    let found = expanded.devices.iter().find(|(_, options)| is_root(options));
    let Some((name, mut options)) = found.map(|(name, options)| (name.clone(), options.clone())) else {
        return;
    };
    options.remove("limits.max");
    for (key, bytes, times) in [
        ("limits.read", is.io_read, is.iops_read),
        ("limits.write", is.io_write, is.iops_write),
    ] {
        match (bytes, times) {
            (Some(bytes), _) => options.insert(key.to_owned(), values::bytes(bytes)),
            (None, Some(times)) => options.insert(key.to_owned(), format!("{times}iops")),
            (None, None) => options.remove(key),
        };
    }
    for setup in [own, expanded] {
        setup.devices.insert(name.clone(), options.clone());
    }
}
