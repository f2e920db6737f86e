//! Projects: what a tenant's VPSs may use together holds at every way in, also when many come at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::house::{House, finish};

tests![
    what_a_project_may_use_holds_at_every_way_in: 60,
    of_many_at_once_only_so_many_come_in: 60,
    a_project_has_no_way_to_others: 60,
    one_cgroup_holds_what_all_may_use: 60,
];

fn shown(house: &House, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(
        &house.ok(&format!("project show {name} --json"))?,
    )?)
}

fn what_a_project_may_use_holds_at_every_way_in() -> Result<()> {
    needs!(controller: memory);
    let house = House::quick()?;
    house.refused("project create default", "project `default` already exists")?;
    house.refused("project create shop --memory 0", "--memory: `0` must be above 0")?;
    house.ok("project create shop --vpss 3 --memory 100M --addresses 3")?;
    house.refused("project create shop", "project `shop` already exists")?;
    house.refused(
        "create a --image quick --project nosuch",
        "project `nosuch` does not exist",
    )?;
    house.refused(
        "create a --image quick --project shop",
        "the project `shop` has a limit of it",
    )?;
    house.ok("create a --image quick --project shop --memory 40M")?;
    house.refused(
        "create b --image quick --project shop --memory 70M",
        "--memory: `70M` is more than is left in the project `shop`: 60M of 100M memory",
    )?;
    // A copy is in its original's project.
    house.ok("clone a b")?;
    house.refused("clone a c", "20M of 100M memory")?;
    house.refused("resize b --memory 61M", "--memory: `61M`")?;
    house.refused(
        "resize b --no-limit memory",
        "the project `shop` has a limit of it",
    )?;
    house.ok("resize b --memory 20M")?;
    // So is what is read from an archive.
    let archive = crate::harness::tempdir().join("b.condo");
    let archive = archive.display();
    house.ok(&format!("export b --output {archive}"))?;
    house.ok("resize b --memory 60M")?;
    house.refused(&format!("import {archive} --name d"), "0B of 100M memory")?;
    house.ok("resize b --memory 30M")?;
    house.ok(&format!("import {archive} --name d"))?;
    house.refused("create e --image quick --project shop --memory 1M", "0 of 3 vpss")?;
    house.ok("network create lan --kind isolated --subnet 10.77.0.0/24")?;
    house.refused(
        "network attach lan a",
        "2 is more than is left in the project `shop`: 1 of 3 addresses",
    )?;
    let shop = shown(&house, "shop")?;
    ensure!(
        shop["used"]["memory"] == 90 << 20 && shop["used"]["vpss"] == 3,
        "{shop}"
    );
    ensure!(shop["vpss"] == json!(["a", "b", "d"]), "{shop}");
    within_and_without(&house)?;
    less_than_is_used(&house)?;
    lives_on(&house)?;
    house.refused(
        "project delete shop",
        "the VPS `a` is in the project; delete it first",
    )?;
    house.ok("network delete lan")?;
    house.ok("--project shop delete --force --all")?;
    ensure!(house.list()?.len() == 1, "only those of the project are gone");
    house.ok("project delete shop")?;
    house.refused("project show shop", "project `shop` does not exist")?;
    house.leave()
}

/// Less than is used may be set: nothing grows until enough has gone.
fn less_than_is_used(house: &House) -> Result<()> {
    house.ok("project set shop --memory 50M")?;
    house.refused("resize a --memory 41M", "0B of 50M memory")?;
    house.ok("resize a --memory 39M")?;
    house.refused("project set shop --no-limit colour", "is no limit of a project")?;
    house.ok("project set shop --no-limit memory,vpss")?;
    house.ok("resize a --memory 80M")?;
    Ok(())
}

/// What is meant by all of them.
fn within_and_without(house: &House) -> Result<()> {
    house.ok("create other --image quick --memory 10M")?;
    ensure!(house.list()?.len() == 4);
    let names = |line: &str| -> Result<Vec<String>> {
        let all: Vec<Value> = serde_json::from_str(&house.ok(line)?)?;
        all.iter()
            .map(|vps| Ok(vps["name"].as_str().context("no name")?.to_owned()))
            .collect()
    };
    ensure!(names("--project shop list --json")? == ["a", "b", "d"]);
    ensure!(names("stats --json --project default")? == ["other"]);
    let output = house
        .command()
        .env("CONDO_PROJECT", "shop")
        .args(["list", "--json"])
        .output()?;
    ensure!(serde_json::from_slice::<Vec<Value>>(&output.stdout)?.len() == 3);
    ensure!(house.show("other")?["project"] == "default" && house.show("d")?["project"] == "shop");
    ensure!(
        house
            .ok("metrics")?
            .contains("condo_up{name=\"a\",project=\"shop\"")
    );
    Ok(())
}

/// The limits outlive the database.
fn lives_on(house: &House) -> Result<()> {
    house.ok("project set shop --vpss 3")?;
    std::fs::remove_file(house.root.join("lib/condo.db"))?;
    let shop = shown(house, "shop")?;
    ensure!(shop["limits"]["vpss"] == 3 && shop["used"]["vpss"] == 3, "{shop}");
    house
        .refused("create e --image quick --project shop", "0 of 3 vpss")
        .map(drop)
}

