//! From create to delete.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::house::{House, alive, eventually, finish, said};

tests![
    a_vps_lives in guest: 120,
    all_at_once,
    the_stop_signal_is_sent,
    patience_ends,
    one_that_is_slow_to_stop_keeps_nobody_up: 120,
    poweroff_and_reboot_inside in guest: 120,
    a_stop_is_no_reboot,
    a_reboot_loop_is_slowed_down: 120,
    the_host_starts_anew,
    a_frozen_vps_stands_still in guest,
];

fn a_vps_lives() -> Result<()> {
    let house = House::new()?;
    let created = house
        .ok("create web --image busybox --hostname shop.example --memory 64M --cpus 0.5 --env COLOUR=red")?;
    let vps = house.show("web")?;
    ensure!(
        vps["status"] == "stopped" && vps["pid"].is_null() && vps["last_exit"].is_null(),
        "{vps}"
    );
    ensure!(
        vps["hostname"] == "shop.example" && vps["image"] == "busybox",
        "{vps}"
    );
    ensure!(
        vps["limits"]["memory"] == 64 << 20 && vps["limits"]["cpus"] == 0.5,
        "{vps}"
    );
    ensure!(
        created.contains(vps["address"].as_str().unwrap_or("?")),
        "{created}"
    );
    house.ok("start web")?;
    house.up("web")?;
    let vps = house.show("web")?;
    ensure!(
        vps["status"] == "running" && vps["pid"].is_u64() && vps["uptime"].is_u64(),
        "{vps}"
    );
    ensure!(vps["memory_used"].as_u64() > Some(0), "{vps}");
    ensure!(house.list()?.len() == 1);
    let table = house.ok("list")?;
    ensure!(
        table.contains("web") && table.contains("running") && table.contains("64M"),
        "{table}"
    );
    ensure!(house.ok("show web")?.contains("shop.example"));
    let env = house.sh("web", "tr '\\0' '\\n' </proc/1/environ")?;
    ensure!(
        env.lines().any(|l| l == "COLOUR=red") && env.lines().any(|l| l == "container=condo"),
        "{env}"
    );
    house.sh("web", "echo kept > /root/file")?;
    let before = house.init("web")?;
    house.ok("restart web --timeout 20")?;
    ensure!(house.init("web")? != before, "the same init after a restart");
    ensure!(
        house.sh("web", "cat /root/file")? == "kept",
        "the disk outlives a restart"
    );
    house.ok("stop web")?;
    let vps = house.show("web")?;
    ensure!(
        vps["status"] == "stopped" && vps["last_exit"]["reason"] == "exited",
        "{vps}"
    );
    ensure!(vps["last_exit"]["at"].as_i64() > Some(1_600_000_000), "{vps}");
    house.ok("stop web")?;
    house.ok("delete web")?;
    house.nothing_left()?;
    house.leave()
}

fn all_at_once() -> Result<()> {
    let house = House::quick()?;
    for name in ["a", "b", "c"] {
        house.ok(&format!("create {name} --image quick"))?;
    }
    house.ok("start a b a")?;
    let running =
        || -> Result<usize> { Ok(house.list()?.iter().filter(|v| v["status"] == "running").count()) };
    ensure!(running()? == 2);
    // One that runs already is complained about; the others start all the same.
    let output = house.output("start --all")?;
    ensure!(!output.status.success() && running()? == 3, "{output:?}");
    ensure!(
        String::from_utf8_lossy(&output.stderr).lines().count() == 2,
        "{output:?}"
    );
    house.ok("kill a --signal KILL")?;
    house.ended("a")?;
    house.ok("stop --all --timeout 20")?;
    ensure!(running()? == 0);
    house.ok("start b")?;
    house.refused("delete b", "--force")?;
    house.ok("delete --force b")?;
    house.ok("delete --all")?;
    house.nothing_left()?;
    house.leave()
}

fn the_stop_signal_is_sent() -> Result<()> {
    let mut house = House::new()?;
    house.import(
        "polite",
        "trap 'exit 3' TERM; echo ready; while :; do busybox sleep 1 & wait $!; done",
    )?;
    house.ok("create web --image polite --start")?;
    eventually("it is ready", || Ok(house.ok("logs web")?.contains("ready")))?;
    house.ok("stop web --timeout 60")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "exited" && exit["status"] == 3, "{exit}");
    house.leave()
}

fn patience_ends() -> Result<()> {
    let mut house = House::new()?;
    house.import(
        "deaf",
        "trap '' TERM; echo ready; while :; do busybox sleep 1; done",
    )?;
    house.ok("create web --image deaf --start")?;
    eventually("it is ready", || Ok(house.ok("logs web")?.contains("ready")))?;
    house.ok("stop web --timeout 1")?;
    let exit = house.show("web")?["last_exit"].clone();
    ensure!(exit["reason"] == "killed" && exit["signal"] == 9, "{exit}");
    house.leave()
}

