//! What a container that is a VPS is told of itself, with the runtime alone. (With engines: `engines::vps`.)

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Container, ensure_eq, until};

tests![memory_is_told, nobody_waits_for_a_process_that_was_killed in guest: 120];

/// By a file and by a system call, wherever the states are.
fn memory_is_told() -> Result<()> {
    needs!(root, ours, userns, linux_6_3);
    let mut c = Container::idle()?;
    c.set("/annotations", json!({ "io.condo.vps": "true" }))?;
    c.set("/linux/resources/memory", json!({ "limit": 64 << 20 }))?;
    let mut command = c.command(&["--root", "state", "create", "--bundle", "%", "@"]);
    command.current_dir(c.root.parent().context("a path")?);
    c.create_with(command)?;
    c.start()?;
    let script = "busybox free -k && grep MemTotal /proc/meminfo";
    let told = c.exec(&["@", "sh", "-c", script])?.ok()?;
    ensure_eq!(told.split_whitespace().filter(|word| *word == "65536").count(), 2);
    c.delete()
}

/// How many programs ask without a pause, by files and by system calls, and how often the process that answers them is killed: so often
/// that something is being answered once.
const ASKING: usize = 4;
const KILLS: usize = 30;

/// The heir answers what was being answered. Before Linux 6.9 the kernel asks nobody again.
fn nobody_waits_for_a_process_that_was_killed() -> Result<()> {
    needs!(root, ours, userns);
    let one = "(while :; do busybox uptime; cat /proc/meminfo; : > /beat.$n; done) > /dev/null &";
    let mut c = Container::sh(&format!(
        "n=0; while [ $n -lt {ASKING} ]; do n=$((n + 1)); {one} done; wait"
    ))?;
    c.set("/root/readonly", json!(false))?;
    c.set("/annotations", json!({ "io.condo.vps": "true" }))?;
    c.up()?;
    let inside = PathBuf::from(format!("/proc/{}/root", c.pid()?));
    let beats: Vec<_> = (1..=ASKING).map(|n| inside.join(format!("beat.{n}"))).collect();
    for round in 0..KILLS {
        let before = tellers(&c)?;
        beats.iter().for_each(|beat| drop(std::fs::remove_file(beat)));
        until(&format!("all are answered in round {round}"), || {
            Ok(beats.iter().all(|beat| beat.exists()))
        })?;
        kill(Pid::from_raw(before[0]), Signal::SIGKILL)?;
        until("there is an heir again", || {
            Ok(tellers(&c).is_ok_and(|now| now[0] == before[1]))
        })?;
    }
    c.delete()
}

/// The process that tells a container's figures, and its heir.
fn tellers(c: &Container) -> Result<[i32; 2]> {
    let text = std::fs::read(c.root.join(&c.id).join("figures.json"))?;
    let all: Vec<Value> = serde_json::from_slice(&text)?;
    let pids = all
        .iter()
        .filter_map(|one| i32::try_from(one["pid"].as_i64()?).ok());
    let pids: Vec<_> = pids.collect();
    pids.try_into().ok().context("there are not two")
}
