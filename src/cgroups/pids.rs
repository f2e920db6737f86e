//! The number of processes and threads.

use oci_spec::runtime::LinuxPids;

use super::setting::Setting;

/// `pids.max`, on v1 and v2 alike; below zero is "no limit". 0 is a limit, as the specification has it since 1.3, and since no
/// container is without a process it is that of 1: systemd and `clone(2)` would refuse less.
pub(super) fn settings(pids: &LinuxPids) -> Vec<Setting> {
    match pids.limit() {
        limit if limit < 0 => vec![Setting::new("pids.max", "max")],
        limit => vec![Setting::new("pids.max", limit.max(1))],
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    #[test]
    fn zero_is_the_least_and_below_zero_is_no_limit() {
        let golden = |json| lines(&settings(&serde_json::from_str(json).unwrap()));
        assert_eq!(golden(r#"{"limit":0}"#), ["pids.max=1"]);
        assert_eq!(golden(r#"{"limit":-1}"#), ["pids.max=max"]);
        assert_eq!(golden(r#"{"limit":64}"#), ["pids.max=64"]);
    }
}
