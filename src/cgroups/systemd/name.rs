//! From `linux.cgroupsPath` to the names systemd knows, and to the cgroup it makes for them.

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";

/// `UNIT_NAME_MAX` of systemd's `unit-name.h`.
const LONGEST: usize = 255;

/// Files that every cgroup has or had, and the controllers whose name and a dot begin others: a cgroup of such a name is
/// given an underscore by systemd (`cg_escape` of its `cgroup-util.c`).
const FILES: [&str; 3] = ["notify_on_release", "release_agent", "tasks"];
const CONTROLLERS: [&str; 10] = [
    "cgroup",
    "cpu",
    "cpuacct",
    "cpuset",
    "io",
    "blkio",
    "memory",
    "devices",
    "pids",
    "bpf-firewall",
];

/// A scope and the slice it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) slice: String,
    pub(super) unit: String,
}

/// `slice:prefix:name`, as engines have it from runc. No slice is `default`; no path at all is a scope of `id`.
///
/// # Errors
/// [`Error::Invalid`] for another form, and for what systemd takes for no name of a slice or scope.
pub(super) fn parse(path: Option<&str>, default: &str, id: &str) -> Result<Names> {
    let Some(path) = path.filter(|p| !p.is_empty()) else {
        return scope(path.unwrap_or_default(), default, "condo-runtime", id);
    };
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        let problem =
            "must be of the form `slice:prefix:name` for systemd; a path needs `--cgroup-manager cgroupfs`";
        return Err(Error::invalid(FIELD, path, problem));
    };
    scope(path, if slice.is_empty() { default } else { slice }, prefix, name)
}

fn scope(path: &str, slice: &str, prefix: &str, name: &str) -> Result<Names> {
    if name.is_empty() {
        return Err(Error::invalid(
            FIELD,
            path,
            "must name a scope after the second colon",
        ));
    }
    if name.ends_with(".slice") {
        let problem = "names a slice, which holds no processes; name a scope in it";
        return Err(Error::invalid(FIELD, path, problem));
    }
    // So that this is found out here and not by systemd.
    expand(slice)?;
    let unit = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    if !is_unit_name(&unit) {
        let problem = "is no name for systemd: letters, digits and `:_.\\-@` only, 255 at most";
        return Err(Error::invalid(FIELD, unit, problem));
    }
    Ok(Names {
        slice: slice.to_owned(),
        unit,
    })
}

/// `VALID_CHARS` of systemd's `unit-name.c`.
fn is_unit_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b":_.\\-@".contains(&b);
    name.len() <= LONGEST && name.bytes().all(valid)
}

/// The cgroup of a slice: `a-b.slice` is in `a.slice`, as `systemd.slice(5)` says. The root slice `-.slice` is the empty path.
///
/// # Errors
/// [`Error::Invalid`] for what is no name of a slice.
pub(super) fn expand(slice: &str) -> Result<String> {
    let refuse = || {
        let problem = "is no name of a slice, such as `machine.slice` or `a-b.slice`";
        Error::invalid(FIELD, slice, problem)
    };
    let name = slice.strip_suffix(".slice").ok_or_else(refuse)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        let level = &name[..end];
        if level.is_empty() || level.ends_with('-') || !is_unit_name(slice) {
            return Err(refuse());
        }
        path.push('/');
        path.push_str(&escape(&format!("{level}.slice")));
    }
    Ok(path)
}

/// A unit's name as the name of its cgroup.
pub(super) fn escape(unit: &str) -> String {
    let begins = |word: &&str| unit.strip_prefix(*word).is_some_and(|rest| rest.starts_with('.'));
    if unit.starts_with(['_', '.']) || FILES.contains(&unit) || CONTROLLERS.iter().any(begins) {
        format!("_{unit}")
    } else {
        unit.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_slice_and_scope() {
        for (path, slice, unit) in [
            (None, "system.slice", "condo-runtime-web.scope"),
            (Some(""), "system.slice", "condo-runtime-web.scope"),
            (
                Some("machine.slice:libpod:abc"),
                "machine.slice",
                "libpod-abc.scope",
            ),
            (Some(":docker:abc"), "system.slice", "docker-abc.scope"),
            (Some("a-b.slice::abc"), "a-b.slice", "abc.scope"),
            (Some("-.slice:x:y"), "-.slice", "x-y.scope"),
        ] {
            let names = parse(path, "system.slice", "web").unwrap();
            assert_eq!((names.slice.as_str(), names.unit.as_str()), (slice, unit));
        }
    }

    #[test]
    fn what_systemd_would_not_take_is_refused_by_field() {
        let long = format!("a.slice:x:{}", "y".repeat(255));
        for bad in [
            "/a/b",
            "a.slice:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:c.slice",
            "a--b.slice:x:y",
            "-a.slice:x:y",
            "a-.slice:x:y",
            ".slice:x:y",
            "a/b.slice:x:y",
            "a.slice:x:y/z",
            "a.slice:x:y z",
            &long,
        ] {
            let e = parse(Some(bad), "system.slice", "web").unwrap_err().to_string();
            assert!(e.starts_with("linux.cgroupsPath: "), "{bad}: {e}");
        }
        assert!(parse(None, "system.slice", "a+b").is_err());
    }

    #[test]
    fn a_slice_is_below_those_its_name_begins_with() {
        for (slice, path) in [
            ("-.slice", ""),
            ("system.slice", "/system.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("pids-x.slice", "/_pids.slice/pids-x.slice"),
        ] {
            assert_eq!(expand(slice).unwrap(), path);
        }
    }

    #[test]
    fn a_cgroup_does_not_look_like_one_of_its_files() {
        for (unit, name) in [
            ("web.scope", "web.scope"),
            ("cpu-a.scope", "cpu-a.scope"),
            ("cpu.scope", "_cpu.scope"),
            ("_x.scope", "__x.scope"),
        ] {
            assert_eq!(escape(unit), name);
        }
    }
}
