//! Packet classes and priorities, which only v1 has.

use oci_spec::runtime::LinuxNetwork;

use super::setting::{Controllers, Setting, word};
use crate::error::{Error, Result};

const CLASS: &str = "linux.resources.network.classID";
const PRIORITIES: &str = "linux.resources.network.priorities";

/// The settings of `net_cls` and `net_prio`.
pub(super) fn settings(network: &LinuxNetwork, host: &Controllers) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(class) = network.class_id().filter(|c| *c != 0) {
        require("net_cls", CLASS, host)?;
        settings.push(Setting::new("net_cls.classid", class));
    }
    for priority in network.priorities().iter().flatten() {
        require("net_prio", PRIORITIES, host)?;
        let name = word(&format!("{PRIORITIES}.name"), priority.name())?;
        let line = format!("{name} {}", priority.priority());
        settings.push(Setting::new("net_prio.ifpriomap", line));
    }
    Ok(settings)
}

fn require(controller: &str, field: &str, host: &Controllers) -> Result<()> {
    host.check_cgroup(field)?;
    if host.is_unified() {
        return Err(Error::unsupported(
            field,
            "cgroup v2 has no such controller; match the cgroup's path in nftables or tc instead",
        ));
    }
    host.version(controller, field).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::{lines, v1, v2};
    use super::*;

    const BOTH: &str = r#"{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}"#;

    #[test]
    fn v1_has_them_and_v2_refuses() {
        let network = serde_json::from_str(BOTH).unwrap();
        assert_eq!(
            lines(&settings(&network, &v1()).unwrap()),
            ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]
        );
        assert!(matches!(
            settings(&network, &v2()),
            Err(Error::Unsupported { .. })
        ));
    }

    #[test]
    fn a_name_cannot_become_another_line() {
        let json = r#"{"priorities":[{"name":"eth0 5\neth1","priority":5}]}"#;
        assert!(settings(&serde_json::from_str(json).unwrap(), &v1()).is_err());
    }

    #[test]
    fn nothing_asked_is_nothing_refused() {
        let network = serde_json::from_str(r#"{"classID":0,"priorities":[]}"#).unwrap();
        assert!(settings(&network, &v2()).unwrap().is_empty());
    }
}
