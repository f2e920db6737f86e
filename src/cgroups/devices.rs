//! Which devices may be opened and made: the rules, and their v1 form.
//!
//! The last rule that covers an access decides, for each of read, write and mknod by itself; where none does, it is denied.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::setting::Setting;
use crate::error::{Error, Result};

const FIELD: &str = "linux.resources.devices";

/// Kinds of access, with the bits of `BPF_DEVCG_ACC_*`.
pub(super) const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
pub(super) const ALL: u32 = MKNOD | READ | WRITE;

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// One rule; `None` is "any".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// Kind of device.
    pub kind: Option<Kind>,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// The accesses it is about, as `BPF_DEVCG_ACC_*` bits.
    pub access: u32,
}

impl Rule {
    fn from_spec(rule: &LinuxDeviceCgroup) -> Result<Self> {
        Ok(Self {
            allow: rule.allow(),
            kind: match rule.typ() {
                None | Some(LinuxDeviceType::A) => None,
                Some(LinuxDeviceType::B) => Some(Kind::Block),
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
                Some(LinuxDeviceType::P) => {
                    return Err(Error::invalid(FIELD, "p", "a fifo is no device to control"));
                }
            },
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access: access(rule.access().as_deref().unwrap_or("rwm"))?,
        })
    }

    /// Whether it is about every access to every device, and so makes all rules before it meaningless.
    pub(super) fn is_total(&self) -> bool {
        self.access == ALL && self.is_any_device()
    }

    fn is_any_device(&self) -> bool {
        (self.kind, self.major, self.minor) == (None, None, None)
    }

    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        fn meet<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind)
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access & other.access != 0
    }

    fn covers(&self, other: &Self) -> bool {
        fn all<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || a == b
        }
        all(self.kind, other.kind)
            && all(self.major, other.major)
            && all(self.minor, other.minor)
            && self.access & other.access == other.access
    }

    /// `c 1:3 rwm`.
    fn v1_text(&self) -> String {
        let kind = match self.kind {
            None => "a",
            Some(Kind::Block) => "b",
            Some(Kind::Char) => "c",
        };
        let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .into_iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, letter)| letter)
            .collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// -1 is "any" for callers that cannot leave a number out.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        // The kernel's device numbers have 12 and 20 bits.
        Some(n @ 0..0x10_0000) => Ok(u32::try_from(n).ok()),
        Some(n) => Err(Error::invalid(FIELD, n, "is no device number")),
    }
}

fn access(text: &str) -> Result<u32> {
    text.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        // The kernel's word for every kind of device, which some write here as well; it adds nothing.
        'a' => Ok(bits),
        _ => Err(Error::invalid(FIELD, text, "must be made of `r`, `w` and `m`")),
    })
}

/// What every container may use (the runtime specification's default devices, and what a terminal needs): `null`, `zero`,
/// `full`, `random`, `urandom`, `tty`, `console`, `ptmx` and the ptys; `net/tun`, as runc has it; and `mknod` of anything, because a node that may not
/// be opened harms nobody and package managers make some.
pub fn default_devices() -> Vec<Rule> {
    let numbers = [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
        (10, 200),
    ];
    let char_rule = |major, minor, access| Rule {
        allow: true,
        kind: Some(Kind::Char),
        major,
        minor,
        access,
    };
    let block_nodes = Rule {
        kind: Some(Kind::Block),
        ..char_rule(None, None, MKNOD)
    };
    [char_rule(None, None, MKNOD), block_nodes]
        .into_iter()
        .chain(numbers.map(|(major, minor)| char_rule(Some(major), Some(minor), ALL)))
        .chain([char_rule(Some(136), None, ALL)])
        .collect()
}

/// The rules of a container: the spec's, then the default devices, which no rule takes away.
pub(super) fn rules(spec: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = spec.iter().map(Rule::from_spec).collect::<Result<Vec<_>>>()?;
    // Where everything is allowed but some, the general rules would only cut into these few.
    let all_but_some = rules.iter().rfind(|r| r.is_total()).is_some_and(|r| r.allow);
    let mut default = default_devices();
    // What a caller has said is said: each rule is a write with cgroup v1, and a part of the program with v2.
    default.retain(|r| (!all_but_some || r.major.is_some()) && !is_decided(&rules, r));
    rules.extend(default);
    rules.retain(|r| r.access != 0);
    Ok(rules)
}

/// Whether for each access of a rule the last of the others that is about any of the same decides all of it alike.
fn is_decided(rules: &[Rule], rule: &Rule) -> bool {
    let of = |access| Rule {
        access: rule.access & access,
        ..*rule
    };
    let parts = [MKNOD, READ, WRITE].map(of);
    parts.iter().filter(|part| part.access != 0).all(|part| {
        let last = rules.iter().rfind(|other| other.overlaps(part));
        last.is_some_and(|other| other.allow == part.allow && other.covers(part))
    })
}

