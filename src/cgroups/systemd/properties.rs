//! Limits as properties of a unit: systemd writes them again whenever it likes (`daemon-reload`), and what it does not know
//! of it resets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::Limits;
use super::super::setting::Setting;
use super::text;
use super::value::Value;
use crate::error::{Error, Result};

/// Annotations of this beginning are properties of the container's unit.
const ANNOTATION: &str = "org.systemd.property.";

/// No limit, in systemd's numbers.
const INFINITY: u64 = u64::MAX;

/// systemd keeps the quota of a transient unit in whole percents of a processor: in microseconds a second.
const PERCENT: u64 = 10_000;

/// One property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Self {
            name: name.to_owned(),
            value,
        }
    }

    /// `(sv)`
    pub(super) fn to_value(&self) -> Value {
        let variant = Value::Variant(Box::new(self.value.clone()));
        Value::Tuple(vec![Value::str(&self.name), variant])
    }
}

/// The properties that the cgroup v2 files of these limits are to systemd (`systemd.resource-control(5)`). Files it does not
/// know it does not touch either, and the limit stands by its file alone.
pub(super) fn of_limits(limits: &Limits) -> Vec<Property> {
    let mut found: BTreeMap<&str, Value> = BTreeMap::new();
    let has = |file: &str| limits.settings().iter().find(|setting| setting.file == file);
    let idle = is_idle(limits);
    if idle && has("cpu.weight").is_some() {
        log::warn!("unable to apply both cpu.weight and cpu.idle to systemd, ignoring cpu.weight");
    }
    for setting in limits.settings() {
        let same = of_setting(setting).unwrap_or_default();
        // A weight of 0 is systemd's word for idle (since 252).
        let same = same
            .into_iter()
            .filter(|(name, value)| !(idle && *name == "CPUWeight" && *value != Value::U64(0)));
        found.extend(same);
    }
    found
        .into_iter()
        .map(|(name, value)| Property::new(name, value))
        .collect()
}

/// By what is written last: `unified` names files that `cpu` named before.
fn is_idle(limits: &Limits) -> bool {
    let idle = limits
        .settings()
        .iter()
        .rfind(|setting| setting.file == "cpu.idle");
    idle.is_some_and(|setting| setting.value.trim() == "1")
}

/// `None` for a file or a value that has no property; the kernel will judge it.
fn of_setting(setting: &Setting) -> Option<Vec<(&'static str, Value)>> {
    let value = setting.value.trim();
    let one = |name, value| Some(vec![(name, value)]);
    match setting.file.as_str() {
        "cpu.weight" => one("CPUWeight", Value::U64(value.parse().ok()?)),
        "cpu.idle" if value == "1" => one("CPUWeight", Value::U64(0)),
        "cpu.max" => quota(value),
        "cpuset.cpus" => one("AllowedCPUs", mask(value)?),
        "cpuset.mems" => one("AllowedMemoryNodes", mask(value)?),
        "io.weight" => {
            let weight = value.strip_prefix("default").unwrap_or(value).trim();
            one("IOWeight", Value::U64(weight.parse().ok()?))
        }
        "memory.min" => one("MemoryMin", amount(value)?),
        "memory.low" => one("MemoryLow", amount(value)?),
        "memory.high" => one("MemoryHigh", amount(value)?),
        "memory.max" => one("MemoryMax", amount(value)?),
        "memory.swap.max" => one("MemorySwapMax", amount(value)?),
        "pids.max" => one("TasksMax", amount(value)?),
        _ => None,
    }
}

fn amount(value: &str) -> Option<Value> {
    let amount = if value == "max" {
        INFINITY
    } else {
        value.parse().ok()?
    };
    Some(Value::U64(amount))
}

/// The limits as systemd can remember them: else a `daemon-reload` would change what is in force. As with runc (1.3.2). What is idle
/// has no weight, which the kernel would refuse.
pub(in crate::cgroups) fn rounded(limits: &Limits) -> Cow<'_, Limits> {
    if is_idle(limits) && limits.settings().iter().any(|s| s.file == "cpu.weight") {
        return Cow::Owned(rounded(&limits.without("cpu.weight")).into_owned());
    }
    limits.with("cpu.max", |value| {
        let (per_second, period) = bandwidth(value)?;
        let quota = u128::from(per_second) * u128::from(period) / 1_000_000;
        (per_second != INFINITY).then(|| format!("{quota} {period}"))
    })
}

