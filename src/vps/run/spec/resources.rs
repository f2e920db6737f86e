//! Limits in the terms of the OCI specification.

use serde_json::{Map, Value, json};

use super::super::nodes::Node;
use crate::error::{Error, Result};
use crate::vps::record::cpuset;
use crate::vps::record::facts::Facts;
use crate::vps::record::limits::{CPU_PERIOD, Limits};
use crate::vps::record::store::Record;

/// Character devices a VPS may open besides its nodes: console, ptmx and its terminals.
const TERMINALS: [(u32, Option<u32>); 3] = [(5, Some(1)), (5, Some(2)), (136, None)];

/// What `limits` are for the VPS of this record.
pub(in crate::vps::run) fn resources(
    record: &Record,
    limits: &Limits,
    disk: Option<(u32, u32)>,
    facts: &Facts,
) -> Result<Value> {
    let mut all = Map::new();
    let mut put = |key: &str, section: Map<String, Value>| {
        if !section.is_empty() {
            all.insert(key.into(), section.into());
        }
    };
    put("cpu", cpu(limits, record.id, facts));
    put("memory", memory(limits));
    put("pids", present([("limit", limits.pids.map(Value::from))]));
    put("blockIO", block_io(limits, disk)?);
    put("unified", unified(limits, facts));
    Ok(all.into())
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

fn cpu(limits: &Limits, id: u32, facts: &Facts) -> Map<String, Value> {
    let shares = limits.cpu_weight.filter(|_| !facts.unified).map(shares);
    present([
        ("quota", limits.cpu_quota().map(Value::from)),
        ("period", limits.cpus.map(|_| CPU_PERIOD.into())),
        ("shares", shares.map(Value::from)),
        ("cpus", processors(limits, id, facts).map(Value::from)),
    ])
}

/// The processors it runs on: the list that was asked for, or else as many as it has time for.
pub(in crate::vps::run) fn processors(limits: &Limits, id: u32, facts: &Facts) -> Option<String> {
    let share = || {
        let cpus = limits.cpus.filter(|_| facts.controllers.contains("cpuset"))?;
        cpuset::share(cpus, id, &facts.cpus).map(|set| cpuset::display(&set))
    };
    limits.cpuset.clone().or_else(share)
}

/// cgroup v1's shares, where everybody has 1024 instead of 100.
fn shares(weight: u64) -> u64 {
    (weight * 1024 / 100).clamp(2, 262_144)
}

/// The weight goes to cgroup v2 as it is: OCI's `shares` would be converted with a loss, and differently by every runtime.
fn unified(limits: &Limits, facts: &Facts) -> Map<String, Value> {
    let weight = limits.cpu_weight.filter(|_| facts.unified);
    present([("cpu.weight", weight.map(|w| w.to_string().into()))])
}

/// OCI counts swap together with memory.
fn memory(limits: &Limits) -> Map<String, Value> {
    let both = limits
        .memory
        .zip(limits.swap)
        .map(|(memory, swap)| memory.saturating_add(swap));
    present([
        ("limit", limits.memory.map(Value::from)),
        ("swap", both.map(Value::from)),
    ])
}

fn block_io(limits: &Limits, disk: Option<(u32, u32)>) -> Result<Map<String, Value>> {
    if !limits.any_io() {
        return Ok(Map::new());
    }
    let (major, minor) =
        disk.ok_or_else(|| Error::unsupported("an io limit", "the disk behind the VPS is not known"))?;
    let device =
        |rate: Option<u64>| rate.map(|rate| json!([{ "major": major, "minor": minor, "rate": rate }]));
    let weight = |weight: u64| json!([{ "major": major, "minor": minor, "weight": weight }]);
    Ok(present([
        ("weightDevice", limits.io_weight.map(weight)),
        ("throttleReadBpsDevice", device(limits.io_read)),
        ("throttleWriteBpsDevice", device(limits.io_write)),
        ("throttleReadIOPSDevice", device(limits.iops_read)),
        ("throttleWriteIOPSDevice", device(limits.iops_write)),
    ]))
}

/// The devices that may be opened: those of the nodes, and terminals.
pub(super) fn devices(nodes: &[Node]) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    let nodes = nodes
        .iter()
        .map(|Node { number, .. }| (number.block, number.major, Some(number.minor)));
    let terminals = TERMINALS.map(|(major, minor)| (false, major, minor));
    for (block, major, minor) in nodes.chain(terminals) {
        let kind = if block { "b" } else { "c" };
        let mut rule = json!({ "allow": true, "type": kind, "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rules.push(rule);
    }
    rules.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_weight_is_the_usual_number_of_shares() {
        assert_eq!([shares(1), shares(100), shares(10_000)], [10, 1024, 102_400]);
    }
}
