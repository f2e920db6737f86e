//! Sub-cgroups of a container, as `exec --cgroup` names them: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH` with cgroup v1.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Paths below a cgroup: one for all hierarchies, or one for each of some controllers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Below {
    everywhere: Option<PathBuf>,
    of: BTreeMap<String, PathBuf>,
}

impl Below {
    /// Reads the values of one command line.
    ///
    /// # Errors
    /// `--cgroup` with the value, for a path that leads out, a second path for one controller, and an empty name.
    pub fn parse(values: &[String]) -> Result<Self> {
        let mut below = Self::default();
        for value in values {
            let wrong = |problem| Err(Error::invalid("--cgroup", value, problem));
            let (controllers, path) = match value.split_once(':') {
                Some((controllers, path)) => (controllers, path),
                None if values.len() > 1 => return wrong("needs its `CONTROLLER:` where there are several"),
                None => {
                    below.everywhere = Some(inner(value, value)?);
                    continue;
                }
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return wrong("names no controller before the colon");
                }
                let path = inner(value, path)?;
                if below.of.insert(controller.to_owned(), path).is_some() {
                    return wrong("is the second path for its controller");
                }
            }
        }
        Ok(below)
    }

    /// Whether no path was named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The path in a hierarchy that has these controllers; the empty one where none was named for it.
    pub(super) fn path(&self, controllers: &[&str]) -> &Path {
        let named = controllers.iter().find_map(|c| self.of.get(*c));
        named
            .or(self.everywhere.as_ref())
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// The first of the named controllers that is not among those there are.
    pub(super) fn unknown(&self, there: &[&str]) -> Option<&str> {
        self.of
            .keys()
            .map(String::as_str)
            .find(|name| !there.contains(name))
    }
}

/// A path that stays below, absolute or not. What refuses another has the words of runc 1.3 and those of opencontainers/cgroups
/// 0.0.5, which newer ones print, for callers that look for either.
fn inner(value: &str, path: &str) -> Result<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    if path.components().all(|c| matches!(c, Component::Normal(_))) {
        return Ok(path.to_owned());
    }
    Err(Error::invalid(
        "--cgroup",
        value,
        format_args!(
            "is a bad sub cgroup path, it leads out of the container's: {} is not a sub cgroup path",
            path.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Below> {
        Below::parse(&values.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn one_path_is_for_all_hierarchies() {
        let below = parse(&["/inner/most"]).unwrap();
        assert_eq!(below.path(&["memory"]), Path::new("inner/most"));
        assert!(!below.is_empty() && parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn controllers_have_their_own() {
        let below = parse(&["cpu,memory:a", "pids:b"]).unwrap();
        for (controllers, path) in [
            (&["memory"][..], "a"),
            (&["cpuacct", "cpu"], "a"),
            (&["pids"], "b"),
            (&["blkio"], ""),
        ] {
            assert_eq!(below.path(controllers), Path::new(path), "{controllers:?}");
        }
        assert_eq!(below.unknown(&["cpu", "memory"]), Some("pids"));
    }

    #[test]
    fn nothing_leads_out() {
        for bad in [
            &["../x"][..],
            &["a/../../x"],
            &["cpu:.."],
            &[":x"],
            &["cpu,:x"],
            &["cpu:x", "cpu:y"],
            &["x", "y"],
            &["x", "cpu:y"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_leads_out_is_refused_in_the_words_of_old_and_new_runc() {
        let fault = parse(&[".."]).unwrap_err().to_string();
        for words in ["bad sub cgroup path", " .. is not a sub cgroup path"] {
            assert!(fault.contains(words), "{fault}");
        }
    }
}