fn quota(value: &str) -> Option<Vec<(&'static str, Value)>> {
    let (per_second, period) = bandwidth(value)?;
    Some(vec![
        ("CPUQuotaPerSecUSec", Value::U64(per_second)),
        ("CPUQuotaPeriodUSec", Value::U64(period)),
    ])
}

/// `cpu.max` as time in a second, and the period, in microseconds. Rounded up to what systemd can remember, so that nothing is taken
/// away of what was granted.
fn bandwidth(value: &str) -> Option<(u64, u64)> {
    let mut words = value.split_ascii_whitespace();
    let quota = words.next()?;
    let period: u64 = words
        .next()
        .map_or(Some(100_000), |p| p.parse().ok())
        .filter(|p| *p > 0)?;
    let per_second = match quota {
        "max" => INFINITY,
        quota => {
            let quota: u64 = quota.parse().ok()?;
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            u64::try_from(exact)
                .ok()?
                .checked_next_multiple_of(PERCENT)?
                .max(PERCENT)
        }
    };
    Some((per_second, period))
}

/// `0-2,5` as a bit mask, the lowest numbers in the first byte.
fn mask(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for number in first..=last {
            let at = usize::from(number / 8);
            bytes.resize(bytes.len().max(at + 1), 0);
            bytes[at] |= 1 << (number % 8);
        }
    }
    Some(Value::bytes(bytes))
}

/// What decides which processes are in the scope and where it is, and so whom `kill` and `delete` end.
const OURS: [&str; 4] = ["DefaultDependencies", "Delegate", "PIDs", "Slice"];

/// The properties that the container's annotations ask for: `org.systemd.property.TimeoutStopUSec: uint64 5000000`.
///
/// # Errors
/// [`Error::Invalid`] naming the annotation.
pub(super) fn of_annotations<'a>(
    annotations: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else {
            continue;
        };
        let field = format!("annotations.{key}");
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(Error::invalid(
                field,
                name,
                "is no name of a property: three letters or more",
            ));
        }
        if OURS.contains(&name) {
            let problem = "is set by the runtime; leave the annotation out";
            return Err(Error::invalid(field, text, problem));
        }
        let value = text::parse(text).map_err(|problem| Error::invalid(&field, text, problem))?;
        found.push(match seconds_of(name) {
            Some(name) => {
                let value = microseconds(&value).ok_or_else(|| {
                    Error::invalid(field, text, "must be a number of seconds, zero or more")
                })?;
                Property::new(&format!("{name}USec"), value)
            }
            None => Property::new(name, value),
        });
    }
    // So that the same config is always the same call.
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The part before `Sec` of a name like `TimeoutStopSec`, which is what unit files have; the bus has `USec` for it.
fn seconds_of(name: &str) -> Option<&str> {
    let stem = name.strip_suffix("Sec")?;
    stem.ends_with(|c: char| c.is_ascii_lowercase()).then_some(stem)
}

