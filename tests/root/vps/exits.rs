//! How a VPS ended: recorded and shown.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::house::House;

tests![
    a_status_is_recorded,
    a_signal_is_recorded,
    memory_that_ran_out_is_recorded in guest,
    an_unseen_end_is_unknown,
    an_init_that_is_missing,
];

fn is(exit: &Value, reason: &str, status: Option<i32>, signal: Option<i32>) -> Result<()> {
    let right = exit["reason"] == reason
        && exit["status"].as_i64() == status.map(i64::from)
        && exit["signal"].as_i64() == signal.map(i64::from);
    ensure!(right && exit["at"].as_i64() > Some(1_600_000_000), "{exit}");
    Ok(())
}

fn a_status_is_recorded() -> Result<()> {
    let mut house = House::new()?;
    house.import("brief", "echo hello; exit 7")?;
    house.ok("create web --image brief --start")?;
    is(&house.ended("web")?, "exited", Some(7), None)?;
    ensure!(house.ok("logs web")?.contains("hello"));
    ensure!(house.ok("show web")?.contains("exited with status 7"));
    house.leave()
}

fn a_signal_is_recorded() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.ok("kill web")?;
    is(&house.ended("web")?, "killed", None, Some(9))?;
    house.refused("kill web", "not running")?;
    house.leave()
}

fn memory_that_ran_out_is_recorded() -> Result<()> {
    let mut house = House::new()?;
    house.import("greedy", "x=a; while :; do x=$x$x; done")?;
    house.ok("create web --image greedy --memory 24M")?;
    house.ok("start web")?;
    is(&house.ended("web")?, "oom", None, Some(9))?;
    house.leave()
}

fn an_unseen_end_is_unknown() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.kill_monitor("web")?;
    house.ok("kill web")?;
    house.ok("stop web")?;
    is(&house.ended("web")?, "unknown", None, None)?;
    house.leave()
}

fn an_init_that_is_missing() -> Result<()> {
    let mut house = House::new()?;
    house.import("brief", "exit 0")?;
    house.ok("create web --image brief")?;
    house.ok("start web")?;
    house.ended("web")?;
    let disk = house.root.join("lib/vps/web/disk");
    let upper = std::fs::read_dir(&disk)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.ends_with("upper"));
    let sbin = upper.unwrap_or(disk).join("sbin");
    // The tenant has removed it: a whiteout in its layer.
    std::fs::create_dir_all(&sbin)?;
    nix::sys::stat::mknod(
        &sbin.join("init"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::empty(),
        0,
    )?;
    house.refused("start web", "/sbin/init")?;
    ensure!(house.status("web")? == "stopped" && !house.run_of("web").exists());
    house.leave()
}
