//! The number of processes and threads.

use oci_spec::runtime::LinuxPids;

use super::setting::Setting;

/// `pids.max`, on v1 and v2 alike. 0 is "not set": the parser cannot tell it from an absent limit, and callers have always
/// sent it so. Below zero is "no limit".
pub(super) fn settings(pids: &LinuxPids) -> Vec<Setting> {
    match pids.limit() {
        0 => Vec::new(),
        limit if limit < 0 => vec![Setting::new("pids.max", "max")],
        limit => vec![Setting::new("pids.max", limit)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    #[test]
    fn zero_and_absent_leave_it_alone_and_below_zero_is_no_limit() {
        let golden = |json| lines(&settings(&serde_json::from_str(json).unwrap()));
        assert!(golden(r#"{"limit":0}"#).is_empty());
        assert!(golden("{}").is_empty());
        assert_eq!(golden(r#"{"limit":-1}"#), ["pids.max=max"]);
        assert_eq!(golden(r#"{"limit":64}"#), ["pids.max=64"]);
    }
}
