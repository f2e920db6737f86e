//! Which processors and memory nodes may be used.

use oci_spec::runtime::LinuxCpu;

use super::dir::Dir;
use super::setting::Setting;
use crate::error::{Error, Result};

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

/// The "list format" of `cpuset(7)`: numbers and ranges, comma separated.
fn is_list(list: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    list.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    })
}

/// Gives a new v1 cpuset what its parent has: it is born empty, and nothing can join an empty one.
pub(super) fn inherit(parent: &Dir, child: &Dir) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::lines;
    use super::*;

    fn golden(json: &str) -> Result<Vec<String>> {
        settings(&serde_json::from_str(json).unwrap()).map(|s| lines(&s))
    }

    #[test]
    fn lists_pass_through() {
        assert_eq!(
            golden(r#"{"cpus":"0-1,3","mems":"0"}"#).unwrap(),
            ["cpuset.cpus=0-1,3", "cpuset.mems=0"]
        );
        assert!(golden(r#"{"cpus":"","mems":""}"#).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in ["a", "3-1", "0,", "+1", "0-+1", "0\\n1", "-1", " 0"] {
            assert!(golden(&format!(r#"{{"cpus":"{bad}"}}"#)).is_err(), "{bad}");
        }
    }
}