fn microseconds(seconds: &Value) -> Option<Value> {
    let whole = match seconds {
        Value::Byte(n) => Some(u64::from(*n)),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::U16(n) => Some(u64::from(*n)),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::U32(n) => Some(u64::from(*n)),
        Value::I64(n) => u64::try_from(*n).ok(),
        Value::U64(n) => Some(*n),
        Value::Double(n) => {
            let micros = n * 1e6;
            return (micros >= 0.0 && micros < 2_f64.powi(63)).then_some(Value::U64(micros as u64));
        }
        _ => None,
    };
    whole?.checked_mul(1_000_000).map(Value::U64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CgroupLayout;

    fn limits(resources: &str) -> Limits {
        let layout = CgroupLayout::Unified("/nonexistent".into());
        Limits::from_spec(&serde_json::from_str(resources).unwrap(), &layout).unwrap()
    }

    fn lines(resources: &str) -> Vec<String> {
        let properties = of_limits(&limits(resources));
        properties
            .iter()
            .map(|p| format!("{}={:?}", p.name, p.value))
            .collect()
    }

    #[test]
    fn limits_are_properties() {
        assert_eq!(
            lines(
                r#"{"memory":{"limit":268435456,"swap":268435456,"reservation":4096},
                "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0-1,9","mems":"0"},
                "pids":{"limit":100},"blockIO":{"weight":500}}"#
            ),
            [
                "AllowedCPUs=List(\"y\", [Byte(3), Byte(2)])",
                "AllowedMemoryNodes=List(\"y\", [Byte(1)])",
                "CPUQuotaPerSecUSec=U64(500000)",
                "CPUQuotaPeriodUSec=U64(100000)",
                "CPUWeight=U64(59)",
                "IOWeight=U64(4950)",
                "MemoryLow=U64(4096)",
                "MemoryMax=U64(268435456)",
                "MemorySwapMax=U64(0)",
                "TasksMax=U64(100)",
            ]
        );
    }

    #[test]
    fn files_by_name_are_properties_where_systemd_has_them() {
        let unified = r#"{"unified":{"memory.high":"max","cpu.max":"max","cpu.idle":"1","cpu.weight":"200",
            "memory.oom.group":"1","io.weight":"default 70\n8:0 90","hugetlb.2MB.max":"0"}}"#;
        assert_eq!(
            lines(unified),
            [
                "CPUQuotaPerSecUSec=U64(18446744073709551615)",
                "CPUQuotaPeriodUSec=U64(100000)",
                "CPUWeight=U64(0)",
                "IOWeight=U64(70)",
                "MemoryHigh=U64(18446744073709551615)",
            ]
        );
        assert_eq!(lines(r#"{"pids":{"limit":0}}"#), ["TasksMax=U64(1)"]);
        assert_eq!(
            lines(r#"{"pids":{"limit":-1}}"#),
            ["TasksMax=U64(18446744073709551615)"]
        );
    }

    #[test]
    fn what_is_idle_has_no_weight() {
        let files = |json| {
            let limits = limits(json);
            let rounded = rounded(&limits);
            rounded
                .settings()
                .iter()
                .map(|s| s.file.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            files(r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#),
            ["cpu.idle"]
        );
        let busy = r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#;
        assert_eq!(files(busy), ["cpu.idle", "cpu.weight"]);
        let idle_at_last = r#"{"cpu":{"idle":0},"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#;
        assert_eq!(files(idle_at_last), ["cpu.idle", "cpu.idle"]);
    }

    #[test]
    fn a_quota_is_rounded_up_to_what_systemd_remembers() {
        for (file, expected) in [
            ("12345 100000", 130_000),
            ("10 100000", 10_000),
            ("1500 1000", 1_500_000),
            ("200000", 2_000_000),
        ] {
            assert_eq!(quota(file).unwrap()[0].1, Value::U64(expected), "{file}");
        }
        let layout = CgroupLayout::Unified("/nonexistent".into());
        for (cpu, expected) in [
            (r#"{"quota":500000,"period":900000}"#, "504000 900000"),
            (r#"{"quota":12345,"period":100000}"#, "13000 100000"),
            (r#"{"quota":-1,"period":100000}"#, "max 100000"),
        ] {
            let resources = format!(r#"{{"cpu":{cpu}}}"#);
            let limits = Limits::from_spec(&serde_json::from_str(&resources).unwrap(), &layout).unwrap();
            let rounded = rounded(&limits);
            assert!(
                rounded
                    .settings()
                    .iter()
                    .any(|s| s.file == "cpu.max" && s.value == expected),
                "{rounded:?}"
            );
        }
        assert!(quota("5 0").is_none() && quota("x").is_none());
    }

    fn annotated(name: &str, text: &str) -> Result<Vec<Property>> {
        let annotations = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        of_annotations(annotations.iter())
    }

    #[test]
    fn annotations_are_properties_and_seconds_become_microseconds() {
        for (name, text, expected) in [
            (
                "CollectMode",
                "'inactive'",
                Property::new("CollectMode", Value::str("inactive")),
            ),
            (
                "TimeoutStopSec",
                "5",
                Property::new("TimeoutStopUSec", Value::U64(5_000_000)),
            ),
            (
                "TimeoutStopSec",
                "uint64 5",
                Property::new("TimeoutStopUSec", Value::U64(5_000_000)),
            ),
            (
                "RuntimeMaxSec",
                "0.5",
                Property::new("RuntimeMaxUSec", Value::U64(500_000)),
            ),
            (
                "TimeoutStopUSec",
                "uint64 5",
                Property::new("TimeoutStopUSec", Value::U64(5)),
            ),
        ] {
            let found = annotated(&format!("org.systemd.property.{name}"), text).unwrap();
            assert_eq!(found, [expected]);
        }
        assert!(annotated("org.example", "x").unwrap().is_empty());
    }

    #[test]
    fn a_bad_annotation_is_named() {
        for (name, text) in [
            ("CollectMode", "inactive"),
            ("TimeoutStopSec", "'5'"),
            ("TimeoutStopSec", "-5"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
            ("Ab", "5"),
            ("A.b.c", "5"),
            ("", "5"),
        ] {
            let key = format!("org.systemd.property.{name}");
            let e = annotated(&key, text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("annotations.{key}: ")), "{e}");
        }
    }
}
