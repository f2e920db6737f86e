//! Processors: a number or a list of them (`limits.cpu`), a share of time or a quota (`limits.cpu.allowance`).

use condo::vps::record::limits::Limits;

use super::{Keys, values};
use crate::reply::Problem;

const CPU: &str = "limits.cpu";
const ALLOWANCE: &str = "limits.cpu.allowance";

/// Sets what the keys say. Of a number of processors and a quota the smaller holds, as both would.
pub(super) fn set(limits: &mut Limits, keys: &Keys) -> Result<(), Problem> {
    let value = |key: &str| keys.get(key).filter(|value| !value.is_empty());
    if let Some(cpu) = value(CPU) {
        if cpu.contains(['-', ',']) {
            limits.cpuset = Some(cpu.clone());
        } else {
            limits.cpus = Some(count(cpu)?);
        }
    }
    let Some(allowance) = value(ALLOWANCE) else {
        return Ok(());
    };
    if let Some(percent) = allowance.strip_suffix('%') {
        let percent = values::number(ALLOWANCE, percent)?;
        limits.cpu_weight = Some(percent);
        return Ok(());
    }
    let quota = quota(allowance)?;
    limits.cpus = Some(limits.cpus.map_or(quota, |cpus| cpus.min(quota)));
    Ok(())
}

fn count(text: &str) -> Result<f64, Problem> {
    let count = u32::try_from(values::number(CPU, text)?);
    count
        .map(f64::from)
        .map_err(|_| Problem::value(CPU, text, "is more than any host has"))
}

/// `25ms/100ms` as processors' worth of time.
fn quota(text: &str) -> Result<f64, Problem> {
    let refuse = || {
        Problem::value(
            ALLOWANCE,
            text,
            "is neither a share such as 50% nor a time such as 25ms/100ms",
        )
    };
    let (time, period) = text.split_once('/').ok_or_else(refuse)?;
    let ms = |text: &str| {
        let number = values::number(ALLOWANCE, text.trim().strip_suffix("ms")?).ok()?;
        u32::try_from(number).ok().filter(|n| *n > 0).map(f64::from)
    };
    let (time, period) = ms(time).zip(ms(period)).ok_or_else(refuse)?;
    Ok(time / period)
}

/// The keys that say what holds.
pub(super) fn keys(limits: &Limits) -> (Option<String>, Option<String>) {
    let whole = limits
        .cpus
        .filter(|cpus| cpus.fract() == 0.0 && limits.cpuset.is_none());
    let cpu = match (&limits.cpuset, whole) {
        (Some(list), _) if list.contains(['-', ',']) => Some(list.clone()),
        // A bare number would be a count.
        (Some(one), _) => Some(format!("{one}-{one}")),
        (None, Some(cpus)) => Some(cpus.to_string()),
        (None, None) => None,
    };
    let quota = limits.cpus.filter(|_| whole.is_none());
    let allowance = match (quota, limits.cpu_weight) {
        (Some(cpus), _) => Some(format!("{}ms/100ms", (cpus * 100.0).round())),
        (None, Some(weight)) => Some(format!("{weight}%")),
        (None, None) => None,
    };
    (cpu, allowance)
}
