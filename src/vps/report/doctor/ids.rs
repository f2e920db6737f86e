//! Ranges of user ids: how many VPSs they are enough for, and whom of this machine they meet.

use super::{Finding, Weight};
use crate::error::Result;
use crate::namespaces::ranges::{self, Ranges};
use crate::vps::record::store::Record;

const SUBJECT: &str = "user ids";

pub(super) fn all(records: &[Record], vpss: u64) -> Result<Vec<Finding>> {
    let ranges = Ranges::open()?;
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let met: Vec<&str> = records
        .iter()
        .filter(|record| ranges.is_given(record.uid_base, record.ids()))
        .map(|record| record.name.as_str())
        .collect();
    Ok(vec![
        enough(ranges.left(), vpss),
        users(&passwd, &|id| ranges.contains(id)),
        given(&met),
    ])
}

fn enough(left: u32, vpss: u64) -> Finding {
    let found = format!("{left} ranges of {}, one for each VPS", ranges::SIZE);
    if left > 0 && u64::from(left) >= vpss {
        return Finding::new(SUBJECT, Weight::Good, found);
    }
    let found = format!("{found}: the others are given away in /etc/subuid and /etc/subgid");
    Finding::new(SUBJECT, Weight::Warning, found)
}

/// Users of the host that have the ids of a VPS's.
fn users(passwd: &str, is_ours: &dyn Fn(u32) -> bool) -> Finding {
    let is_met = |line: &&str| {
        let id = line.split(':').nth(2).and_then(|id| id.parse().ok());
        id.is_some_and(is_ours)
    };
    let names: Vec<&str> = passwd
        .lines()
        .filter(is_met)
        .filter_map(|line| line.split(':').next())
        .collect();
    match names.first() {
        None => Finding::new("users of the host", Weight::Good, "none has an id of a VPS's"),
        Some(first) => {
            let text = format!("these have ids of VPSs': {}", names.join(", "));
            Finding::new("users of the host", Weight::Warning, text)
                .mended_by(format!("usermod --uid 1000 {first}"))
        }
    }
}

/// VPSs whose ids the administrator gave to users since.
fn given(met: &[&str]) -> Finding {
    if met.is_empty() {
        return Finding::new("/etc/subuid", Weight::Good, "gives no ids of a VPS's to users");
    }
    let text = format!(
        "gives ids of these VPSs to users: {}; they get others at their next start",
        met.join(", ")
    );
    Finding::new("/etc/subuid", Weight::Warning, text).mended_by(format!("condo restart {}", met.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_an_id_of_a_vps_is_named() {
        let passwd = "root:x:0:0::/root:/bin/sh\neve:x:1900000000:100::/home/eve:/bin/sh\nbroken\n";
        let ours = |id: u32| id >= 0x7000_0000;
        let found = users(passwd, &ours);
        assert_eq!(found.weight, Weight::Warning);
        assert!(found.found.ends_with(": eve") && found.remedy.unwrap().ends_with(" eve"));
        assert_eq!(users("root:x:0:0::/:/bin/sh\n", &ours).weight, Weight::Good);
    }

    #[test]
    fn ranges_are_enough_or_not() {
        assert_eq!(enough(100, 100).weight, Weight::Good);
        assert_eq!(enough(99, 100).weight, Weight::Warning);
        assert_eq!(given(&["web"]).remedy.as_deref(), Some("condo restart web"));
    }
}