/// The writes to `devices.allow` and `devices.deny` that amount to these rules.
///
/// A v1 cgroup is a list of exceptions to "all" or to "none". An exception can be taken back only whole, and the list can
/// only be begun anew while there are no sub-cgroups.
///
/// # Errors
/// [`Error::Unsupported`] for a rule that cuts a hole into an earlier one.
pub(super) fn settings_v1(rules: &[Rule]) -> Result<Vec<Setting>> {
    let mut allow_all = false;
    let mut exceptions: Vec<Rule> = Vec::new();
    let start = rules.iter().rposition(Rule::is_total);
    if let Some(start) = start {
        allow_all = rules[start].allow;
    }
    let mut settings = vec![write_v1(allow_all, "a".into())];
    for rule in rules.iter().skip(start.map_or(0, |s| s + 1)).flat_map(split_any) {
        if rule.allow == allow_all {
            let cut = |e: &&Rule| e.overlaps(&rule) && !e.same_devices(&rule);
            if let Some(whole) = exceptions.iter().find(cut) {
                return Err(Error::unsupported(
                    format!("{FIELD}: `{}` after `{}`", rule.v1_text(), whole.v1_text()),
                    "cgroup v1 can only take a rule back whole",
                ));
            }
        } else {
            exceptions.push(rule);
        }
        settings.push(write_v1(rule.allow, rule.v1_text()));
    }
    Ok(settings)
}

fn write_v1(allow: bool, text: String) -> Setting {
    Setting::new(if allow { "devices.allow" } else { "devices.deny" }, text)
}

/// The kernel reads `a` as "everything, whatever follows": a rule about some access to both kinds becomes two.
fn split_any(rule: &Rule) -> Vec<Rule> {
    match rule.kind {
        Some(_) => vec![*rule],
        None => [Kind::Block, Kind::Char]
            .map(|kind| Rule {
                kind: Some(kind),
                ..*rule
            })
            .to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn parsed(json: &str) -> Result<Vec<Rule>> {
        let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        spec.iter().map(Rule::from_spec).collect()
    }

    fn v1(json: &str) -> Result<Vec<String>> {
        settings_v1(&parsed(json).unwrap()).map(|s| lines(&s))
    }

    #[test]
    fn the_usual_list_on_v1() {
        let json = r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
            {"allow":true,"type":"b","major":8,"access":"r"},
            {"allow":false,"type":"b","major":8,"access":"r"}]"#;
        assert_eq!(
            v1(json).unwrap(),
            [
                "devices.deny=a",
                "devices.allow=c 1:3 rw",
                "devices.allow=b 8:* r",
                "devices.deny=b 8:* r"
            ]
        );
    }

    #[test]
    fn the_word_for_all_kinds_adds_no_access() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwa"}]"#;
        assert_eq!(v1(json).unwrap(), ["devices.deny=a", "devices.allow=c 1:3 rw"]);
    }

    #[test]
    fn a_privileged_list_on_v1() {
        let json = r#"[{"allow":true,"type":"a","access":"rwm"},{"allow":false,"access":"m"}]"#;
        assert_eq!(
            v1(json).unwrap(),
            ["devices.allow=a", "devices.deny=b *:* m", "devices.deny=c *:* m"]
        );
    }

    #[test]
    fn a_hole_is_refused_on_v1() {
        let json = r#"[{"allow":true,"type":"c","major":1,"access":"r"},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"r"}]"#;
        assert!(matches!(v1(json), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn all_but_some_on_v1() {
        let json = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"rwm"}]"#;
        let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let lines = lines(&settings_v1(&rules(&spec).unwrap()).unwrap());
        assert_eq!(lines[..2], ["devices.allow=a", "devices.deny=b 8:* rwm"]);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in [
            r#"[{"allow":true,"type":"p","access":"r"}]"#,
            r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
            r#"[{"allow":true,"type":"c","major":1,"access":"x"}]"#,
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let of = |json: &str| -> Vec<Rule> {
            let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            rules(&spec).unwrap()
        };
        let about_null = |rules: &[Rule]| {
            rules
                .iter()
                .filter(|r| (r.major, r.minor) == (Some(1), Some(3)))
                .count()
        };
        let null = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#;
        let all = of(&format!("[{null}]"));
        assert_eq!((all.len(), about_null(&all)), (default_devices().len(), 1));
        // Part of it, or all of it and then less.
        for said in [
            r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}"#.to_owned(),
            format!(r#"{null},{{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}}"#),
            format!(r#"{null},{{"allow":false,"access":"rwm"}}"#),
        ] {
            let all = of(&format!("[{said}]"));
            let last = all
                .iter()
                .rfind(|r| (r.major, r.minor) == (Some(1), Some(3)))
                .unwrap();
            assert!(last.allow && last.access == ALL, "{said}");
        }
    }

    #[test]
    fn the_default_devices_survive_a_denial() {
        let deny = parsed(r#"[{"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}]"#).unwrap();
        assert_eq!(deny.len(), 1);
        let all = rules(&[]).unwrap();
        assert!(
            all.iter()
                .any(|r| (r.major, r.minor) == (Some(1), Some(3)) && r.allow)
        );
    }
}
