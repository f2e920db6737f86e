//! Which processors and memory nodes may be used.

use oci_spec::runtime::LinuxCpu;

use super::Cgroup;
use super::dir::Dir;
use super::setting::Setting;
use crate::error::{Error, Result};

/// The further flags of v1's `cpuset(7)`, which cgroup v2 has not.
const FLAGS: [&str; 7] = [
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
];

/// What v1's controller says of a cgroup; empty and all 0 without it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// Processors that may be used.
    pub cpus: Vec<u16>,
    /// 1 if no other cgroup beside it may use them.
    pub cpu_exclusive: u64,
    /// Memory nodes that may be used.
    pub mems: Vec<u16>,
    /// The flags by the names that their files have after `cpuset.`.
    pub flags: Vec<(&'static str, u64)>,
    /// How far the scheduler looks for work; -1 as far as it wants.
    pub sched_relax_domain_level: i64,
}

impl Cgroup {
    /// What v1's cpuset controller says.
    pub fn cpuset(&self) -> Cpuset {
        let dir = self.hierarchy.place("cpuset").ok();
        let dir = dir.filter(|dir| dir.has("cpuset.cpu_exclusive"));
        let text = |name: &str| -> String {
            let read = dir.and_then(|dir| dir.read(&format!("cpuset.{name}")).ok());
            read.unwrap_or_default().trim().to_owned()
        };
        Cpuset {
            cpus: members(&text("cpus")),
            cpu_exclusive: text("cpu_exclusive").parse().unwrap_or_default(),
            mems: members(&text("mems")),
            flags: FLAGS
                .map(|name| (name, text(name).parse().unwrap_or_default()))
                .to_vec(),
            sched_relax_domain_level: text("sched_relax_domain_level").parse().unwrap_or_default(),
        }
    }
}

/// The numbers of a list as the kernel prints it: `0-3,5`.
fn members(list: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The settings for `cpus` and `mems`, which are called the same on v1 and v2. An empty list means "not set".
pub(super) fn settings(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let lists = [("cpus", cpu.cpus()), ("mems", cpu.mems())];
    lists
        .into_iter()
        .filter_map(|(name, list)| Some((name, list.as_deref().filter(|l| !l.is_empty())?)))
        .map(|(name, list)| {
            if is_list(list) {
                Ok(Setting::new(format!("cpuset.{name}"), list))
            } else {
                Err(Error::invalid(
                    format!("linux.resources.cpu.{name}"),
                    list,
                    "must be a list such as `0-3,5`",
                ))
            }
        })
        .collect()
}

/// The "list format" of `cpuset(7)`: numbers and ranges, comma separated. As the kernel (`bitmap_parselist`), it takes blanks and
/// commas too many, and of a range every so many: `0-15:2/4`.
fn is_list(list: &str) -> bool {
    let mut parts = list.split([',', ' ']).filter(|part| !part.is_empty()).peekable();
    parts.peek().is_some() && parts.all(is_part)
}

fn is_part(part: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let pair = |text: &str, sign| text.split_once(sign).map(|(a, b)| (number(a), number(b)));
    let (range, some) = part.split_once(':').unwrap_or((part, "1/1"));
    let ordered = |pair| matches!(pair, Some((Some(a), Some(b))) if a <= b);
    let whole = number(range).is_some() && !part.contains(':');
    (whole || ordered(pair(range, '-'))) && ordered(pair(some, '/'))
}

/// Gives a new v1 cpuset what its parent has: it is born empty, and nothing can join an empty one. Those below it are born with what it
/// has (`cgroup.clone_children`): for each write the kernel looks at all cpusets, which took 6 ms among 4,000.
pub(super) fn inherit(parent: &Dir, child: &Dir) -> Result<()> {
    let mut is_empty = false;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
            is_empty = true;
        }
    }
    match is_empty {
        true => child.write("cgroup.clone_children", "1"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn golden(json: &str) -> Result<Vec<String>> {
        settings(&serde_json::from_str(json).unwrap()).map(|s| lines(&s))
    }

    #[test]
    fn lists_have_members() {
        assert_eq!(members("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(members("7"), [7]);
        assert!(members("").is_empty());
    }

    #[test]
    fn lists_pass_through() {
        assert_eq!(
            golden(r#"{"cpus":"0-1,3","mems":"0"}"#).unwrap(),
            ["cpuset.cpus=0-1,3", "cpuset.mems=0"]
        );
        assert!(golden(r#"{"cpus":"","mems":""}"#).unwrap().is_empty());
        for odd in ["0,", " 0-1 ", "0,,1", "0-15:2/4"] {
            assert!(golden(&format!(r#"{{"cpus":"{odd}"}}"#)).is_ok(), "{odd}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "a", "3-1", "+1", "0-+1", "0\\n1", "-1", ",", " ", "0:1/2", "0-3:3/2", "0-3:1", "0-3:",
        ] {
            assert!(golden(&format!(r#"{{"cpus":"{bad}"}}"#)).is_err(), "{bad}");
        }
    }
}
