//! What is left behind is found by the doctor and mended by `condo repair`.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::house::{House, eventually};

tests![
    what_is_left_behind_is_found_and_mended: 60,
    a_firewall_that_drops_is_found,
];

/// What the doctor says of a subject.
fn finding(house: &House, subject: &str) -> Result<Value> {
    let output = house.output("doctor --json")?;
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let found = all.into_iter().find(|finding| finding["subject"] == subject);
    found.with_context(|| format!("nothing about {subject}"))
}

fn what_is_left_behind_is_found_and_mended() -> Result<()> {
    let house = House::quick()?;
    ensure!(house.ok("repair")?.trim() == "nothing to repair");
    for name in ["web", "db", "lost", "gone"] {
        house.ok(&format!("create {name} --image quick --start"))?;
    }
    house.ok("stop lost gone")?;
    ensure!(finding(&house, "leftovers")?["weight"] == "good");
    ensure!(house.ok("repair")?.trim() == "nothing to repair");
    // The host's power goes: monitor and init of one are no more, and nobody has seen it.
    let init = house.init("web")?;
    kill(Pid::from_raw(house.monitor("web")?), Signal::SIGSTOP)?;
    kill(Pid::from_raw(init), Signal::SIGKILL)?;
    kill(Pid::from_raw(house.monitor("web")?), Signal::SIGKILL)?;
    eventually("it is dead", || Ok(house.status("web")? == "stopped"))?;
    // A snapshot and an import were killed.
    let lib = house.root.join("lib");
    std::fs::create_dir_all(lib.join("vps/db/snapshots/.unfinished-monday/layer"))?;
    std::fs::create_dir_all(lib.join("arriving/new/0/layer"))?;
    // The database comes from yesterday's backup, in which one is missing.
    let db = rusqlite::Connection::open(lib.join("condo.db"))?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.execute("DELETE FROM vps WHERE name = 'lost'", [])?;
    // A deletion was killed.
    db.execute(
        "UPDATE vps SET config = json_set(config, '$.deleting', json('true')) WHERE name = 'gone'",
        [],
    )?;
    drop(db);
    std::fs::remove_dir_all(lib.join("vps/gone"))?;
    std::fs::remove_file(lib.join("vps/db/record.json"))?;
    let found = finding(&house, "leftovers")?;
    let text = found["found"].as_str().context("no text")?;
    ensure!(found["remedy"] == "condo repair", "{found}");
    let said = house.ok("repair")?;
    for part in [
        "a run of `web`",
        "snapshots of `db`",
        "the record of `db`",
        "the record of `lost`",
        "an import left",
        "the deletion of `gone`",
    ] {
        ensure!(
            text.contains(part) && said.contains(part),
            "{part} is missing: {text}; {said}"
        );
    }
    ensure!(!lib.join("arriving").exists() && !lib.join("vps/db/snapshots/.unfinished-monday").exists());
    ensure!(lib.join("vps/db/record.json").exists() && !house.run_of("web").exists());
    ensure!(house.show("web")?["last_exit"]["reason"] == "unknown");
    ensure!(house.status("db")? == "running");
    house.refused("show gone", "does not exist")?;
    house.ok("start lost")?;
    ensure!(house.ok("repair")?.trim() == "nothing to repair");
    house.leave()
}

fn a_firewall_that_drops_is_found() -> Result<()> {
    needs!(program:nft);
    let house = House::new()?;
    let of_others = "firewalls of others";
    ensure!(finding(&house, of_others)?["weight"] == "good");
    let nft = |line: &str| crate::harness::run(std::process::Command::new("nft").args(line.split(' ')));
    nft("add table ip filter")?;
    nft("add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")?;
    let found = finding(&house, of_others)?;
    ensure!(found["weight"] == "warning", "{found}");
    // The remedy is what it says.
    let remedy = found["remedy"].as_str().context("no remedy")?;
    crate::harness::run(std::process::Command::new("sh").args(["-c", remedy]))?;
    ensure!(finding(&house, of_others)?["weight"] == "good");
    nft("delete table ip filter")?;
    house.leave()
}
