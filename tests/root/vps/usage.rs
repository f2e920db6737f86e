//! What VPSs use, as it is told, and what of the host stands in the way.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::house::{House, eventually, finish};
use super::terminal::Terminal;
use crate::harness::Ended;
use crate::net::nft;

tests![
    what_is_used_is_told in guest,
    the_screen_follows_and_gives_the_terminal_back,
    the_doctor_finds_what_is_too_small,
    limits_that_are_met_are_told_to_who_watches: 150,
];

fn limits_that_are_met_are_told_to_who_watches() -> Result<()> {
    needs!(root, program: nft);
    let house = House::new()?;
    house.running("web", "--memory 32M --pids 16 --cpus 0.2 --disk 64M")?;
    house.refused("watch --every 0", "--every")?;
    // The one that comes first watches, and the other is refused.
    let watch = || house.spawn("watch --every 1");
    let mut watchers = [watch()?, watch()?].map(Ended);
    let told = |words: &str| eventually(words, || Ok(house.ok("events web")?.contains(words)));
    eventually("one of them is refused", || {
        let mut ended = Vec::new();
        for watcher in &mut watchers {
            ended.extend(watcher.0.try_wait()?);
        }
        Ok(ended.iter().any(|status| status.code() == Some(1)) && ended.len() == 1)
    })?;
    house.try_sh("web", "for i in $(seq 30); do sleep 3 & done")?;
    told("limited by=processes limit=16")?;
    // As soon as it has room for one more process.
    eventually("memory", || {
        house.try_sh("web", "dd if=/dev/zero of=/dev/null bs=100M count=1")?;
        Ok(house.ok("events web")?.contains("limited by=memory killed="))
    })?;
    let busy = Ended(house.sh_spawn("web", "while :; do :; done")?);
    told("limited by=processors")?;
    drop(busy);
    if house.ok("stats web --json")?.contains("\"disk_used\": null") {
        eprintln!("nobody counts what the disk holds here");
    } else {
        // Room that is taken without anything to be written when the VPS ends.
        house.try_sh(
            "web",
            "for n in 62 60 58 56 54 52 50; do fallocate -l ${n}M /big && break; done",
        )?;
        told("full free=")?;
    }
    // What the next command would put back, the watcher does.
    let rules = || nft(&["list ruleset"]).map(|all| all.lines().count());
    let before = rules()?;
    nft(&["flush ruleset"])?;
    eventually("the rules are there again", || Ok(rules()? == before))?;
    drop(watchers);
    house.leave()
}

fn what_is_used_is_told() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M --pids 50")?;
    house.ok("create db --image busybox")?;
    house.sh("web", "mount -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/held bs=1M count=20 2>/dev/null; sleep 600 >/dev/null 2>&1 &")?;
    let all: Value = serde_json::from_str(&house.ok("stats --json")?)?;
    let (db, web) = (&all[0], &all[1]);
    ensure!(
        db["name"] == "db" && db["memory"] == 0 && db["status"] == "stopped",
        "{db}"
    );
    let figure = |name: &str| web[name].as_u64().with_context(|| format!("no {name}: {web}"));
    ensure!((20 << 20..64 << 20).contains(&figure("memory")?), "{web}");
    ensure!(
        figure("pids")? >= 2 && figure("pids_limit")? == 50 && figure("cpu")? > 0,
        "{web}"
    );
    // Whether or not somebody answers.
    house.sh("web", "ping -c 1 -W 1 10.88.0.1 >/dev/null 2>&1 || true")?;
    let all: Value = serde_json::from_str(&house.ok("stats --json web")?)?;
    ensure!(
        all[0]["sent_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
            && all[0]["sent_packets"].as_u64() > Some(0),
        "{all}"
    );
    let metrics = house.ok("metrics")?;
    let labels = "{name=\"web\",project=\"default\",type=\"container\"}";
    ensure!(
        metrics.contains(&format!("lxd_memory_MemTotal_bytes{labels} {}\n", 64 << 20)),
        "{metrics}"
    );
    ensure!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
    house.refused("stats nosuch", "VPS `nosuch` does not exist")?;
    house.leave()
}

fn the_screen_follows_and_gives_the_terminal_back() -> Result<()> {
    let house = House::new()?;
    house.ok("create db --image busybox")?;
    house.running("web", "--memory 64M")?;
    house.refused("top", "for scripts there is `condo stats --json`")?;
    house.refused("top nosuch", "no terminal")?;
    let mut terminal = Terminal::new()?;
    let before = terminal.settings()?;
    let child = terminal.spawn(house.command().args(["top", "--interval", "1"]))?;
    terminal.hear("\x1b[?1049h")?;
    // Blanks are not drawn: a word comes by itself.
    hear_all(&mut terminal, &["condo:", "2", "VPSs,", "1", "running"])?;
    // Sorted by processor time, so the one that runs comes first.
    terminal.hear("PU↓")?;
    terminal.hear("web")?;
    terminal.hear("/64M")?;
    terminal.hear("db")?;
    // By memory; only what changes is drawn.
    terminal.say("m")?;
    terminal.hear("↓")?;
    terminal.say("m")?;
    terminal.hear("↑")?;
    // A VPS that comes is seen.
    house.ok("create new --image busybox")?;
    terminal.hear("3")?;
    terminal.hear("new")?;
    terminal.resize(10, 60, &child)?;
    hear_all(&mut terminal, &["condo:", "3", "VPSs,"])?;
    terminal.say("q")?;
    ensure!(finish(child)?.status.success());
    terminal.hear("\x1b[?1049l")?;
    ensure!(
        terminal.settings()? == before,
        "the terminal is left as it was taken"
    );
    // So does one who is ended from outside.
    let child = terminal.spawn(house.command().arg("top"))?;
    hear_all(&mut terminal, &["condo:", "3", "VPSs,"])?;
    let pid = nix::unistd::Pid::from_raw(child.id().try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(finish(child)?.status.success());
    terminal.hear("\x1b[?1049l")?;
    ensure!(terminal.settings()? == before, "a signal leaves it raw");
    house.leave()
}

fn hear_all(terminal: &mut Terminal, words: &[&str]) -> Result<()> {
    words.iter().try_for_each(|word| terminal.hear(word))
}

fn the_doctor_finds_what_is_too_small() -> Result<()> {
    let house = House::new()?;
    let findings = |line: &str| -> Result<Vec<Value>> {
        let output = house.output(line)?;
        ensure!(output.status.code().is_some_and(|code| code <= 1), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let of = |all: &[Value], subject: &str| -> Result<Value> {
        let found = all.iter().find(|finding| finding["subject"] == subject);
        found.cloned().with_context(|| format!("nothing about {subject}"))
    };
    let few = findings("doctor --json --vpss 1")?;
    ensure!(of(&few, "kernel.pid_max")?["weight"] == "good");
    ensure!(of(&few, "leftovers")?["found"] == "none");
    let many = findings("doctor --json --vpss 1000000")?;
    let pids = of(&many, "kernel.pid_max")?;
    ensure!(
        pids["weight"] == "warning" && pids["remedy"] == "sysctl -w kernel.pid_max=64004096",
        "{pids}"
    );
    ensure!(house.output("doctor --vpss 1000000")?.status.code() == Some(1));
    house.leave()
}
