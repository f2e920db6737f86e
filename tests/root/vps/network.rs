//! Each VPS's address, its neighbours, and the way outside.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually, finish};
use crate::harness;
use crate::net::outside;

tests![
    address_route_and_names,
    strangers_and_friends in guest: 120,
    the_way_outside,
    addresses_are_never_shared,
    foreign_rules_stay,
    what_somebody_takes_away_comes_back in guest: 120,
    an_address_survives_dhcp_and_reboots,
    a_freed_address_rests,
];

/// Whether `name` hears an answer from `address`, trying for as long as it takes.
fn reaches(house: &House, name: &str, address: &str) -> Result<()> {
    eventually(&format!("{name} reaches {address}"), || {
        Ok(house
            .try_sh(name, &format!("ping -c 1 -W 1 {address}"))?
            .status
            .success())
    })
}

fn glimpses(house: &House, name: &str, address: &str) -> Result<bool> {
    Ok(house
        .try_sh(name, &format!("ping -c 1 -W 1 {address}"))?
        .status
        .success())
}

fn gateway(house: &House, name: &str) -> Result<String> {
    let routes = house.sh(name, "ip route")?;
    let default = routes.lines().find_map(|l| l.strip_prefix("default via "));
    Ok(default
        .and_then(|l| l.split(' ').next())
        .unwrap_or_default()
        .to_owned())
}

fn address_route_and_names() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--hostname shop.example")?;
    let address = house.address("web")?;
    let shown = house.sh("web", "ip -4 addr show eth0")?;
    ensure!(shown.contains(&format!("inet {address}/")), "{shown}");
    reaches(&house, "web", &gateway(&house, "web")?)?;
    reaches(&house, "web", "127.0.0.1")?;
    ensure!(house.sh("web", "hostname; cat /etc/hostname")? == "shop.example\nshop.example");
    let hosts = house.sh("web", "cat /etc/hosts")?;
    ensure!(
        hosts.contains(&format!("{address}\tshop.example shop")),
        "{hosts}"
    );
    let servers: Vec<String> = condo::net::resolvers()
        .iter()
        .map(|a| format!("nameserver {a}"))
        .collect();
    let told = house.sh("web", "cat /etc/resolv.conf")?;
    ensure!(
        told.lines().eq(servers.iter().map(String::as_str)) && !servers.is_empty(),
        "{told}"
    );
    house.leave()
}

fn strangers_and_friends() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    house.running("b", "")?;
    let (a, b) = (house.address("a")?, house.address("b")?);
    ensure!(a != b);
    // Both are up: the gateway answers them.
    reaches(&house, "a", &gateway(&house, "a")?)?;
    reaches(&house, "b", &gateway(&house, "b")?)?;
    ensure!(
        !glimpses(&house, "a", &b)? && !glimpses(&house, "b", &a)?,
        "strangers talk"
    );
    house.running("c", "--allow a")?;
    let c = house.address("c")?;
    reaches(&house, "c", &a)?;
    reaches(&house, "a", &c)?;
    ensure!(
        !glimpses(&house, "c", &b)?,
        "a friend of one is not a friend of all"
    );
    ensure!(house.show("c")?["allowed"] == serde_json::json!(["a"]));
    // Whoever starts later finds its friends again.
    house.ok("restart a --timeout 20")?;
    reaches(&house, "a", &c)?;
    // Who gets the address of a friend who left is a stranger.
    house.ok("delete --force a")?;
    house.running("d", &format!("--ip {a}"))?;
    reaches(&house, "d", &gateway(&house, "d")?)?;
    ensure!(
        !glimpses(&house, "c", &a)?,
        "an heir of the address is taken for the friend"
    );
    house.leave()
}

fn the_way_outside() -> Result<()> {
    let house = House::new()?;
    let (_room, world, _uplink) = outside()?;
    house.running("web", "")?;
    reaches(&house, "web", &world.gateway().to_string())?;
    house.leave()
}

fn addresses_are_never_shared() -> Result<()> {
    let house = House::new()?;
    let creates = (0..10).map(|n| house.spawn(&format!("create vps-{n} --image busybox")));
    for create in creates.collect::<Result<Vec<_>>>()? {
        let output = finish(create)?;
        ensure!(output.status.success(), "{output:?}");
    }
    let all = house.list()?;
    let addresses: BTreeSet<String> = all.iter().map(|vps| vps["address"].to_string()).collect();
    ensure!(all.len() == 10 && addresses.len() == 10, "{addresses:?}");
    let taken = house.address("vps-3")?;
    house.refused(&format!("create late --image busybox --ip {taken}"), &taken)?;
    house.ok("delete vps-3")?;
    house.ok(&format!("create late --image busybox --ip {taken}"))?;
    ensure!(house.address("late")? == taken);
    house.leave()
}

