//! Projects: tenants, each with limits on the sum of what its VPSs may use.
//!
//! Names of VPSs are the machine's: two projects cannot both have a `web`. Whoever has no project is in `default`, which has no
//! limits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::Limits;
use super::name::Name;
use super::size;
use super::store::Record;
use crate::error::{Error, Result};
use crate::net::rate;

/// The project of those that are in none.
pub const DEFAULT: &str = "default";

/// The most that all VPSs of a project may use together; what is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// How many there may be.
    pub vpss: Option<u64>,
    /// How many addresses they may have.
    pub addresses: Option<u64>,
    /// Processors' worth of time.
    pub cpus: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Room on disks in bytes.
    pub disk: Option<u64>,
    /// Bits a second, of the greater of both directions of each.
    pub bandwidth: Option<u64>,
    /// Whether the kernel holds processors and memory for all of them together, in one cgroup: then what each may use is not added up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

/// A project of this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Its name.
    pub name: Name,
    /// What it may use.
    #[serde(default)]
    pub limits: Allowance,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// A project as `project list` and `project show` present it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    /// Its name.
    pub name: Name,
    /// What it may use.
    pub limits: Allowance,
    /// What its VPSs may use: their own limits, added up.
    pub used: Allowance,
    /// Its VPSs.
    pub vpss: Vec<Name>,
}

/// What is added up: a field of [`Allowance`], the option that bounds it for one VPS, and how much one takes.
struct Resource {
    field: &'static str,
    option: &'static str,
    taken: fn(&Record) -> Option<u64>,
    limit: fn(&Allowance) -> Option<u64>,
    shown: fn(u64) -> String,
    /// Whether a cgroup can hold it for several VPSs.
    holds: bool,
}

/// Processors are counted in thousandths.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "thousandths of the processors of a host"
)]
fn thousandths(cpus: f64) -> u64 {
    (cpus * 1000.0).round() as u64
}

#[allow(
    clippy::cast_precision_loss,
    reason = "thousandths of the processors of a host"
)]
fn processors(thousandths: u64) -> f64 {
    thousandths as f64 / 1000.0
}

const RESOURCES: [Resource; 6] = [
    Resource {
        field: "vpss",
        option: "",
        taken: |_| Some(1),
        limit: |all| all.vpss,
        shown: |n| n.to_string(),
        holds: false,
    },
    Resource {
        field: "addresses",
        option: "",
        taken: |vps| {
            let sixth = vps.interfaces.iter().filter(|one| one.address6.is_some()).count();
            Some((vps.interfaces.len() + sixth) as u64)
        },
        limit: |all| all.addresses,
        shown: |n| n.to_string(),
        holds: false,
    },
    Resource {
        field: "cpus",
        option: "--cpus",
        taken: |vps| vps.config.limits.cpus.map(thousandths),
        limit: |all| all.cpus.map(thousandths),
        shown: |n| processors(n).to_string(),
        holds: true,
    },
    Resource {
        field: "memory",
        option: "--memory",
        taken: |vps| vps.config.limits.memory,
        limit: |all| all.memory,
        shown: size::display,
        holds: true,
    },
    Resource {
        field: "disk",
        option: "--disk",
        taken: |vps| vps.config.disk.size,
        limit: |all| all.disk,
        shown: size::display,
        holds: false,
    },
    Resource {
        field: "bandwidth",
        option: "--rate",
        taken: |vps| {
            let rates = vps.config.limits.rates();
            Some(rates.incoming?.max(rates.outgoing?))
        },
        limit: |all| all.bandwidth,
        shown: rate::display,
        holds: false,
    },
];