fn one_that_is_slow_to_stop_keeps_nobody_up() -> Result<()> {
    let mut house = House::quick()?;
    house.import(
        "deaf",
        "trap '' TERM; echo ready; while :; do busybox sleep 1; done",
    )?;
    house.ok("create a --image deaf --start")?;
    house.ok("create b --image quick --start")?;
    house.ok("create c --image quick --start")?;
    eventually("it is ready", || Ok(house.ok("logs a")?.contains("ready")))?;
    let first = house.spawn("stop --all --timeout 600")?;
    let others = ["b", "c"]
        .into_iter()
        .try_for_each(|name| eventually("the others are stopped", || Ok(house.status(name)? == "stopped")));
    let slow = house.status("a")?;
    // A second one, which takes its locks in the same order, and has one that fails.
    let second = house.spawn("stop c nobody b a --timeout 600")?;
    house.ok("kill a --signal KILL")?;
    others?;
    ensure!(slow == "running");
    let (first, second) = (finish(first)?, finish(second)?);
    ensure!(first.status.success(), "{first:?}");
    ensure!(
        !second.status.success() && said(&second).lines().count() == 1 && said(&second).contains("nobody"),
        "{second:?}"
    );
    ensure!(house.list()?.iter().all(|vps| vps["status"] == "stopped"));
    house.leave()
}

fn poweroff_and_reboot_inside() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let before = house.init("web")?;
    let monitor = house.monitor("web")?;
    house.sh_last("web", "echo kept > /root/file; reboot")?;
    house.boots_again("web", before)?;
    house.up("web")?;
    ensure!(house.sh("web", "cat /root/file")? == "kept");
    ensure!(house.monitor("web")? == monitor, "another monitor after a reboot");
    ensure!(
        house
            .sh("web", "ip -4 addr show eth0")?
            .contains(&house.address("web")?)
    );
    house.sh_last("web", "poweroff")?;
    let exit = house.ended("web")?;
    ensure!(exit["reason"] == "exited", "{exit}");
    house.ok("start web")?;
    ensure!(house.status("web")? == "running");
    house.leave()
}

/// A stop is the last word, also when the init answers the stop signal with a reboot.
fn a_stop_is_no_reboot() -> Result<()> {
    let mut house = House::new()?;
    let script = "trap 'busybox reboot -f' TERM; echo ready; while :; do busybox sleep 1 & wait $!; done";
    house.import("stubborn", script)?;
    house.ok("create web --image stubborn --start")?;
    eventually("it is ready", || Ok(house.ok("logs web")?.contains("ready")))?;
    house.ok("stop web --timeout 60")?;
    ensure!(house.status("web")? == "stopped");
    std::thread::sleep(Duration::from_millis(300));
    ensure!(house.status("web")? == "stopped", "it came back");
    house.leave()
}

/// Each boot costs the host, and not the tenant: 1, 2, 4 … seconds pass before the next, and no stop waits for that.
fn a_reboot_loop_is_slowed_down() -> Result<()> {
    let mut house = House::new()?;
    house.import("restless", "echo booted; busybox reboot -f")?;
    house.ok("create web --image restless --start")?;
    let boots = || -> Result<usize> { Ok(house.ok("logs web")?.matches("booted").count()) };
    eventually("it boots again and again", || Ok(boots()? >= 3))?;
    // A second boot would take 4 s and a third 12 s from here; without pauses there are ten.
    std::thread::sleep(Duration::from_millis(500));
    let before = boots()?;
    ensure!(before <= 4, "{before} boots");
    let monitor = house.monitor("web")?;
    house.ok("stop web")?;
    ensure!(house.status("web")? == "stopped" && !alive(monitor));
    ensure!(boots()? == before, "the stop let it boot again");
    ensure!(!house.run_of("web").exists());
    house.ok("start web")?;
    eventually("it boots again", || Ok(boots()? > before + 1))?;
    house.ok("delete --force web")?;
    house.nothing_left()?;
    house.leave()
}

/// As far as condo can see: no processes, no run directory, no interfaces; only what lasts.
fn the_host_starts_anew() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    let address = house.address("web")?;
    house.sh("web", "echo kept > /root/file; sync")?;
    house.kill_monitor("web")?;
    let cgroup = house.cgroup("web")?;
    cgroup.kill()?;
    ensure!(cgroup.wait_empty(super::house::patience())?);
    cgroup.remove()?;
    std::fs::remove_dir_all(house.root.join("run"))?;
    ensure!(house.status("web")? == "stopped");
    house.ok("start web")?;
    house.up("web")?;
    ensure!(house.sh("web", "cat /root/file")? == "kept" && house.address("web")? == address);
    house.leave()
}

fn a_frozen_vps_stands_still() -> Result<()> {
    let house = House::quick()?;
    house.ok("create web --image quick --start")?;
    house.ok("create idle --image quick")?;
    house.refused("freeze idle", "condo start idle")?;
    house.refused("thaw idle", "not running")?;
    house.ok("freeze --all")?;
    house.ok("freeze web")?;
    ensure!(house.status("web")? == "paused" && house.ok("list")?.contains("paused"));
    for line in ["start web", "exec web -- true"] {
        house.refused(line, "condo thaw web")?;
    }
    house.refused("delete web", "is paused: stop it first, or use --force")?;
    house.ok("thaw --all")?;
    house.ok("thaw web")?;
    ensure!(house.status("web")? == "running");
    house.sh("web", "true")?;
    // However it stands: it is asked, and ends by itself.
    house.ok("freeze web")?;
    house.ok("stop web")?;
    let end = house.ended("web")?;
    ensure!(end["reason"] == "exited" && end["status"] == 0, "{end}");
    house.ok("start web")?;
    house.ok("freeze web")?;
    house.ok("restart web")?;
    ensure!(house.status("web")? == "running");
    house.ok("freeze web")?;
    house.ok("kill web")?;
    house.ended("web")?;
    house.ok("start web")?;
    house.ok("freeze web")?;
    house.leave()
}