fn foreign_rules_stay() -> Result<()> {
    let house = House::quick()?;
    needs!(program:nft);
    let rules = "table inet foreign { chain forward { type filter hook forward priority 5; policy accept; ip saddr 192.0.2.1 drop; }; }";
    harness::run(Command::new("nft").arg(rules))?;
    let foreign = || harness::run(Command::new("nft").args(["list", "table", "inet", "foreign"]));
    let before = foreign()?;
    house.ok("create a --image quick --start")?;
    house.ok("create b --image quick --start --allow a")?;
    house.ok("stop --all --timeout 20")?;
    house.ok("delete --all")?;
    ensure!(foreign()? == before);
    let tables = harness::run(Command::new("nft").args(["list", "tables"]))?;
    ensure!(tables.trim() == "table inet foreign", "{tables}");
    house.leave()
}

fn what_somebody_takes_away_comes_back() -> Result<()> {
    let house = House::new()?;
    needs!(nft, ip);
    house.running("a", "")?;
    house.running("b", "--allow a")?;
    house.running("c", "")?;
    let gateway = gateway(&house, "a")?;
    let (b, c) = (house.address("b")?, house.address("c")?);
    reaches(&house, "a", &b)?;
    let bridge = harness::run(Command::new("ip").args(["-br", "link", "show", "type", "bridge"]))?;
    let bridge = bridge.split_whitespace().next().unwrap_or_default().to_owned();
    let flush = vec!["nft", "flush", "ruleset"];
    let wrecks = [
        flush.clone(),
        vec!["ip", "link", "delete", &bridge],
        vec!["ip", "link", "set", &bridge, "down"],
    ];
    for wreck in wrecks {
        harness::run(Command::new(wreck[0]).args(&wreck[1..])).with_context(|| format!("{wreck:?}"))?;
        // Any command, also one that has nothing to do with it.
        house.ok("list")?;
        for name in ["a", "b", "c"] {
            reaches(&house, name, &gateway).with_context(|| format!("after {wreck:?}"))?;
        }
        reaches(&house, "a", &b)?;
        reaches(&house, "b", &house.address("a")?)?;
        ensure!(!glimpses(&house, "a", &c)?, "strangers talk after {wreck:?}");
    }
    // The next start is such a command, and whoever has stopped meanwhile is not restored.
    house.ok("stop b --timeout 20")?;
    harness::run(Command::new(flush[0]).args(&flush[1..]))?;
    house.running("d", "--allow a")?;
    reaches(&house, "a", &house.address("d")?)?;
    let rules = harness::run(Command::new("nft").args(["list", "ruleset"]))?;
    ensure!(!rules.contains(&b), "{b} is let through: {rules}");
    house.leave()
}

fn an_address_survives_dhcp_and_reboots() -> Result<()> {
    let mut house = House::new()?;
    // As ifupdown does it with `inet dhcp`: what is there is dropped, and asked for.
    house.import(
        "dhcp",
        r#"busybox ip addr flush dev eth0
        cat > /tmp/script <<"END"
#!/bin/sh
[ "$1" = bound ] || exit 0
busybox ip addr add $ip/$mask dev $interface
busybox ip route replace default via $router
END
        busybox chmod +x /tmp/script
        busybox udhcpc -i eth0 -q -n -f -s /tmp/script || exit 1
        echo up
        trap 'exit 0' TERM
        trap 'busybox reboot -f' USR1
        while :; do busybox sleep 60 & wait $!; done"#
            .replace("cat >", "busybox cat >")
            .as_str(),
    )?;
    house.ok("create web --image dhcp --start")?;
    let address = house.address("web")?;
    let up = |times: usize| {
        eventually("it has its address", || {
            Ok(house.ok("logs web")?.matches("up").count() >= times)
        })
    };
    for boot in 1..=2 {
        up(boot)?;
        let shown = house.sh("web", "busybox ip -4 addr show eth0; busybox ip route")?;
        ensure!(shown.contains(&format!("inet {address}/")), "{shown}");
        ensure!(shown.contains("default via"), "{shown}");
        let gateway = shown
            .split("default via ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default();
        house.sh("web", &format!("busybox ping -c 1 -W 5 {gateway}"))?;
        if boot == 1 {
            house.ok("kill web --signal USR1")?;
        }
    }
    house.leave()
}

fn a_freed_address_rests() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    let first = house.address("a")?;
    reaches(&house, "a", &gateway(&house, "a")?)?;
    let known = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    ensure!(known()?.trim() != "0", "the kernel knows of the ping");
    house.ok("delete --force a")?;
    ensure!(
        known()?.trim() == "0",
        "the kernel has not forgotten: {}",
        known()?
    );
    for n in 0..3 {
        house.ok(&format!("create b{n} --image busybox"))?;
        ensure!(
            house.address(&format!("b{n}"))? != first,
            "{first} is handed out again"
        );
    }
    house.ok(&format!("create wanted --image busybox --ip {first}"))?;
    ensure!(
        house.address("wanted")? == first,
        "but whoever asks for it gets it"
    );
    house.leave()
}
