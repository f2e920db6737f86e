//! Block devices: weights and throttles.
//!
//! On v1 the throttles of `blkio` see only direct and synchronous I/O: buffered writes reach the device from the kernel's
//! flusher threads, outside the cgroup, and are not slowed down. Only cgroup v2, which charges the page cache and its
//! write-back to one cgroup, limits them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::setting::{Setting, Version};
use crate::error::{Error, Result};

const NO_LEAF_WEIGHT: &str = "it belonged to the CFQ scheduler, which kernels have not had since 5.0";

/// One kind of throttle: its v1 file, its key in `io.max`, and its devices.
type Throttle<'a> = (&'static str, &'static str, &'a [LinuxThrottleDevice]);

/// The settings for these limits. Devices are whole disks: the kernel refuses partitions.
pub(super) fn settings(io: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>> {
    check_devices(io)?;
    let mut settings = weights(io, version)?;
    settings.extend(match version {
        Version::V1 => throttles_v1(io),
        Version::V2 => throttles_v2(io),
    });
    Ok(settings)
}

/// The kernel's device numbers have 12 and 20 bits.
fn check_devices(io: &LinuxBlockIo) -> Result<()> {
    let throttled = throttles(io)
        .into_iter()
        .flat_map(|(.., devices)| devices.iter().map(|d| (d.major(), d.minor())));
    let weighted = io
        .weight_device()
        .iter()
        .flatten()
        .map(|d| (d.major(), d.minor()));
    let is_number =
        |(major, minor): &(i64, i64)| (0..1 << 12).contains(major) && (0..1 << 20).contains(minor);
    match throttled.chain(weighted).find(|device| !is_number(device)) {
        None => Ok(()),
        Some((major, minor)) => Err(Error::invalid(
            "linux.resources.blockIO",
            format!("{major}:{minor}"),
            "is no device number",
        )),
    }
}

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    fn list(devices: &Option<Vec<LinuxThrottleDevice>>) -> &[LinuxThrottleDevice] {
        devices.as_deref().unwrap_or_default()
    }
    [
        (
            "blkio.throttle.read_bps_device",
            "rbps",
            list(io.throttle_read_bps_device()),
        ),
        (
            "blkio.throttle.write_bps_device",
            "wbps",
            list(io.throttle_write_bps_device()),
        ),
        (
            "blkio.throttle.read_iops_device",
            "riops",
            list(io.throttle_read_iops_device()),
        ),
        (
            "blkio.throttle.write_iops_device",
            "wiops",
            list(io.throttle_write_iops_device()),
        ),
    ]
}

/// A rate of 0 removes the throttle.
fn throttles_v1(io: &LinuxBlockIo) -> Vec<Setting> {
    throttles(io)
        .into_iter()
        .flat_map(|(file, _, devices)| {
            devices
                .iter()
                .map(move |d| Setting::new(file, format!("{}:{} {}", d.major(), d.minor(), d.rate())))
        })
        .collect()
}

/// One line of `io.max` per device.
fn throttles_v2(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut lines: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for (_, key, devices) in throttles(io) {
        for d in devices {
            let line = lines.entry((d.major(), d.minor())).or_default();
            let rate = if d.rate() == 0 {
                "max".into()
            } else {
                d.rate().to_string()
            };
            let _ = write!(line, " {key}={rate}");
        }
    }
    lines
        .into_iter()
        .map(|((major, minor), rates)| Setting::new("io.max", format!("{major}:{minor}{rates}")))
        .collect()
}

/// Weights work with the BFQ scheduler (`bfq` files) or io.cost (`io.weight`); whichever this kernel has is set, and one
/// that has neither cannot keep the promise.
fn weights(io: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>> {
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(Error::unsupported(
            "linux.resources.blockIO.leafWeight",
            NO_LEAF_WEIGHT,
        ));
    }
    if io
        .weight_device()
        .iter()
        .flatten()
        .any(|d| d.leaf_weight().is_some_and(|w| w != 0))
    {
        return Err(Error::unsupported(
            "linux.resources.blockIO.weightDevice.leafWeight",
            NO_LEAF_WEIGHT,
        ));
    }
    let mut settings = Vec::new();
    if let Some(weight) = checked(io.weight())? {
        settings.extend(weight_settings("", weight, version));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = checked(device.weight())? {
            let prefix = format!("{}:{} ", device.major(), device.minor());
            settings.extend(weight_settings(&prefix, weight, version));
        }
    }
    Ok(settings)
}

