//! Processor time: shares, quota, burst, idle, realtime.

use oci_spec::runtime::LinuxCpu;

use super::setting::{Setting, Version};
use crate::error::{Error, Result};

/// The kernel's default period in microseconds, for a quota without one.
const DEFAULT_PERIOD: u64 = 100_000;

/// What the kernel makes of `cpu.shares` that are fewer or more.
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// The settings for these limits. Zero means "not set" for all of them, as callers have always sent it.
pub(super) fn settings(cpu: &LinuxCpu, version: Version) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let idle = idle(cpu)?;
    settings.extend(idle.map(|i| Setting::new("cpu.idle", i)));
    match given(cpu.shares()) {
        // The kernel refuses a weight while cpu.idle is 1: the group has the least weight there is. In runc's words.
        Some(_) if idle == Some(1) => {
            log::warn!("unable to apply both shares and idle of the CPU, ignoring shares");
        }
        Some(shares) => settings.push(match version {
            Version::V1 => Setting::new("cpu.shares", allowed(shares)?),
            Version::V2 => Setting::new("cpu.weight", weight(shares)),
        }),
        None => {}
    }
    settings.extend(match version {
        Version::V1 => bandwidth_v1(cpu),
        Version::V2 => bandwidth_v2(cpu),
    });
    settings.extend(realtime(cpu, version)?);
    Ok(settings)
}

/// The kernel would take another value in silence. In runc's words, which callers match.
fn allowed(shares: u64) -> Result<u64> {
    let refuse = |problem| Err(Error::invalid("linux.resources.cpu.shares", shares, problem));
    match shares {
        ..LEAST_SHARES => refuse("the minimum allowed cpu-shares is 2"),
        LEAST_SHARES..=MOST_SHARES => Ok(shares),
        _ => refuse("the maximum allowed cpu-shares is 262144"),
    }
}

fn given(value: Option<u64>) -> Option<u64> {
    value.filter(|v| *v != 0)
}

fn idle(cpu: &LinuxCpu) -> Result<Option<i64>> {
    match cpu.idle() {
        None | Some(0 | 1) => Ok(cpu.idle()),
        Some(other) => Err(Error::invalid(
            "linux.resources.cpu.idle",
            other,
            "must be 0 or 1",
        )),
    }
}

fn bandwidth_v1(cpu: &LinuxCpu) -> Vec<Setting> {
    let period = given(cpu.period()).map(|p| Setting::new("cpu.cfs_period_us", p));
    let quota = cpu
        .quota()
        .filter(|q| *q != 0)
        .map(|q| Setting::new("cpu.cfs_quota_us", q.max(-1)));
    let burst = cpu.burst().map(|b| burst_setting("cpu.cfs_burst_us", b));
    [period, quota, burst].into_iter().flatten().collect()
}

fn bandwidth_v2(cpu: &LinuxCpu) -> Vec<Setting> {
    let quota = cpu.quota().filter(|q| *q != 0);
    let period = given(cpu.period());
    let max = (quota.is_some() || period.is_some()).then(|| {
        let quota = quota.filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
        Setting::new("cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)))
    });
    let burst = cpu.burst().map(|b| burst_setting("cpu.max.burst", b));
    [max, burst].into_iter().flatten().collect()
}

/// No burst is what kernels before 5.14, which lack the file, do anyway.
fn burst_setting(file: &str, burst: u64) -> Setting {
    if burst == 0 {
        Setting::optional(file, burst)
    } else {
        Setting::new(file, burst)
    }
}

fn realtime(cpu: &LinuxCpu, version: Version) -> Result<Vec<Setting>> {
    let period = given(cpu.realtime_period());
    let runtime = cpu.realtime_runtime().filter(|r| *r != 0);
    if version == Version::V2 && (period.is_some() || runtime.is_some()) {
        return Err(Error::unsupported(
            "linux.resources.cpu.realtimeRuntime and realtimePeriod",
            "cgroup v2 does not divide realtime processor time",
        ));
    }
    let period = period.map(|p| Setting::new("cpu.rt_period_us", p));
    let runtime = runtime.map(|r| Setting::new("cpu.rt_runtime_us", r));
    Ok([period, runtime].into_iter().flatten().collect())
}

/// `cpu.weight` (1 to 10000) for `cpu.shares` (2 to 262144): `10^((log2(x)^2 + 125*log2(x))/612 - 7/34)`, the conversion
/// all runtimes share since 2025, which takes both defaults (1024 and 100) to each other.
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(LEAST_SHARES, MOST_SHARES) as f64).log2();
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    // Rounded up, but not by the noise of floating point: 1024 shares are exactly 100.
    ((weight - 1e-6).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn cpu(json: &str) -> LinuxCpu {
        serde_json::from_str(json).unwrap()
    }

    fn golden(json: &str, version: Version) -> Vec<String> {
        lines(&settings(&cpu(json), version).unwrap())
    }

    #[test]
    fn shares_out_of_range_are_refused_where_they_would_be_others() {
        for (json, words) in [
            (r#"{"shares":1}"#, "minimum allowed cpu-shares is 2"),
            (r#"{"shares":262145}"#, "maximum allowed cpu-shares is 262144"),
        ] {
            let e = settings(&cpu(json), Version::V1).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
            settings(&cpu(json), Version::V2).unwrap();
        }
    }

    #[test]
    fn shares_become_weight() {
        for (shares, expected) in [
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (1_000_000, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).step_by(97).all(|s| weight(s) <= weight(s + 97)));
    }

    #[test]
    fn bandwidth_on_v2_is_one_line() {
        assert_eq!(
            golden(r#"{"quota":50000}"#, Version::V2),
            ["cpu.max=50000 100000"]
        );
        assert_eq!(
            golden(r#"{"quota":-1,"period":20000}"#, Version::V2),
            ["cpu.max=max 20000"]
        );
        assert_eq!(
            golden(
                r#"{"shares":512,"quota":1000,"period":10000,"burst":500}"#,
                Version::V2
            ),
            ["cpu.weight=59", "cpu.max=1000 10000", "cpu.max.burst=500"]
        );
        assert!(golden(r#"{"quota":0,"shares":0,"period":0}"#, Version::V2).is_empty());
    }

    #[test]
    fn bandwidth_on_v1_is_two_files() {
        assert_eq!(
            golden(
                r#"{"shares":512,"quota":1000,"period":10000,"burst":500,"realtimeRuntime":950,"realtimePeriod":1000}"#,
                Version::V1
            ),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=10000",
                "cpu.cfs_quota_us=1000",
                "cpu.cfs_burst_us=500",
                "cpu.rt_period_us=1000",
                "cpu.rt_runtime_us=950"
            ]
        );
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        assert_eq!(golden(r#"{"idle":1,"shares":512}"#, Version::V2), ["cpu.idle=1"]);
        assert!(settings(&cpu(r#"{"idle":2}"#), Version::V2).is_err());
    }

    #[test]
    fn realtime_is_refused_on_v2_only_when_asked_for() {
        assert!(settings(&cpu(r#"{"realtimeRuntime":1}"#), Version::V2).is_err());
        assert!(golden(r#"{"realtimeRuntime":0}"#, Version::V2).is_empty());
    }
}
