//! Networks as objects: made, joined and left, with addresses of both families, and what is refused.

use std::process::Command;

use anyhow::{Result, ensure};

use super::house::{House, eventually};

tests![
    networks_are_made_joined_and_left,
    both_families_are_set_up_inside in guest: 120,
    the_first_interface_goes_and_comes_back,
    what_cannot_be_is_refused_and_leaves_nothing,
    reserved_addresses_are_for_those_who_ask,
    a_later_route_that_collides_is_told,
    many_are_started_stopped_and_deleted_at_once,
];

fn reaches(house: &House, name: &str, address: &str) -> Result<()> {
    eventually(&format!("{name} reaches {address}"), || {
        glimpses(house, name, address)
    })
}

fn glimpses(house: &House, name: &str, address: &str) -> Result<bool> {
    let script = format!("ping -c 1 -W 1 {address}");
    Ok(house.try_sh(name, &script)?.status.success())
}

/// What `show` says of an interface.
fn address(house: &House, name: &str, number: usize, family: &str) -> Result<String> {
    let shown = house.show(name)?;
    let text = shown["addresses"][number][family].as_str();
    Ok(text.unwrap_or_default().to_owned())
}

fn networks_are_made_joined_and_left() -> Result<()> {
    let house = House::new()?;
    house.ok("network create inner --kind isolated --subnet 10.50.0.0/24")?;
    let networks: serde_json::Value = serde_json::from_str(&house.ok("network list --json")?)?;
    ensure!(
        networks[0]["name"] == "condo0" && networks[0]["kind"] == "nat",
        "{networks}"
    );
    ensure!(
        networks[1]["name"] == "inner" && networks[1]["kind"] == "isolated",
        "{networks}"
    );
    house.running("a", "--network condo0 --network inner,ip=10.50.0.10")?;
    house.running("b", "--network inner --allow a")?;
    ensure!(address(&house, "a", 1, "ipv4")? == "10.50.0.10");
    let b = address(&house, "b", 0, "ipv4")?;
    ensure!(b.starts_with("10.50.0.") && house.address("b")? == b);
    let shown = house.sh("a", "ip -4 addr show eth1")?;
    ensure!(shown.contains("inet 10.50.0.10/24"), "{shown}");
    reaches(&house, "a", &b)?;
    reaches(&house, "b", "10.50.0.10")?;
    // It has no way out, not even to the host.
    ensure!(
        house
            .sh("b", "ip -4 route")?
            .lines()
            .all(|line| !line.contains("default"))
    );
    ensure!(!glimpses(&house, "b", "10.50.0.1")?);
    house.refused("network delete inner", "on the network")?;
    // Live, with its friends, and with its old name after a restart.
    house.running("c", "--allow b")?;
    let taken = "create d --image busybox --network inner,ip=10.50.0.10";
    house.refused(taken, "`a` has it; ask for another")?;
    house.ok("network attach inner,ip=10.50.0.30 c")?;
    reaches(&house, "c", &b)?;
    house.refused("network attach inner c", "already")?;
    house.ok("restart c --timeout 20")?;
    reaches(&house, "c", &b)?;
    house.ok("network detach inner c")?;
    ensure!(!house.try_sh("c", "ip link show eth1")?.status.success());
    ensure!(
        house.show("c")?["addresses"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    );
    house.refused("network detach inner c", "not on the network")?;
    house.refused("network detach condo0 c", "only interface")?;
    // Stopped as well.
    house.ok("stop c --timeout 20")?;
    house.ok("network attach inner c")?;
    house.ok("network detach condo0 c")?;
    house.ok("start c")?;
    ensure!(house.address("c")?.starts_with("10.50.0."));
    ensure!(house.sh("c", "ls /sys/class/net")?.contains("eth1"));
    house.ok("delete --force --all")?;
    house.ok("network delete inner")?;
    house.refused("network show inner", "inner")?;
    house.leave()
}

fn both_families_are_set_up_inside() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    house.running("b", "--allow a")?;
    let (a, b) = (address(&house, "a", 0, "ipv6")?, address(&house, "b", 0, "ipv6")?);
    ensure!(a.starts_with("fd") && b.starts_with("fd") && a != b, "{a} {b}");
    for round in 0..2 {
        let shown = house.sh("a", "ip -6 addr show eth0; ip -6 route")?;
        ensure!(shown.contains(&format!("inet6 {a}/")), "{shown}");
        ensure!(shown.contains("default via fe80::1"), "{shown}");
        let gateway = format!(
            "{}::1",
            a.split(':')
                .take(4)
                .collect::<Vec<_>>()
                .join(":")
                .trim_end_matches(":0")
        );
        reaches(&house, "a", &b)?;
        reaches(&house, "b", &a)?;
        reaches(&house, "a", &gateway)?;
        if round == 0 {
            house.ok("restart a --timeout 20")?;
        }
    }
    house.leave()
}

