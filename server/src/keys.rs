//! LXD's configuration keys and devices, as condo's configuration and back.
//!
//! What is not mapped is refused by name: a limit that is taken and does not hold is worse than none. Keys of other tools
//! (`user.*`, `image.*`) are kept as they are. What the command line has changed since shows as the key that says the same.

use std::collections::BTreeMap;

use condo::net::filter::Filter;
use condo::vps::record::config::VpsConfig;
use condo::vps::record::first_boot::FirstBoot;
use condo::vps::record::ids;

use crate::reply::Problem;

mod cpu;
mod devices;
mod nics;
mod proxies;
pub(crate) mod values;

pub(crate) use values::truth;

/// What cloud-init is given, or a script.
const USER_DATA: &str = "cloud-init.user-data";
/// What it was called before.
const OLD_USER_DATA: &str = "user.user-data";

/// Whether `sysinfo(2)` is answered.
const SYSINFO: &str = "security.syscalls.intercept.sysinfo";

/// Keys with their values.
pub(crate) type Keys = BTreeMap<String, String>;
/// Devices with their options.
pub(crate) type Devices = BTreeMap<String, Keys>;

/// The bound on tasks that a VPS gets when nobody asked for one.
const DEFAULT_PIDS: u64 = 4096;

/// What an instance or a profile is configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Setup {
    pub(crate) keys: Keys,
    pub(crate) devices: Devices,
}

impl Setup {
    /// Adds another to it, whose values weigh more. Devices are replaced as a whole.
    pub(crate) fn extend(&mut self, other: &Self) {
        let keys = other.keys.iter().map(|(key, value)| (key.clone(), value.clone()));
        self.keys.extend(keys);
        let devices = other
            .devices
            .iter()
            .map(|(name, options)| (name.clone(), options.clone()));
        self.devices.extend(devices);
    }

    /// Writes what it asks for into the configuration of a VPS, in the place of all that keys can say there.
    pub(crate) fn apply(&self, config: &mut VpsConfig) -> Result<(), Problem> {
        config.limits = Default::default();
        config.env.clear();
        config.ip = None;
        config.nesting = false;
        config.own_sysinfo = true;
        config.ids = None;
        config.boot.autostart = false;
        config.boot.delay = 0;
        config.boot.order = 0;
        config.disk.size = None;
        config.devices.clear();
        config.publish.clear();
        // Its rules are an object of their own.
        config.firewall = Filter {
            rules: std::mem::take(&mut config.firewall.rules),
            ..Filter::default()
        };
        for (key, value) in self.keys.iter().filter(|(_, value)| !value.is_empty()) {
            set(config, key, value)?;
        }
        cpu::set(&mut config.limits, &self.keys)?;
        devices::set(config, &self.devices)
    }

    /// What a new instance is given before its first start.
    pub(crate) fn first_boot(&self) -> FirstBoot {
        let given = |key: &str| self.keys.get(key).filter(|value| !value.is_empty());
        FirstBoot {
            user_data: given(USER_DATA).or(given(OLD_USER_DATA)).cloned(),
            ..FirstBoot::default()
        }
    }

