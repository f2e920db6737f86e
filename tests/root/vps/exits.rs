//! How a VPS ended: recorded and shown.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::house::{House, said};

tests![
    a_status_is_recorded,
    a_signal_is_recorded,
    memory_that_ran_out_is_recorded in guest,
    a_kill_after_memory_ran_out_for_another in guest,
    an_unseen_end_is_unknown,
    the_end_of_the_hosts_power_is_unknown,
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
    house.import(
        "brief",
        "echo 'no \x1b[31msuch\x1b[0m file' > /dev/console; exit 7",
    )?;
    house.refused(
        "create web --image brief --start",
        "its init ended at once, with status 7; its last words: no such file",
    )?;
    is(&house.ended("web")?, "exited", Some(7), None)?;
    ensure!(house.ok("logs web")?.contains("no "));
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
    let _ = house.output("start web")?;
    is(&house.ended("web")?, "oom", None, Some(9))?;
    house.leave()
}

/// The kernel killed somebody in the VPS before: that says nothing of its init.
fn a_kill_after_memory_ran_out_for_another() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 48M")?;
    let end_another = || -> Result<()> {
        let output = house.try_sh("web", "(x=a; while :; do x=$x$x; done); echo $?")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            said.contains("137") || output.status.code() == Some(137),
            "{output:?}"
        );
        Ok(())
    };
    end_another()?;
    house.ok("kill web")?;
    is(&house.ended("web")?, "killed", None, Some(9))?;
    // By a signal of the host's own tools, of which condo knows nothing.
    house.ok("start web")?;
    house.up("web")?;
    end_another()?;
    let init = nix::unistd::Pid::from_raw(house.init("web")?);
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL)?;
    is(&house.ended("web")?, "killed", None, Some(9))?;
    house.leave()
}

/// Nothing of the run is left but what is on disk.
fn the_end_of_the_hosts_power_is_unknown() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    ensure!(house.show("web")?["last_exit"].is_null());
    house.kill_monitor("web")?;
    house.ok("kill web")?;
    for dir in ["run/vps/web", "run/runtime/web"] {
        std::fs::remove_dir_all(house.root.join(dir))?;
    }
    ensure!(house.status("web")? == "stopped");
    is(&house.show("web")?["last_exit"], "unknown", None, None)?;
    // It stays so until there is another end to tell of.
    house.ok("start web")?;
    house.up("web")?;
    is(&house.show("web")?["last_exit"], "unknown", None, None)?;
    house.ok("stop web")?;
    is(&house.ended("web")?, "exited", Some(0), None)?;
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
    let said = said(&house.output("start web")?);
    ensure!(
        said.contains("its init has ended already, with status 0"),
        "{said}"
    );
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