/// Published ports lead to an interface that there is, and the rates are of all, whichever these are.
fn the_first_interface_goes_and_comes_back() -> Result<()> {
    let house = House::quick()?;
    needs!(nft, ip);
    let run = |line: &str| crate::harness::run(Command::new("sh").args(["-c", line]));
    house.ok("network create lan --subnet 10.50.0.0/24")?;
    house.ok("create web --image quick --network condo0 --network lan,ip=10.50.0.7 --rate 10mbit -p 8080:80 --start")?;
    let doors = || run("nft list ruleset | grep -A9 'map doors_any '");
    let first = house.address("web")?;
    ensure!(doors()?.contains(&first), "{}", doors()?);
    house.ok("network detach condo0 web")?;
    ensure!(doors()?.contains("10.50.0.7"), "{}", doors()?);
    ensure!(
        run("ip -o link")?.contains('='),
        "the rate went with the interface"
    );
    house.ok("network attach condo0 web")?;
    house.ok("network detach condo0 web")?;
    house.ok("delete --force web")?;
    let left = run("ip -o link")?;
    ensure!(!left.contains('='), "{left}");
    house.ok("network delete lan")?;
    house.leave()
}

fn what_cannot_be_is_refused_and_leaves_nothing() -> Result<()> {
    let house = House::new()?;
    house.ok("network list")?;
    for (line, needle) in [
        ("network create Lan", "NETWORK"),
        ("network create lan --kind vlan", "--kind"),
        ("network create lan --subnet 10.50.0.7/24", "--subnet"),
        ("network create lan --subnet 10.50.0.0/31", "--subnet"),
        ("network create lan --subnet6 fd00::/48", "--subnet6"),
        ("network create lan --mtu 100", "--mtu"),
        ("network create lan --kind routed", "--subnet"),
        (
            "network create lan --kind bridged --subnet 10.50.0.0/24",
            "--bridge",
        ),
        (
            "network create lan --kind bridged --subnet 10.50.0.0/24 --bridge nobr",
            "nobr",
        ),
        ("network create lan --bridge lo", "--bridge"),
        ("network create condo0", "condo0"),
        ("network delete nothing", "nothing"),
        ("network set condo0", "required"),
        ("create web --image busybox --network nothing", "nothing"),
        (
            "create web --image busybox --network condo0 --network condo0",
            "twice",
        ),
        (
            "create web --image busybox --network condo0,ip=9.9.9.9",
            "9.9.9.9",
        ),
        (
            "create web --image busybox --network condo0,ip6=fe80::5",
            "fe80::5",
        ),
        (
            "create web --image busybox --network condo0,mac=01:00:00:00:00:01",
            "mac",
        ),
    ] {
        house.refused(line, needle)?;
    }
    ensure!(house.list()?.is_empty());
    let networks: serde_json::Value = serde_json::from_str(&house.ok("network list --json")?)?;
    ensure!(
        networks.as_array().is_some_and(|all| all.len() == 1),
        "{networks}"
    );
    let subnet = networks[0]["subnet"].as_str().unwrap_or_default();
    house.refused(&format!("network create lan --subnet {subnet}"), "overlaps")?;
    house.leave()
}

fn reserved_addresses_are_for_those_who_ask() -> Result<()> {
    let house = House::new()?;
    house.ok("network create small --subnet 10.60.0.0/29")?;
    house.ok("network reserve small 10.60.0.2-10.60.0.4")?;
    for (name, last) in [("a", 5), ("b", 6)] {
        house.ok(&format!("create {name} --image busybox --network small"))?;
        ensure!(house.address(name)? == format!("10.60.0.{last}"));
    }
    house.refused("create c --image busybox --network small", "taken or reserved")?;
    house.ok("create c --image busybox --network small,ip=10.60.0.3")?;
    house.ok("network release small 10.60.0.2-10.60.0.4")?;
    house.refused("network release small 10.60.0.2", "10.60.0.2")?;
    house.refused("network reserve small 10.61.0.2", "not in the network")?;
    house.ok("create d --image busybox --network small")?;
    house.ok("delete --all")?;
    house.ok("network delete small")?;
    house.leave()
}

fn a_later_route_that_collides_is_told() -> Result<()> {
    let house = House::quick()?;
    needs!(ip);
    house.ok("create a --image quick --start")?;
    let ip = |line: &str| crate::harness::run(Command::new("ip").args(line.split(' '))).map(drop);
    let said = |line: &str| -> Result<String> {
        let output = house.output(line)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    ensure!(said("restart a --timeout 20")?.is_empty());
    let address = house.address("a")?;
    ip(&format!("route add blackhole {address}/30"))
        .or_else(|_| ip(&format!("route add blackhole {address}/32")))?;
    let told = said("restart a --timeout 20")?;
    ensure!(told.contains("overlaps the network `condo0`"), "{told}");
    house.ok("delete --force a")?;
    house.leave()
}

fn many_are_started_stopped_and_deleted_at_once() -> Result<()> {
    let house = House::quick()?;
    for n in 0..6 {
        house.ok(&format!("create v{n} --image quick"))?;
    }
    house.ok("start --all")?;
    ensure!(house.list()?.iter().all(|vps| vps["status"] == "running"));
    // One that fails does not keep the others from it.
    house.ok("stop v3 --timeout 20")?;
    let output = house.output("delete --all")?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let left: Vec<_> = house.list()?.iter().map(|vps| vps["name"].to_string()).collect();
    ensure!(
        left.len() == 5 && !left.contains(&"\"v3\"".to_owned()),
        "{left:?}"
    );
    house.ok("stop --all --timeout 20")?;
    house.ok("start v0 v1")?;
    house.ok("delete --force --all")?;
    house.leave()
}