    /// Changes its values where a VPS is configured otherwise, as `shown` says of `expanded`, which has them with those of profiles.
    pub(crate) fn correct(&mut self, expanded: &mut Self, config: &VpsConfig) {
        let mut said = VpsConfig::new(config.image.clone());
        // What was refused says nothing.
        let _ = expanded.apply(&mut said);
        let mut found = Keys::new();
        let mut differs = |key: &str, differ: bool, value: Option<String>| {
            if differ {
                found.insert(key.to_owned(), value.unwrap_or_default());
            }
        };
        let mut shown = config.clone();
        // Nobody said so, and all have it.
        let usual = said.limits.pids.is_none() && shown.limits.pids == Some(DEFAULT_PIDS);
        shown.limits.pids = shown.limits.pids.filter(|_| !usual);
        for ((key, is), (_, was)) in single(&shown).into_iter().zip(single(&said)) {
            differs(key, is != was, is);
        }
        let (is, was) = (&config.limits, &said.limits);
        if (is.cpus, &is.cpuset, is.cpu_weight) != (was.cpus, &was.cpuset, was.cpu_weight) {
            let (cpu, allowance) = cpu::keys(is);
            differs("limits.cpu", true, cpu);
            differs("limits.cpu.allowance", true, allowance);
        }
        for key in config.env.keys().chain(said.env.keys()) {
            let (is, was) = (config.env.get(key), said.env.get(key));
            differs(&format!("environment.{key}"), is != was, is.cloned());
        }
        for setup in [&mut *self, expanded] {
            for (key, value) in &found {
                if value.is_empty() {
                    setup.keys.remove(key);
                } else {
                    setup.keys.insert(key.clone(), value.clone());
                }
            }
        }
        devices::correct(self, expanded, config, &said);
    }
}

