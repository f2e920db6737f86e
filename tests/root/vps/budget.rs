//! What a command costs on a host where VPSs run: system calls, which do not depend on how busy the machine is. A budget that is exceeded
//! is a question, not yet a defect: raise it with a reason, or find what became dearer.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::house::House;
use crate::harness::trace;
use crate::net::nft;

tests![
    commands_do_not_read_what_nobody_has_changed in guest: 120,
    a_vps_has_few_file_systems in guest,
];

/// A build with debug assertions looks at each descriptor it closes.
const BUDGET: [(&str, usize); 3] = [("exec a -- busybox true", 900), ("list", 620), ("show a", 960)];

fn calls(house: &House, line: &str) -> Result<usize> {
    let mut command = house.command();
    command.args(line.split_whitespace());
    let ended = trace::count(&command)?;
    ensure!(ended.success, "{line}: {ended:?}");
    Ok(ended.calls)
}

fn commands_do_not_read_what_nobody_has_changed() -> Result<()> {
    let house = House::quick()?;
    house.ok("create a --image quick --start")?;
    // This one reads the firewall's rules.
    let first = calls(&house, "list")?;
    let again = calls(&house, "list")?;
    ensure!(again < first, "`list` made {first} system calls, then {again}");
    house.ok("stop a")?;
    house.ok("start a")?;
    let own = calls(&house, "list")?;
    ensure!(
        own < first,
        "`list` makes {own} system calls after a start, {again} before"
    );
    nft(&["add table inet condo_test_other"])?;
    nft(&["delete table inet condo_test_other"])?;
    let others = calls(&house, "list")?;
    ensure!(
        others > own,
        "others changed rules, and `list` makes {others} system calls"
    );
    for (line, most) in BUDGET {
        let used = calls(&house, line)?;
        ensure!(
            used <= most,
            "`{line}` makes {used} system calls, more than {most}"
        );
    }
    house.leave()
}

/// Root, nodes, `/dev`, terminals, memory shared and queued, `/run`, locks, procfs, sysfs, figures.
const FILE_SYSTEMS: usize = 11;

/// Those of the kernel's making that a process sees, by their device numbers (`proc_pid_mountinfo(5)`).
fn file_systems(pid: &str) -> Result<BTreeSet<String>> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let numbers = table.lines().filter_map(|line| line.split(' ').nth(2));
    Ok(numbers
        .filter(|number| number.starts_with("0:"))
        .map(str::to_owned)
        .collect())
}

/// The kernel takes memory of every cgroup for each: among thousands it is most of what a VPS costs.
fn a_vps_has_few_file_systems() -> Result<()> {
    let house = House::quick()?;
    house.ok("create a --image quick --start")?;
    let own = file_systems(&house.init("a")?.to_string())?;
    let own = own.difference(&file_systems("self")?).count();
    ensure!((6..=FILE_SYSTEMS).contains(&own), "{own} file systems");
    house.leave()
}
