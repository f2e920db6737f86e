//! Mistakes of users: one clear line each, and nothing left.

use anyhow::{Result, ensure};

use super::house::House;
use crate::harness;
use crate::image::Tar;

tests![
    what_cannot_be_created,
    limits_that_make_no_sense,
    what_cannot_be_done,
    images_that_cannot_be,
];

fn what_cannot_be_created() -> Result<()> {
    let house = House::new()?;
    house.ok("create taken --image busybox")?;
    let address = house.address("taken")?;
    for (line, needle) in [
        ("create web --image nothing", "nothing"),
        ("create web", "--image"),
        ("create Web --image busybox", "Web"),
        ("create ../web --image busybox", "../web"),
        ("create -web --image busybox", "-w"),
        ("create taken --image busybox", "taken"),
        (&format!("create web --image busybox --ip {address}"), &address),
        ("create web --image busybox --ip 192.0.2.1", "--ip"),
        ("create web --image busybox --ip 127.0.0.1", "--ip"),
        ("create web --image busybox --ip web", "--ip"),
        ("create web --image busybox --hostname a_b", "--hostname"),
        ("create web --image busybox --env A", "--env"),
        ("create web --image busybox --env container=x", "--env"),
        ("create web --image busybox --allow nobody", "nobody"),
        ("create web --image busybox --allow web", "web"),
        ("create web --image busybox --nothing", "--nothing"),
    ] {
        house.refused(line, needle)?;
    }
    ensure!(house.list()?.len() == 1);
    house.leave()
}

fn limits_that_make_no_sense() -> Result<()> {
    let house = House::new()?;
    for (option, values) in [
        ("--cpus", &["0", "100000", "-1", "0.001", "two", "inf"][..]),
        ("--cpu-weight", &["0", "10001", "x"]),
        ("--cpuset", &["9999", "x", "1-0", "0,,1"]),
        ("--memory", &["0", "512", "1000T", "-1", "1X", ""]),
        ("--swap", &["1000T"]),
        ("--pids", &["0", "-1", "x"]),
        ("--io-read", &["0", "1", "x"]),
        ("--io-write", &["0", "-5", "99999999999999999999"]),
        ("--iops-read", &["0", "1.5"]),
        ("--iops-write", &["0", "x"]),
    ] {
        for value in values {
            house.refused(&format!("create web --image busybox {option}={value}"), option)?;
        }
    }
    ensure!(house.list()?.is_empty());
    house.nothing_left()?;
    house.leave()
}

fn what_cannot_be_done() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    for verb in [
        "start", "stop", "restart", "kill", "delete", "show", "logs", "console", "shell",
    ] {
        house.refused(&format!("{verb} nobody"), "nobody")?;
    }
    house.refused("exec nobody -- true", "nobody")?;
    for line in ["exec web -- true", "shell web", "console web", "kill web"] {
        house.refused(line, "not running")?;
    }
    house.refused("start", "NAME")?;
    house.refused("image remove busybox", "web")?;
    house.refused("image remove nothing", "nothing")?;
    house.refused("image show nothing", "nothing")?;
    house.ok("start web")?;
    house.up("web")?;
    house.refused("start web", "running already")?;
    house.refused("delete web", "--force")?;
    house.refused("kill web --signal NOPE", "--signal")?;
    house.refused("stop web --timeout soon", "--timeout")?;
    house.refused("exec web -u nobody-here -- true", "--user")?;
    house.refused("exec web -w relative -- true", "--workdir")?;
    house.refused("exec web -e A -- true", "--env")?;
    house.refused("exec web", "COMMAND")?;
    ensure!(house.status("web")? == "running");
    house.ok("delete --force web")?;
    house.nothing_left()?;
    house.leave()
}

fn images_that_cannot_be() -> Result<()> {
    let house = House::new()?;
    let dir = harness::tempdir();
    let write = |name: &str, bytes: &[u8]| -> Result<String> {
        std::fs::write(dir.join(name), bytes)?;
        Ok(dir.join(name).display().to_string())
    };
    let whole = Tar::system().file("etc/large", 0o644, &[7; 100_000]).end();
    let cut = write("cut.tar", &whole[..whole.len() / 2])?;
    house.refused(&format!("image import {cut} --name cut"), "cut")?;
    let noise = write("noise.tar", &[0xa5; 4096])?;
    house.refused(&format!("image import {noise} --name noise"), "noise")?;
    let link = write(
        "link.tar",
        &Tar::new()
            .symlink(".", "/etc")
            .file("sbin/init", 0o755, b"#!/bin/sh\n")
            .end(),
    )?;
    house.refused(&format!("image import {link} --name link"), "link")?;
    let fine = write("fine.tar", &Tar::system().end())?;
    house.refused(&format!("image import {fine} --name ../up"), "../up")?;
    house.refused(
        &format!("image import {fine} --name fine --stop-signal NOPE"),
        "--stop-signal",
    )?;
    house.refused(
        &format!("image import {fine} --name fine --init /bin/nothing"),
        "/bin/nothing",
    )?;
    house.refused("image import /nothing.tar --name fine", "/nothing.tar")?;
    house.refused("image build nothing", "nothing")?;
    let recipe = dir.join("recipe");
    std::fs::create_dir(&recipe)?;
    for (text, needle) in [
        ("", "recipe.json"),
        ("{\"name\": 5}", "recipe.json"),
        (
            "{\"name\": \"x\", \"base\": \"busybox\", \"surprise\": 1}",
            "surprise",
        ),
    ] {
        std::fs::write(recipe.join("recipe.json"), text)?;
        house.refused(&format!("image build {}", recipe.display()), needle)?;
    }
    ensure!(house.ok("image list --json")?.matches("\"name\"").count() == 1);
    house.nothing_left()?;
    house.leave()
}