/// The keys that say one thing each, with what they say of a VPS.
fn single(config: &VpsConfig) -> [(&'static str, Option<String>); 9] {
    let (limits, boot) = (&config.limits, config.boot);
    let truth = |is: bool| is.then(|| "true".to_owned());
    let priority = limits.io_weight.map(values::priority);
    let delay = Some(boot.delay).filter(|delay| *delay > 0);
    let order = Some(boot.order).filter(|order| *order != 0);
    [
        ("limits.memory", limits.memory.map(values::bytes)),
        ("limits.processes", limits.pids.map(|pids| pids.to_string())),
        (
            "limits.disk.priority",
            priority.map(|priority| priority.to_string()),
        ),
        ("security.nesting", truth(config.nesting)),
        (SYSINFO, (!config.own_sysinfo).then(|| "false".to_owned())),
        ("security.idmap.size", config.ids.map(|ids| ids.to_string())),
        ("boot.autostart", truth(boot.autostart)),
        ("boot.autostart.delay", delay.map(|delay| delay.to_string())),
        // Whoever has the higher one comes first.
        (
            "boot.autostart.priority",
            order.map(|order| order.saturating_neg().to_string()),
        ),
    ]
}

/// Keys without those that are made up anew whenever they are read.
pub(crate) fn lasting(keys: Keys) -> Keys {
    keys.into_iter()
        .filter(|(key, _)| !key.starts_with("volatile."))
        .collect()
}

/// One key. Those of processors belong together and are set at the end.
fn set(config: &mut VpsConfig, key: &str, value: &str) -> Result<(), Problem> {
    let limits = &mut config.limits;
    match key {
        "limits.cpu" | "limits.cpu.allowance" => {}
        "limits.memory" => limits.memory = Some(values::memory(key, value)?),
        "limits.memory.enforce" => values::only(key, value, &["hard"])?,
        "limits.memory.swap" => {
            if !truth(key, value)? {
                limits.swap = Some(0);
            }
        }
        "limits.disk.priority" => limits.io_weight = values::weight(key, value)?,
        "limits.processes" => limits.pids = Some(values::number(key, value)?),
        "security.nesting" => config.nesting = truth(key, value)?,
        SYSINFO => config.own_sysinfo = truth(key, value)?,
        "security.idmap.size" => config.ids = Some(ids::check(values::number(key, value)?)?),
        "boot.autostart" => config.boot.autostart = truth(key, value)?,
        // Whoever has the higher one comes first.
        "boot.autostart.priority" => config.boot.order = -values::whole(key, value)?,
        "boot.autostart.delay" => config.boot.delay = values::seconds(key, value)?,
        // What is given once, before the first start.
        USER_DATA => {}
        "user.vendor-data" | "user.network-config" => {
            return Err(Problem::value(key, value, "is not supported: user.user-data is"));
        }
        "security.privileged" | "security.protection.delete" | "security.protection.shift" => {
            if truth(key, value)? {
                return Err(Problem::value(
                    key,
                    value,
                    "is not supported: condo has no such VPSs",
                ));
            }
        }
        _ if kept(key) => {}
        _ => match key.strip_prefix("environment.") {
            Some(name) if !name.is_empty() => drop(config.env.insert(name.to_owned(), value.to_owned())),
            _ => return Err(Problem::bad(format!("config: key `{key}` is not supported"))),
        },
    }
    Ok(())
}

/// Keys that condo makes nothing of.
fn kept(key: &str) -> bool {
    key.starts_with("user.") || key.starts_with("image.") || key.starts_with("volatile.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(keys: &[(&str, &str)], root: &[(&str, &str)]) -> Setup {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<Keys>()
        };
        let mut devices = Devices::new();
        if !root.is_empty() {
            devices.insert("root".into(), map(root));
        }
        Setup {
            keys: map(keys),
            devices,
        }
    }

    fn applied(setup: &Setup) -> Result<VpsConfig, Problem> {
        let mut config = VpsConfig::new("busybox");
        setup.apply(&mut config).map(|()| config)
    }

    #[test]
    fn keys_become_limits() {
        let config = applied(&setup(
            &[
                ("limits.memory", "512MiB"),
                ("limits.cpu", "2"),
                ("limits.cpu.allowance", "50%"),
                ("limits.processes", "100"),
                ("limits.disk.priority", "10"),
                ("environment.TZ", "UTC"),
                ("user.x", "y"),
            ],
            &[
                ("type", "disk"),
                ("path", "/"),
                ("pool", "default"),
                ("limits.read", "30MB"),
                ("limits.write", "100iops"),
            ],
        ))
        .unwrap();
        let limits = &config.limits;
        assert_eq!(
            (limits.memory, limits.cpus, limits.cpu_weight),
            (Some(512 << 20), Some(2.0), Some(50))
        );
        assert_eq!(
            (limits.pids, limits.io_read, limits.iops_write),
            (Some(100), Some(30_000_000), Some(100))
        );
        assert_eq!((config.env["TZ"].as_str(), limits.io_weight), ("UTC", Some(200)));
    }

    #[test]
    fn what_is_not_mapped_is_named() {
        for (key, value) in [
            ("limits.memory", "4G"),
            ("limits.cpu", "x"),
            ("limits.disk.priority", "11"),
            ("limits.cpu.allowance", "50"),
            ("security.privileged", "true"),
            ("raw.lxc", "x"),
            ("environment.", "x"),
            ("limits.memory.enforce", "soft"),
        ] {
            let refused = applied(&setup(&[(key, value)], &[])).unwrap_err();
            assert!(refused.text.contains(key), "{}", refused.text);
            assert_eq!(refused.code, 400);
        }
        let root = [("type", "disk"), ("path", "/"), ("raw.mount.options", "x")];
        let refused = applied(&setup(&[], &root)).unwrap_err();
        assert!(
            refused.text.contains("root") && refused.text.contains("raw.mount.options"),
            "{}",
            refused.text
        );
    }

    #[test]
    fn what_was_changed_elsewhere_shows() {
        let mut own = setup(&[("limits.memory", "512MiB"), ("limits.cpu", "2")], &[]);
        let mut config = applied(&own).unwrap();
        let mut all = own.clone();
        own.correct(&mut all, &config);
        assert_eq!(own, all, "nothing changes what says the same");
        config.limits.memory = Some(1 << 30);
        config.limits.cpus = Some(0.5);
        config.limits.pids = Some(4096);
        own.correct(&mut all, &config);
        assert_eq!(own.keys["limits.memory"], "1GiB");
        assert_eq!(own.keys["limits.cpu.allowance"], "50ms/100ms");
        assert!(!own.keys.contains_key("limits.cpu") && !own.keys.contains_key("limits.processes"));
        assert_eq!(applied(&own).unwrap().limits.cpus, Some(0.5));
    }
}