impl Project {
    /// Refuses a VPS that would take more than is left, or that has no limit of something that is limited. What it had before,
    /// `before`, nobody takes away: a project may be given less than it uses.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option, or [`Error::Status`] for what has none; both say what is left.
    pub(super) fn admit(&self, others: &[Record], before: Option<&Record>, after: &Record) -> Result<()> {
        RESOURCES.iter().try_for_each(|resource| {
            let Some(limit) = (resource.limit)(&self.limits) else {
                return Ok(());
            };
            let together = resource.holds && self.limits.is_shared();
            let Some(wanted) = (resource.taken)(after) else {
                if together || before.is_some_and(|before| (resource.taken)(before).is_none()) {
                    return Ok(());
                }
                let problem = format!("must be given: the project `{}` has a limit of it", self.name);
                return Err(Error::invalid(resource.option, "", problem));
            };
            let had = before.and_then(resource.taken).unwrap_or(0);
            let others = others.iter().filter(|_| !together);
            let used: u64 = others.filter_map(resource.taken).sum();
            if wanted <= had || used.saturating_add(wanted) <= limit {
                return Ok(());
            }
            Err(self.exhausted(resource, wanted, limit, limit.saturating_sub(used)))
        })
    }

    fn exhausted(&self, resource: &Resource, wanted: u64, limit: u64, left: u64) -> Error {
        let (limit, left) = ((resource.shown)(limit), (resource.shown)(left));
        let problem = format!(
            "is more than is left in the project `{}`: {left} of {limit} {}",
            self.name, resource.field
        );
        match resource.option {
            "" => Error::Status(format!("{} {problem}", (resource.shown)(wanted))),
            option => Error::invalid(option, (resource.shown)(wanted), problem),
        }
    }

    /// Gives a VPS that names no limit of its own what the project has for all, if the kernel holds that for all together: so that it
    /// sees inside how much there is at most.
    pub fn lend(&self, limits: &mut Limits) {
        if self.limits.is_shared() {
            limits.cpus = limits.cpus.or(self.limits.cpus);
            limits.memory = limits.memory.or(self.limits.memory);
        }
    }

    /// The project with what its VPSs, `members`, may use together.
    pub fn view(self, members: &[Record]) -> ProjectView {
        let sum = |resource: &Resource| members.iter().filter_map(resource.taken).sum::<u64>();
        let [vpss, addresses, cpus, memory, disk, bandwidth] = RESOURCES.each_ref().map(sum);
        ProjectView {
            name: self.name,
            limits: self.limits,
            used: Allowance {
                vpss: Some(vpss),
                addresses: Some(addresses),
                cpus: Some(processors(cpus)),
                memory: Some(memory),
                disk: Some(disk),
                bandwidth: Some(bandwidth),
                shared: None,
            },
            vpss: members.iter().map(|vps| vps.name.clone()).collect(),
        }
    }
}

impl Allowance {
    /// Whether processors and memory are held for all VPSs together.
    pub fn is_shared(&self) -> bool {
        self.shared == Some(true)
    }

    /// With what `set` says in its place, and without the limits that `lift` names.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name of no limit.
    pub fn changed(self, set: Self, lift: &[String]) -> Result<Self> {
        let fields = |all: Self| match serde_json::to_value(all) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let mut after = fields(self);
        for name in lift {
            if after.insert(name.clone(), Value::Null).is_none() {
                let all: Vec<&str> = RESOURCES.iter().map(|resource| resource.field).collect();
                let problem = format!(
                    "is no limit of a project; they are {}, and shared",
                    all.join(", ")
                );
                return Err(Error::invalid("--no-limit", name, problem));
            }
        }
        after.extend(fields(set).into_iter().filter(|(_, value)| !value.is_null()));
        Ok(serde_json::from_value(Value::Object(after))?)
    }

    /// Each limit as it is shown: its name, what is used, and the limit.
    pub fn lines(&self, used: &Self) -> Vec<(&'static str, String, Option<String>)> {
        RESOURCES
            .iter()
            .map(|resource| {
                let used = (resource.limit)(used).unwrap_or(0);
                let limit = (resource.limit)(self).map(resource.shown);
                (resource.field, (resource.shown)(used), limit)
            })
            .collect()
    }