fn of_many_at_once_only_so_many_come_in() -> Result<()> {
    let house = House::quick()?;
    house.ok("project create shop --vpss 3")?;
    let all: Vec<_> = (0..8)
        .map(|n| house.spawn(&format!("create v{n} --image quick --project shop")))
        .collect::<Result<_>>()?;
    let mut came = 0;
    for child in all {
        let output = finish(child)?;
        if output.status.success() {
            came += 1;
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(said.contains("0 of 3 vpss"), "{said}");
        }
    }
    ensure!(came == 3, "{came} came in");
    ensure!(house.list()?.len() == 3);
    house.ok("delete --all --force")?;
    house.ok("project delete shop")?;
    house.leave()
}

/// Neither names limits of its own, and each could have all of it alone.
fn one_cgroup_holds_what_all_may_use() -> Result<()> {
    needs!(controller: memory);
    let house = House::new()?;
    house.ok("project create lab --memory 48M --cpus 0.5 --shared")?;
    for name in ["a", "b"] {
        house.running(name, "--project lab")?;
        let vps = house.show(name)?;
        ensure!(vps["limits"]["memory"] == 48 << 20, "{vps}");
    }
    let shown = house.sh("a", "awk '/^MemTotal:/ { print $2 }' /proc/meminfo")?;
    ensure!(shown.trim() == "49152", "its figures say {shown}");
    let cgroup = house.project_cgroup("lab")?;
    let limit = || -> Result<Option<u64>> { Ok(cgroup.stats()?.memory.and_then(|memory| memory.limit)) };
    ensure!(limit()? == Some(48 << 20));
    let fill = "mount -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/held bs=1M count=30 2>/dev/null";
    let came = [house.try_sh("a", fill)?, house.try_sh("b", fill)?];
    let came = came.iter().filter(|output| output.status.success()).count();
    ensure!(came == 1, "{came} of two have 30 of 48 MiB each");
    let used = || -> Result<u64> { Ok(cgroup.stats()?.cpu.context("no cpu statistics")?.usage) };
    let busy = ["a", "b"].map(|name| house.sh_spawn(name, "while :; do :; done"));
    std::thread::sleep(Duration::from_millis(300));
    let (begun, before) = (Instant::now(), used()?);
    std::thread::sleep(Duration::from_millis(1500));
    let share = (used()? - before) as f64 / begun.elapsed().as_micros() as f64;
    house.ok("project set lab --memory 64M")?;
    ensure!(limit()? == Some(64 << 20), "in force at once");
    house.ok("project set lab --no-limit shared")?;
    ensure!(limit()?.is_none_or(|limit| limit > 1 << 40), "nothing is held");
    house.ok("stop --all --timeout 0")?;
    for child in busy {
        child?.wait()?;
    }
    ensure!(
        (0.02..0.8).contains(&share),
        "half a processor for both, {share} used"
    );
    ensure!(house.project_cgroup("lab").is_err(), "it goes with the last one");
    house.ok("delete --all --force")?;
    house.ok("project delete lab")?;
    house.leave()
}

/// Whatever is asked within a project of a VPS of another.
const ASKED: &[&str] = &[
    "show web",
    "start web",
    "stop web",
    "restart web",
    "kill web",
    "freeze web",
    "thaw web",
    "delete web",
    "delete --force web",
    "exec web -- true",
    "logs web",
    "console web",
    "stats web",
    "resize web --pids 7",
    "set web --autostart",
    "rename web other",
    "clone web other",
    "rebuild web --image quick --force",
    "rescue web",
    "snapshot create web s",
    "snapshot list web",
    "snapshot show web before",
    "snapshot diff web before",
    "snapshot restore web before",
    "snapshot delete web before",
    "export web -o -",
    "backup /tmp web",
    "cp web:/etc/hostname /tmp/condo-taken",
    "publish web 18099:80",
    "unpublish web 18099:80",
    "firewall web list",
    "firewall web deny in tcp 80",
    "network attach lan web",
    "network detach condo0 web",
    "migrate web ssh://nowhere.invalid",
];

fn a_project_has_no_way_to_others() -> Result<()> {
    let house = House::quick()?;
    house.ok("project create shop")?;
    house.ok("network create lan --kind isolated --subnet 10.77.0.0/24")?;
    house.ok("create web --image quick")?;
    house.ok("snapshot create web before")?;
    house.ok("start web")?;
    let before = house.show("web")?;
    for asked in ASKED {
        house.refused(&format!("--project shop {asked}"), "is not in the project `shop`")?;
    }
    // Its name is taken all the same: names are the machine's.
    house.refused("--project shop create web --image quick", "already exists")?;
    for all in ["start", "stop", "delete --force"] {
        house.ok(&format!("--project shop {all} --all"))?;
    }
    let mut after = house.show("web")?;
    for changes in ["uptime", "memory_used", "traffic"] {
        after[changes] = before[changes].clone();
    }
    ensure!(after == before, "{before}\n{after}");
    ensure!(house.status("web")? == "running");
    // Those who may talk to each other may be of two.
    house.ok("--project shop create db --image quick --allow web --start")?;
    house.ok("--project shop delete --force db")?;
    house.ok("delete --force web")?;
    house.ok("network delete lan")?;
    house.ok("project delete shop")?;
    house.leave()
}
