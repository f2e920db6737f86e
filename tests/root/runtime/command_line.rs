//! The command line as callers of runc type and generate it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Container, Ran, ensure_eq, to_the_end};
use crate::harness;

tests![
    no_command_and_help_print_help,
    help_and_version_bear_the_name_that_was_called,
    unknown_commands_and_flags_fail_and_are_logged,
    long_flags_may_have_one_dash,
    signal_zero_asks_whether_init_lives,
    the_table_of_list_is_three_apart,
    json_of_list_ends_its_line,
    obsolete_limits_are_taken_and_ignored,
    the_last_of_repeated_flags_counts,
    an_empty_value_is_no_value,
    figures_have_all_of_runc_s_keys in guest,
    exec_may_lift_what_the_config_has,
    an_environment_needs_names,
    start_of_a_paused_container,
    exec_into_a_cgroup_below,
];

fn no_command_and_help_print_help() -> Result<()> {
    let c = Container::new(&["true"])?;
    for args in [&[][..], &["help"], &["--help"], &["-h"]] {
        let out = c.call(args)?.ok()?;
        for command in ["create", "exec", "update"] {
            ensure!(out.contains(command), "{args:?}: no {command}");
        }
    }
    let out = c.call(&["help", "kill"])?.ok()?;
    ensure!(out.contains("--all") && out.contains("signal"), "{out}");
    Ok(())
}

fn help_and_version_bear_the_name_that_was_called() -> Result<()> {
    needs!(ours);
    let runc = harness::tempdir().join("runc");
    std::os::unix::fs::symlink(harness::condo_runtime(), &runc)?;
    for (words, first) in [
        (
            &["-h"][..],
            "NAME:\n   runc - Open Container Initiative runtime\n",
        ),
        (&["exec", "--help"], "NAME:\n   runc exec - "),
        (&["--version"], "runc version "),
    ] {
        let out = to_the_end_of(&runc, words)?.ok()?;
        ensure!(out.starts_with(first), "{words:?}: {out}");
    }
    Ok(())
}

fn to_the_end_of(program: &Path, words: &[&str]) -> Result<Ran> {
    let mut command = Command::new(program);
    command.args(words);
    to_the_end(command)
}

fn unknown_commands_and_flags_fail_and_are_logged() -> Result<()> {
    let c = Container::new(&["true"])?;
    ensure_eq!(c.call(&["no-such-command"])?.code(), 3);
    let log = harness::tempdir().join("log");
    let path = log.to_str().context("no text")?;
    let ran = c.call(&[
        "--log",
        path,
        "--log-format",
        "json",
        "start",
        "--no-such-flag",
        "@",
    ])?;
    ensure_eq!(ran.code(), 1);
    let last: Value = serde_json::from_str(&fs::read_to_string(&log)?)?;
    ensure_eq!(last["level"], "error");
    ensure!(
        last["msg"].as_str().is_some_and(|m| m.contains("no-such-flag")),
        "{last}"
    );
    Ok(())
}

fn long_flags_may_have_one_dash() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let out = c.exec(&["-cwd", "/bin", "@", "sh", "-c", "pwd"])?.ok()?;
    ensure_eq!(out, "/bin\n");
    // The program's own are its own.
    let out = c.exec(&["@", "echo", "-tty", "-cwd"])?.ok()?;
    ensure_eq!(out, "-tty -cwd\n");
    Ok(())
}

fn signal_zero_asks_whether_init_lives() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    c.call(&["kill", "@", "0"])?.ok()?;
    for same in ["+0", "00"] {
        c.call(&["kill", "@", same])?.ok()?;
    }
    c.call(&["kill", "@", "+9"])?.ok()?;
    c.stopped()?;
    let fault = c.call(&["kill", "@", "0"])?.fault()?;
    ensure!(fault.contains("container not running"), "{fault}");
    Ok(())
}

fn the_table_of_list_is_three_apart() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    let out = c.call(&["list"])?.ok()?;
    let created = c.state()?["created"].as_str().context("no time")?.to_owned();
    let bundle = c.bundle.dir.display();
    let row = out.lines().nth(1).context("no row")?;
    ensure!(row.contains(&format!("{bundle}   {created}   ")), "{out}");
    Ok(())
}

fn json_of_list_ends_its_line() -> Result<()> {
    known_difference!(
        "runc",
        "since 1.2 fails where the directory of `--root` is not there yet"
    );
    let c = Container::idle()?;
    ensure_eq!(c.call(&["list", "--format=json"])?.ok()?, "null\n");
    c.create()?;
    let out = c.call(&["list", "-f", "json"])?.ok()?;
    ensure!(out.ends_with("}]\n"), "{out}");
    Ok(())
}

fn obsolete_limits_are_taken_and_ignored() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    c.call(&[
        "update",
        "--kernel-memory",
        "50M",
        "--kernel-memory-tcp",
        "50M",
        "@",
    ])?
    .ok()?;
    Ok(())
}

/// As they come from programs that put command lines together.
fn the_last_of_repeated_flags_counts() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    c.call(&[
        "update",
        "--pids-limit",
        "30",
        "--memory",
        "",
        "--pids-limit",
        "40",
        "@",
    ])?
    .ok()?;
    ensure_eq!(
        c.exec(&["--cwd", "/bin", "--cwd", "/etc", "@", "pwd"])?.ok()?,
        "/etc\n"
    );
    let figures: Value = serde_json::from_str(&c.call(&["events", "--stats", "@"])?.ok()?)?;
    ensure_eq!(figures["data"]["pids"]["limit"], 40);
    Ok(())
}

