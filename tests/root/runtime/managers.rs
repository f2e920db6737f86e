//! Who makes the cgroup: `--cgroup-manager`.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq, lives, until};

tests![
    without_a_cgroup_it_lives_and_dies in guest,
    without_a_cgroup_it_sees_and_changes_nobody_s in guest,
    without_a_cgroup_limits_are_refused in guest,
    without_a_cgroup_nor_pids_of_its_own in guest,
];

fn create(c: &Container, manager: &str) -> Result<()> {
    let flag = format!("--cgroup-manager={manager}");
    c.create_with(c.command(&[&flag, "create", "--bundle", "%", "@"]))
}

fn cgroup_of(pid: &str) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?)
}

fn without_a_cgroup_it_lives_and_dies() -> Result<()> {
    needs!(root, ours);
    let c = Container::sh("sleep 100000 & exec sleep 100000")?;
    create(&c, "disabled")?;
    c.start()?;
    let pid = c.pid()?;
    ensure_eq!(cgroup_of(&pid.to_string())?, cgroup_of("self")?);
    ensure_eq!(c.status()?, "running");
    ensure_eq!(c.exec(&["@", "echo", "inside"])?.ok()?, "inside\n");
    ensure!(c.call(&["ps", "@"])?.ok()?.contains("sleep 100000"));
    for args in [
        &["pause", "@"][..],
        &["events", "--stats", "@"],
        &["update", "--pids-limit", "7", "@"],
        &["kill", "--all", "@", "TERM"],
    ] {
        let fault = c.call(args)?.fault()?;
        ensure!(fault.contains("without a cgroup"), "{args:?}: {fault}");
    }
    ensure!(lives(pid), "it was only asked");
    c.call(&["kill", "--all", "@", "KILL"])?.ok()?;
    c.stopped()?;
    c.call(&["kill", "--all", "@", "KILL"])?.ok()?;
    c.delete()?;
    c.nothing_left()
}

fn without_a_cgroup_it_sees_and_changes_nobody_s() -> Result<()> {
    needs!(root, ours);
    let write =
        "cat /proc/self/cgroup; echo $$ > /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/condo-x; exit 0";
    let mut c = Container::sh(write)?;
    c.set("/mounts/6/options", json!(["rw"]))?;
    let ran = c.call(&["--cgroup-manager", "disabled", "run", "--bundle", "%", "@"])?;
    ensure!(ran.err.matches("Read-only file system").count() == 2, "{ran:?}");
    c.namespace("cgroup", None)?;
    let ran = c.call(&["--cgroup-manager", "disabled", "run", "--bundle", "%", "@"])?;
    ensure!(ran.err.matches("Read-only file system").count() == 2, "{ran:?}");
    c.nothing_left()
}

fn without_a_cgroup_limits_are_refused() -> Result<()> {
    needs!(root, ours);
    let mut c = Container::new(&["true"])?;
    c.set("/linux/resources/memory", json!({"limit": 1_048_576}))?;
    let ran = c.call(&["--cgroup-manager", "disabled", "run", "--bundle", "%", "@"])?;
    let fault = ran.fault()?;
    ensure!(fault.contains("linux.resources.memory"), "{fault}");
    c.nothing_left()?;
    let fault = c.call(&["--cgroup-manager", "nobody", "list"])?.fault()?;
    ensure!(fault.contains("cgroupfs"), "{fault}");
    Ok(())
}

fn without_a_cgroup_nor_pids_of_its_own() -> Result<()> {
    needs!(root, ours);
    let mut c = Container::sh("sleep 100000 & echo $!; exec sleep 100000")?;
    c.namespace("pid", None)?;
    create(&c, "disabled")?;
    c.start()?;
    until("it says who it made", || Ok(!c.printed().is_empty()))?;
    let other: i32 = c.printed().trim().parse()?;
    let fault = c.call(&["kill", "--all", "@", "KILL"])?.fault()?;
    ensure!(fault.contains("pid namespace"), "{fault}");
    let ran = c.call(&["--debug", "delete", "--force", "@"])?;
    ensure!(
        ran.status.success() && ran.err.contains("only its init"),
        "{ran:?}"
    );
    ensure!(lives(other), "nobody could know of it");
    Command::new("kill").args(["-9", &other.to_string()]).status()?;
    c.nothing_left()
}
