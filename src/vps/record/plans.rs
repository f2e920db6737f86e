//! Plans: limits under a name, as the operator sells them. They are in `plans.toml`, beside `condo.toml`.
//!
//! ```toml
//! [small]
//! cpus = 1
//! memory = "1G"
//! disk = "20G"
//! ```
//! A VPS remembers its plan and its own exceptions from it. What a plan says is looked up when a VPS is given it, so that a change
//! of the file changes no VPS by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::fields;
use super::config::VpsConfig;
use super::instance::Condo;
use super::limits::Limits;
use super::{settings, size};
use crate::error::{During, Error, Result};
use crate::storage::Quota;

/// The limits of a plan that are no sizes.
const NUMBERS: [&str; 6] = [
    "cpus",
    "cpu_weight",
    "pids",
    "iops_read",
    "iops_write",
    "io_weight",
];

/// What a plan gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// What the VPS may use.
    #[serde(flatten)]
    pub limits: Limits,
    /// Bytes that fit on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Files and directories that fit on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

/// The plan of a VPS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Its name.
    pub name: String,
    /// Limits that the VPS has of its own, by their names in JSON: another plan leaves them as they are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub except: BTreeSet<String>,
}

impl Membership {
    /// The limits of a VPS that has this plan, and `own` until now: the plan's, but for its exceptions.
    pub(in crate::vps) fn limits(&self, plan: &Plan, own: &Limits) -> Result<Limits> {
        let mut all = fields(&plan.limits)?;
        all.retain(|field, _| !self.except.contains(field));
        let except = fields(own)?
            .into_iter()
            .filter(|(field, _)| self.except.contains(field));
        all.extend(except);
        Ok(serde_json::from_value(Value::Object(all))?)
    }

    /// What the plan says of the disk, unless the VPS has one of its own.
    pub(in crate::vps) fn disk(&self, plan: &Plan) -> Quota {
        let given = |field: &str, value: Option<u64>| value.filter(|_| !self.except.contains(field));
        Quota {
            size: given("disk", plan.disk),
            inodes: given("inodes", plan.inodes),
        }
    }
}

impl Condo {
    /// The configuration of a new VPS under a plan: what it does not say is the plan's.
    ///
    /// # Errors
    /// As [`Condo::plan`].
    pub fn planned(&self, mut config: VpsConfig, name: &str) -> Result<VpsConfig> {
        let plan = self.plan(name)?;
        let limits = fields(&config.limits)?.into_iter().map(|(field, _)| field);
        let membership = Membership {
            name: name.to_owned(),
            except: limits.chain(of_disk(&config.disk.quota())).collect(),
        };
        config.limits = membership.limits(&plan, &config.limits)?;
        config.disk = config.disk.changed(&membership.disk(&plan));
        config.plan = Some(membership);
        Ok(config)
    }

    /// All plans, by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the file, the plan and the limit that is wrong.
    pub fn plans(&self) -> Result<BTreeMap<String, Plan>> {
        read(&self.folders.plans())
    }

    /// One plan.
    ///
    /// # Errors
    /// As [`Condo::plans`], and [`Error::NotFound`].
    pub fn plan(&self, name: &str) -> Result<Plan> {
        self.plans()?.remove(name).ok_or_else(|| Error::NotFound {
            kind: "plan",
            name: name.to_owned(),
        })
    }
}

/// What is said of a disk, by the names of the options.
pub(super) fn of_disk(quota: &Quota) -> impl Iterator<Item = String> {
    let said = [("disk", quota.size), ("inodes", quota.inodes)];
    said.into_iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| name.to_owned())
}

fn read(path: &Path) -> Result<BTreeMap<String, Plan>> {
    let tables: BTreeMap<String, toml::Table> = settings::read(path)?;
    let plan = |(name, table)| {
        let plan = parse(table).during(|| format!("plan `{name}` of `{}`", path.display()))?;
        Ok((name, plan))
    };
    tables.into_iter().map(plan).collect()
}

/// A plan's table: keys are options without dashes in front, values those of the options.
fn parse(table: toml::Table) -> Result<Plan> {
    let (mut disk, mut inodes) = (None, None);
    let mut limits = Map::new();
    for (option, value) in table {
        let field = option.replace('-', "_");
        let value = quantity(&option, &field, value)?;
        match field.as_str() {
            "disk" => disk = value.as_u64(),
            "inodes" => inodes = value.as_u64(),
            _ => drop(limits.insert(field, value)),
        }
    }
    let limits = serde_json::from_value(Value::Object(limits)).map_err(|e| {
        Error::invalid(
            "plan",
            e,
            "is wrong: its keys are options of create without dashes",
        )
    })?;
    Ok(Plan { limits, disk, inodes })
}

/// The value as the record keeps it: sizes and rates, which have units, are numbers there.
fn quantity(option: &str, field: &str, value: toml::Value) -> Result<Value> {
    Ok(match value {
        toml::Value::Integer(n) => n.into(),
        toml::Value::Float(n) => n.into(),
        toml::Value::String(text) if field == "cpuset" => text.into(),
        toml::Value::String(text) if !NUMBERS.contains(&field) => size::parse(option, &text)?.into(),
        other => {
            return Err(Error::invalid(
                option,
                serde_json::to_value(other)?,
                "is no number",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan> {
        parse(text.parse().unwrap())
    }

    #[test]
    fn a_plan_says_what_options_say() {
        let plan = plan(
            "cpus = 1\nmemory = \"1G\"\nio-read = \"50M\"\ncpuset = \"0-1\"\ndisk = \"20G\"\npids = 500",
        )
        .unwrap();
        let limits = r#"{"cpus":1.0,"memory":1073741824,"io_read":52428800,"cpuset":"0-1","pids":500}"#;
        assert_eq!(plan.limits, serde_json::from_str(limits).unwrap());
        assert_eq!(plan.disk, Some(20 << 30));
    }

    #[test]
    fn what_is_no_limit_is_refused_by_its_name() {
        for (text, named) in [
            ("memroy = 1", "memroy"),
            ("memory = \"1X\"", "memory"),
            ("cpus = \"many\"", "cpus"),
            ("memory = true", "memory"),
            ("name = \"web\"", "name"),
        ] {
            let refused = plan(text).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