fn weight_settings(device: &str, weight: u16, version: Version) -> Vec<Setting> {
    let plain = format!("{device}{weight}");
    match version {
        Version::V1 if device.is_empty() => {
            vec![Setting::new("blkio.bfq.weight", &plain).or("blkio.weight", &plain)]
        }
        Version::V1 => {
            vec![Setting::new("blkio.bfq.weight_device", &plain).or("blkio.weight_device", &plain)]
        }
        Version::V2 => vec![
            Setting::optional("io.bfq.weight", &plain),
            Setting::new("io.weight", format!("{device}{}", converted(weight))).or("io.bfq.weight", &plain),
        ],
    }
}

fn checked(weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(weight),
        Some(other) => Err(Error::invalid(
            "linux.resources.blockIO.weight",
            other,
            "must be 10 to 1000",
        )),
    }
}

/// OCI's 10 to 1000 on the 1 to 10000 of `io.weight`, linear as in other runtimes.
fn converted(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::super::setting::Missing;
    use super::super::setting::tests::lines;
    use super::*;

    const THROTTLED: &str = r#"{
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000},{"major":9,"minor":1,"rate":0}],
        "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2000}],
        "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":30}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":40}]}"#;

    fn parsed(json: &str, version: Version) -> Result<Vec<Setting>> {
        settings(&serde_json::from_str(json).unwrap(), version)
    }

    #[test]
    fn throttles_of_one_device_share_a_line_on_v2() {
        assert_eq!(
            lines(&parsed(THROTTLED, Version::V2).unwrap()),
            [
                "io.max=8:0 rbps=1000 wbps=2000 riops=30 wiops=40",
                "io.max=9:1 rbps=max"
            ]
        );
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (major, minor) in [(-1, 0), (8, -1), (4096, 0), (8, 1 << 20)] {
            for (list, value) in [("throttleReadBpsDevice", "rate"), ("weightDevice", "weight")] {
                let json = format!(r#"{{"{list}":[{{"major":{major},"minor":{minor},"{value}":100}}]}}"#);
                let e = parsed(&json, Version::V2).unwrap_err().to_string();
                let text = format!("linux.resources.blockIO: `{major}:{minor}` is no device number");
                assert_eq!(e, text);
            }
        }
    }

    #[test]
    fn each_throttle_has_its_file_on_v1() {
        assert_eq!(
            lines(&parsed(THROTTLED, Version::V1).unwrap()),
            [
                "blkio.throttle.read_bps_device=8:0 1000",
                "blkio.throttle.read_bps_device=9:1 0",
                "blkio.throttle.write_bps_device=8:0 2000",
                "blkio.throttle.read_iops_device=8:0 30",
                "blkio.throttle.write_iops_device=8:0 40"
            ]
        );
    }

    #[test]
    fn weights_are_converted_and_have_a_second_home() {
        assert_eq!([10, 100, 500, 1000].map(converted), [1, 910, 4950, 10_000]);
        let settings = parsed(r#"{"weight":500}"#, Version::V2).unwrap();
        assert_eq!(lines(&settings), ["io.bfq.weight=500", "io.weight=4950"]);
        assert_eq!(settings[0].missing, Missing::Skip);
        assert_eq!(
            settings[1].missing,
            Missing::Instead("io.bfq.weight", "500".into())
        );
    }

    #[test]
    fn impossible_weights_are_refused() {
        for bad in [r#"{"weight":5}"#, r#"{"weight":1001}"#, r#"{"leafWeight":100}"#] {
            assert!(parsed(bad, Version::V2).is_err(), "{bad}");
        }
    }
}
