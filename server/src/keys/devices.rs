//! Devices: the root disk, network interfaces, ports of the host and devices of its own. What else one may be is refused by name.

use condo::vps::record::config::VpsConfig;
use condo::vps::record::device::Device;

use super::{Devices, Keys, Setup, nics, proxies, values};
use crate::reply::Problem;

/// Sets what the devices say.
pub(super) fn set(config: &mut VpsConfig, devices: &Devices) -> Result<(), Problem> {
    for (name, options) in devices {
        let option = |key: &str| options.get(key).map_or("", String::as_str);
        match (option("type"), option("path")) {
            ("none" | "nic" | "proxy", _) => {}
            ("disk", "/") => each(name, options, |key, value| root(config, key, value))?,
            ("unix-char", path) => {
                let source = if option("source").is_empty() {
                    path
                } else {
                    option("source")
                };
                let device: Device = source.parse()?;
                each(name, options, |key, value| character(&device, key, value))?;
                config.devices.insert(device);
            }
            ("", _) => return Err(Problem::bad(format!("devices.{name}: `type` is missing"))),
            ("disk", path) => {
                let problem = "is not supported: the root disk, with the path /, is";
                return Err(Problem::value(&format!("devices.{name}.path"), path, problem));
            }
            (other, _) => {
                let problem = "is not supported: disk, nic, proxy and unix-char are";
                return Err(Problem::value(&format!("devices.{name}.type"), other, problem));
            }
        }
    }
    nics::set(config, devices)?;
    proxies::set(config, devices)
}

/// Sets each option; an error names the device.
pub(super) fn each(
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
        "size" => config.disk.size = Some(values::size(key, value)?),
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

/// A character device of the host's. Inside it is where it is outside.
fn character(device: &Device, key: &str, value: &str) -> Result<bool, Problem> {
    match key {
        "source" => {}
        "path" => values::only(key, value, &[&device.path().display().to_string()])?,
        "required" => drop(values::truth(key, value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Shows all devices as they are, where they are not what the setups say.
pub(super) fn correct(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    disk(own, expanded, config, said);
    characters(own, expanded, config, said);
    nics::correct(own, expanded, config, said);
    proxies::correct(own, expanded, config, said);
}

/// Changes the options of a device, or makes it anew, in both setups.
pub(super) fn amend(own: &mut Setup, expanded: &mut Setup, name: &str, change: impl FnOnce(&mut Keys)) {
    let mut options = expanded.devices.get(name).cloned().unwrap_or_default();
    change(&mut options);
    for setup in [own, expanded] {
        setup.devices.insert(name.to_owned(), options.clone());
    }
}

/// Takes a device out of both setups. One of a profile is covered by one that is none.
pub(super) fn remove(own: &mut Setup, expanded: &mut Setup, name: &str) {
    let is_own = own.devices.remove(name).is_some();
    expanded.devices.remove(name);
    if !is_own {
        let none = Keys::from([("type".to_owned(), "none".to_owned())]);
        own.devices.insert(name.to_owned(), none);
    }
}

/// A name that no device has.
pub(super) fn free(expanded: &Setup, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    while expanded.devices.contains_key(&name) {
        name.push('x');
    }
    name
}

/// Puts an option in, or takes it out.
pub(super) fn put(options: &mut Keys, key: &str, value: Option<String>) {
    match value {
        Some(value) => drop(options.insert(key.to_owned(), value)),
        None => drop(options.remove(key)),
    }
}

fn disk(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    let (is, was) = (&config.limits, &said.limits);
    let read = (is.io_read, is.iops_read) != (was.io_read, was.iops_read);
    let write = (is.io_write, is.iops_write) != (was.io_write, was.iops_write);
    // It is rounded up to whole blocks.
    let close = |a: u64, b: u64| a.abs_diff(b) < 4096;
    let size = match (config.disk.size, said.disk.size) {
        (Some(is), Some(was)) => !close(is, was),
        (is, was) => is != was,
    };
    if !(read || write || size) {
        return;
    }
    let is_root = |options: &Keys| options.get("path").is_some_and(|path| path == "/");
    let found = expanded.devices.iter().find(|(_, options)| is_root(options));
    let Some(name) = found.map(|(name, _)| name.clone()) else {
        return;
    };
    let speed = |bytes: Option<u64>, times: Option<u64>| {
        bytes
            .map(values::bytes)
            .or(times.map(|times| format!("{times}iops")))
    };
    amend(own, expanded, &name, |options| {
        if read || write {
            options.remove("limits.max");
            put(options, "limits.read", speed(is.io_read, is.iops_read));
            put(options, "limits.write", speed(is.io_write, is.iops_write));
        }
        if size {
            put(options, "size", config.disk.size.map(values::bytes));
        }
    });
}

fn characters(own: &mut Setup, expanded: &mut Setup, config: &VpsConfig, said: &VpsConfig) {
    for device in config.devices.difference(&said.devices) {
        let base = device
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = free(expanded, &base);
        amend(own, expanded, &name, |options| {
            for (key, value) in [("type", "unix-char".to_owned()), ("source", device.to_string())] {
                options.insert(key.to_owned(), value);
            }
        });
    }
    let gone: Vec<String> = said
        .devices
        .difference(&config.devices)
        .map(ToString::to_string)
        .collect();
    let names: Vec<String> = expanded
        .devices
        .iter()
        .filter(|(_, options)| {
            options
                .get("source")
                .or(options.get("path"))
                .is_some_and(|path| gone.contains(path))
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        remove(own, expanded, &name);
    }
}
