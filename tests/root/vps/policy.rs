//! What happens to VPSs by themselves, and what is told of them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::house::{House, eventually};

tests![a_policy_starts_again, the_host_comes_up, events_are_followed,];

/// Counts its runs; the first ends badly.
const FRAIL: &str = "n=0; [ -e /runs ] && read n < /runs; echo $((n + 1)) > /runs
trap 'exit 0' TERM
[ $n = 0 ] && { busybox sleep 0.3; exit 3; }
while :; do busybox sleep 60 & wait $!; done";

fn events(house: &House) -> Result<Vec<String>> {
    let lines = house.ok("events --json web")?;
    lines
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line)?;
            Ok(event["event"].as_str().context("no event")?.to_owned())
        })
        .collect()
}

fn a_policy_starts_again() -> Result<()> {
    let mut house = House::new()?;
    house.import("frail", FRAIL)?;
    let runs = |wanted: &str| {
        eventually(&format!("{wanted} runs"), || {
            let output = house.output("exec web -- busybox cat /runs")?;
            Ok(output.stdout == format!("{wanted}\n").as_bytes())
        })
    };
    house.ok("create web --image frail --restart on-failure --start")?;
    runs("2")?;
    ensure!(house.show("web")?["last_exit"]["status"] == 3 && house.show("web")?["restart"] == "on-failure");
    // An end that is none of its failures.
    // The program may be gone with the system before it has ended.
    house.output("exec web -- busybox kill -TERM 1")?;
    eventually("it is down", || Ok(house.status("web")? == "stopped"))?;
    house.ok("set web --restart always")?;
    house.ok("start web")?;
    runs("3")?;
    // The program may be gone with the system before it has ended.
    house.output("exec web -- busybox kill -TERM 1")?;
    runs("4")?;
    house.ok("kill web")?;
    eventually("it stays killed", || Ok(house.status("web")? == "stopped"))?;
    house.ok("start web")?;
    runs("5")?;
    house.ok("stop web --timeout 5")?;
    ensure!(house.status("web")? == "stopped");
    let told = events(&house)?;
    let wanted = [
        "created",
        "started",
        "exited",
        "restarted",
        "exited",
        "started",
        "exited",
        "restarted",
        "killed",
        "started",
        "stopped",
    ];
    ensure!(told == wanted, "{told:?}");
    house.leave()
}

fn the_host_comes_up() -> Result<()> {
    let house = House::quick()?;
    house.ok("create late --image quick --autostart --boot-order 2")?;
    house.ok("create early --image quick --autostart --boot-order 1")?;
    house.ok("create runs --image quick --autostart --start")?;
    house.ok("create other --image quick")?;
    ensure!(house.ok("autostart")?.trim_end() == "early started\nlate started");
    ensure!(house.status("other")? == "stopped");
    house.ok("stop --all --timeout 5")?;
    house.ok("set late --autostart=false")?;
    house.ok("set runs --autostart=false")?;
    ensure!(house.ok("autostart")?.trim_end() == "early started");
    house.refused("set late", "is given nothing new")?;
    house.refused("set late --restart sometimes", "none of no, on-failure, always")?;
    house.leave()
}

fn events_are_followed() -> Result<()> {
    use std::io::{BufRead, BufReader};
    let house = House::quick()?;
    let mut follow = house.spawn("events --follow")?;
    let mut lines = BufReader::new(follow.stdout.take().context("no output")?).lines();
    let mut next = || -> Result<String> { Ok(lines.next().context("it ended")??) };
    house.ok("create web --image quick --memory 64M")?;
    ensure!(next()?.ends_with(" web created"));
    house.ok("resize web --memory 32M")?;
    let resized = next()?;
    ensure!(
        resized.contains(" web resized ") && resized.contains("memory=33554432"),
        "{resized}"
    );
    house.ok("start web")?;
    ensure!(next()?.ends_with(" web started"));
    house.ok("delete --force web")?;
    ensure!(next()?.contains(" web stopped "));
    ensure!(next()?.ends_with(" web deleted"));
    follow.kill()?;
    follow.wait()?;
    ensure!(house.ok("events")?.lines().count() == 5);
    house.leave()
}
