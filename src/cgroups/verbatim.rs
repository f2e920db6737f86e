//! `linux.resources.unified`: cgroup v2 files by name.

use std::collections::{BTreeMap, HashMap};

use super::setting::{Controllers, Setting, controller_of, word};
use crate::error::{Error, Result};

const FIELD: &str = "linux.resources.unified";

/// Files of the cgroup core that move processes or change what the cgroup is: no limits.
const NOT_LIMITS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.subtree_control",
    "cgroup.type",
    "cgroup.kill",
    "cgroup.freeze",
];

/// The settings, by file name; unknown files of a controller that is there are written, for kernels newer than condo. A
/// value of several lines (`io.max`) is written line by line, as the kernel wants it.
pub(super) fn settings(map: &HashMap<String, String>, host: &Controllers) -> Result<Vec<Setting>> {
    if map.is_empty() {
        return Ok(Vec::new());
    }
    host.check_cgroup(FIELD)?;
    if !host.is_unified() {
        return Err(Error::unsupported(
            FIELD,
            "it is an invalid configuration for a host that still mounts cgroup v1 controllers",
        ));
    }
    let mut settings = Vec::new();
    for (file, value) in map.iter().collect::<BTreeMap<_, _>>() {
        check(file)?;
        let controller = controller_of(file);
        if controller != "cgroup" {
            host.version(controller, &format!("{FIELD} `{file}`"))?;
        }
        let lines = value.lines().filter(|l| !l.is_empty());
        settings.extend(lines.map(|line| Setting::new(file, line)));
    }
    Ok(settings)
}

fn check(file: &str) -> Result<()> {
    word(FIELD, file)?;
    if file.contains('/') || file.contains("..") || !file.contains('.') || file.starts_with('.') {
        return Err(Error::invalid(FIELD, file, "is not the name of a cgroup file"));
    }
    if NOT_LIMITS.contains(&file) {
        return Err(Error::invalid(FIELD, file, "is not a limit"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::setting::tests::{lines, v1, v2};
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn unknown_files_are_written_and_lines_are_separate() {
        let asked = map(&[
            ("memory.high", "100"),
            ("io.max", "8:0 rbps=1\n8:16 rbps=2\n"),
            ("cpu.future", "yes"),
        ]);
        assert_eq!(
            lines(&settings(&asked, &v2()).unwrap()),
            [
                "cpu.future=yes",
                "io.max=8:0 rbps=1",
                "io.max=8:16 rbps=2",
                "memory.high=100"
            ]
        );
    }

    #[test]
    fn a_file_elsewhere_or_a_move_is_refused() {
        for bad in [
            "../memory.max",
            "a/memory.max",
            "memory.max\nx",
            "memory..max",
            "cgroup.procs",
            "memory",
            "",
            ".x",
        ] {
            assert!(settings(&map(&[(bad, "1")]), &v2()).is_err(), "{bad}");
        }
    }

    #[test]
    fn v1_refuses() {
        assert!(settings(&map(&[("memory.high", "1")]), &v1()).is_err());
        assert!(settings(&HashMap::new(), &v1()).unwrap().is_empty());
    }
}