    /// Each limit as a number: its name, what is used, and the limit.
    #[allow(
        clippy::cast_precision_loss,
        reason = "figures of this size have room in 53 bits"
    )]
    pub fn figures(&self, used: &Self) -> Vec<(&'static str, f64, Option<f64>)> {
        let number = |resource: &Resource, value: u64| match resource.field {
            "cpus" => processors(value),
            _ => value as f64,
        };
        RESOURCES
            .iter()
            .map(|resource| {
                let used = number(resource, (resource.limit)(used).unwrap_or(0));
                let limit = (resource.limit)(self).map(|limit| number(resource, limit));
                (resource.field, used, limit)
            })
            .collect()
    }

    /// Refuses limits that nothing fits into.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option.
    pub fn check(&self) -> Result<()> {
        if let Some(cpus) = self
            .cpus
            .filter(|cpus| !cpus.is_finite() || *cpus <= 0.0 || *cpus > 1e6)
        {
            return Err(Error::invalid("--cpus", cpus, "must be above 0"));
        }
        for resource in &RESOURCES {
            if (resource.limit)(self) == Some(0) {
                return Err(Error::invalid(
                    format!("--{}", resource.field),
                    0,
                    "must be above 0",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vps::record::config::VpsConfig;

    fn vps(name: &str, memory: Option<u64>) -> Record {
        let mut config = VpsConfig::new("busybox");
        config.limits.memory = memory;
        Record {
            name: name.parse().unwrap(),
            id: 1,
            uid_base: 1,
            address: std::net::Ipv4Addr::LOCALHOST,
            interfaces: Vec::new(),
            uuid: String::new(),
            config,
            created: 0,
            last_exit: None,
        }
    }

    fn project(limits: &str) -> Project {
        Project {
            name: "shop".parse().unwrap(),
            limits: serde_json::from_str(limits).unwrap(),
            created: 0,
        }
    }

    #[test]
    fn what_is_left_is_taken_and_no_more() {
        let shop = project(r#"{"memory":104857600}"#);
        let others = [vps("a", Some(60 << 20))];
        shop.admit(&others, None, &vps("b", Some(40 << 20))).unwrap();
        let refused = shop.admit(&others, None, &vps("b", Some(41 << 20))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--memory: `41M` is more than is left in the project `shop`: 40M of 100M memory"
        );
        let none = shop
            .admit(&others, None, &vps("b", None))
            .unwrap_err()
            .to_string();
        assert!(
            none.contains("--memory") && none.contains("the project `shop` has a limit of it"),
            "{none}"
        );
    }

    #[test]
    fn what_a_vps_has_it_keeps() {
        let shop = project(r#"{"memory":10}"#);
        let (large, less, none) = (vps("a", Some(50)), vps("a", Some(40)), vps("a", None));
        shop.admit(&[], Some(&large), &less).unwrap();
        shop.admit(&[], Some(&large), &large).unwrap();
        shop.admit(&[], Some(&none), &none).unwrap();
        assert!(shop.admit(&[], Some(&less), &large).is_err());
        assert!(
            shop.admit(&[], Some(&large), &none).is_err(),
            "without a limit is more than any"
        );
    }

    #[test]
    fn the_number_of_vpss_has_no_option() {
        let shop = project(r#"{"vpss":1}"#);
        shop.admit(&[], None, &vps("a", None)).unwrap();
        let refused = shop.admit(&[vps("a", None)], None, &vps("b", None)).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("1 is more than is left in the project `shop`: 0 of 1 vpss"),
            "{refused}"
        );
    }

    #[test]
    fn limits_are_changed_one_by_one() {
        let before = project(r#"{"memory":10,"vpss":3}"#).limits;
        let set = project(r#"{"vpss":4,"cpus":1.5}"#).limits;
        let after = before.changed(set, &["memory".to_owned()]).unwrap();
        assert_eq!(after, project(r#"{"vpss":4,"cpus":1.5}"#).limits);
        assert!(
            before
                .changed(set, &["colour".to_owned()])
                .unwrap_err()
                .to_string()
                .contains("is no limit of a project")
        );
        assert!(
            project(r#"{"disk":0}"#)
                .limits
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("--disk: `0`")
        );
    }
}
