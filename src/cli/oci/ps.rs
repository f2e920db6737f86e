//! `ps`: the processes of a container, by pid or as the host's `ps` shows them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::args::Ps;
use super::output::print;
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::runtime::container::Container;
use crate::runtime::id::Id;

/// `ps`
pub(super) fn ps(host: &Host, root: &Path, args: &Ps) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    let pids: BTreeSet<i32> = container.pids(host)?.into_iter().collect();
    match args.format.as_str() {
        "json" => print(&serde_json::to_string(&pids)?),
        "table" => print(&table(&run_ps(&args.options)?, &pids)?),
        other => Err(Error::invalid(
            "--format",
            other,
            "is not a format: use `table` or `json`",
        )),
    }
}

fn run_ps(options: &[String]) -> Result<String> {
    let default = ["-ef".to_string()];
    let options = if options.is_empty() { &default } else { options };
    let output = Command::new("ps").args(options).output().during(|| "run `ps`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid(
            "ps options",
            options.join(" "),
            format!("are refused by ps: {}", said.trim()),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading and the lines whose `PID` column names a process of the container.
fn table(listing: &str, pids: &BTreeSet<i32>) -> Result<String> {
    let heading = listing.lines().next().unwrap_or_default();
    let column = heading.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::invalid("ps options", heading, "show no column PID"))?;
    let ours = |line: &&str| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines = std::iter::once(heading).chain(listing.lines().skip(1).filter(ours));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let listing = "UID  PID PPID CMD\nroot 7 1 a 8\nroot 8 7 b\nroot 70 1 c\n";
        assert_eq!(
            table(listing, &BTreeSet::from([8])).unwrap(),
            "UID  PID PPID CMD\nroot 8 7 b\n"
        );
        assert!(table("UID CMD\n", &BTreeSet::new()).is_err());
    }
}