/// As scripts write a flag whose variable is not set.
fn an_empty_value_is_no_value() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/process/cwd", "/etc".into())?;
    let create = [
        "--log",
        "",
        "create",
        "--bundle",
        "",
        "--pid-file=",
        "--console-socket",
        "",
        "@",
    ];
    let mut command = c.command(&create);
    command.current_dir(&c.bundle.dir);
    c.create_with(command)?;
    c.start()?;
    let flags = [
        "--cwd",
        "",
        "--user=",
        "--process",
        "",
        "--pid-file",
        "",
        "--apparmor=",
        "--process-label",
        "",
    ];
    ensure_eq!(c.exec(&[&flags[..], &["@", "pwd"]].concat())?.ok()?, "/etc\n");
    ensure_eq!(
        c.exec(&["--cwd", "/bin", "--cwd", "", "@", "pwd"])?.ok()?,
        "/etc\n"
    );
    let limits = ["update", "--cpu-quota", "", "--memory=", "--resources", "", "@"];
    c.call(&limits)?.ok()?;
    // A number is none, and a variable has to have a name.
    for wrong in [
        &["update", "--pids-limit", "", "@"][..],
        &["exec", "--env", "", "@", "true"],
        &["list", "--format", ""],
    ] {
        c.call(wrong)?.fault()?;
    }
    Ok(())
}

fn figures_have_all_of_runc_s_keys() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let told = c.call(&["events", "--stats", "@"])?.ok()?;
    let figures: Value = serde_json::from_str(&told)?;
    let data = figures["data"].as_object().context("no figures")?;
    let keys = [
        "cpu",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "hugetlb",
        "intel_rdt",
        "network_interfaces",
    ];
    for key in keys {
        ensure!(data.contains_key(key), "no {key} in {told}");
    }
    let (cpuset, memory) = (&data["cpuset"], &data["memory"]);
    for key in ["cpu_exclusive", "memory_spread_page", "sched_relax_domain_level"] {
        ensure!(cpuset[key].is_number(), "no {key} in {told}");
    }
    // With v1's controller the processors of this machine, of which every container has one.
    if harness::has("hybrid") {
        ensure_eq!(cpuset["cpus"][0], 0);
        ensure_eq!(cpuset["sched_load_balance"], 1);
        ensure!(memory["raw"]["total_rss"].is_number(), "{told}");
    }
    ensure!(memory["kernelTCP"]["limit"].is_number(), "{told}");
    let raw = memory["raw"].as_object().context("no lines of memory.stat")?;
    ensure!(raw.len() > 10, "{told}");
    ensure_eq!(data["pids"]["current"], 1);
    Ok(())
}

fn exec_may_lift_what_the_config_has() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/process/noNewPrivileges", true.into())?
        .set("/process/user", json!({"uid": 7, "gid": 8}))?;
    c.up()?;
    for (flags, bit) in [
        (&[][..], 1),
        (&["--no-new-privs=false"], 0),
        (&["--no-new-privs", "--user", ""], 1),
    ] {
        let look = ["@", "sh", "-c", "id -u; grep NoNewPrivs /proc/self/status"];
        let seen = c.exec(&[flags, &look].concat())?.ok()?;
        ensure_eq!(seen, format!("7\nNoNewPrivs:\t{bit}\n"));
    }
    Ok(())
}

fn an_environment_needs_names() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    for bad in ["NOTHING", "=value"] {
        let fault = c.exec(&["--env", bad, "@", "true"])?.fault()?;
        ensure!(!harness::is_ours() || fault.contains(bad), "{fault}");
    }
    ensure_eq!(
        c.exec(&["--env", "A=b=c", "@", "sh", "-c", "echo $A"])?.ok()?,
        "b=c\n"
    );
    Ok(())
}

fn start_of_a_paused_container() -> Result<()> {
    // Also of one whose init has yet to be told to.
    for make in [Container::up, Container::create] {
        let c = Container::idle()?;
        make(&c)?;
        c.call(&["pause", "@"])?.ok()?;
        ensure_eq!(c.status()?, "paused");
        let fault = c.call(&["start", "@"])?.fault()?;
        ensure!(
            fault.contains("cannot start a container in the paused state"),
            "{fault}"
        );
        c.call(&["resume", "@"])?.ok()?;
    }
    Ok(())
}

fn exec_into_a_cgroup_below() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let unified = harness::has("cgroup2");
    let (hierarchy, value) = if unified {
        ("", "inner")
    } else {
        ("pids", "pids:inner")
    };
    let inner = c
        .cgroups()
        .into_iter()
        .find(|dir| dir.to_string_lossy().contains(&format!("cgroup/{hierarchy}")))
        .context("no such hierarchy")?
        .join("inner");
    let missing = c.exec(&["--cgroup", value, "@", "true"])?.fault()?;
    ensure!(
        missing.contains(" adding pid ") && missing.contains("/inner/cgroup.procs: no such file "),
        "{missing}"
    );
    fs::create_dir(&inner)?;
    let own = c
        .exec(&["--cgroup", value, "@", "cat", "/proc/self/cgroup"])?
        .ok()?;
    let line = if unified { "0::/inner" } else { "pids:/inner" };
    ensure!(own.contains(line), "{own}");
    let own = c.exec(&["@", "cat", "/proc/self/cgroup"])?.ok()?;
    ensure!(!own.contains("inner"), "{own}");
    let unknown = if unified { "no-such" } else { "unknown controller " };
    for (bad, words) in [
        // The words of runc 1.3, and those of newer ones.
        ("../x", " ../x is not a sub cgroup path"),
        ("../x", "bad sub cgroup path"),
        ("no-such:inner", unknown),
    ] {
        let fault = c.exec(&["--cgroup", bad, "@", "true"])?.fault()?;
        ensure!(fault.contains(words), "{fault}");
    }
    Ok(())
}
