//! SIGKILL in the middle of commands about networks, ports and firewalls: the same command again completes or undoes, and what is
//! taken back leaves nothing in the kernel.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::house::House;
use crate::harness;
use crate::harness::trace::{self, Victim};

tests![
    a_killed_network_command_is_finished_or_undone: 240,
    a_killed_port_command_is_finished_or_undone: 240,
    a_killed_start_or_deletion_is_finished_or_undone: 240,
];

/// After how many of its system calls, spread over all, each command is killed.
const PARTS: usize = 10;

/// The tracer keeps the program's arguments, not its environment.
fn command(house: &House, line: &str) -> Command {
    let mut command = Command::new(harness::condo());
    command
        .arg("--root")
        .arg(&house.root)
        .args(line.split_whitespace());
    command
}

/// What the kernel has: interfaces, rules, and elements but for those that packets enter.
fn kernel() -> Result<BTreeSet<String>> {
    let mut found: BTreeSet<String> = nix::ifaddrs::getifaddrs()?
        .map(|interface| format!("interface {}", interface.interface_name))
        .collect();
    let rules = harness::run(Command::new("nft").args(["--stateless", "list", "ruleset"]))?;
    let (mut place, mut by_packets) = (String::new(), false);
    for line in rules.lines() {
        let depth = line.chars().take_while(|c| *c == '\t').count();
        if depth < 2 {
            place = line.trim().to_owned();
            by_packets = ["connections", "hops", "seekers"]
                .iter()
                .any(|set| place.contains(set));
        }
        if !by_packets {
            found.insert(format!("{place} {}", line.trim()));
        }
    }
    Ok(found)
}

fn is_as(before: &BTreeSet<String>, when: &str) -> Result<()> {
    let now = kernel()?;
    let (new, gone): (Vec<_>, Vec<_>) = (
        now.difference(before).collect(),
        before.difference(&now).collect(),
    );
    ensure!(
        new.is_empty() && gone.is_empty(),
        "{when}: new {new:?}, gone {gone:?}"
    );
    Ok(())
}

/// Kills a command at points all over it. Each time it is run again, which has to end well or to say that it was done before; then
/// all is as after one that nobody killed, and after `undo` as before it.
fn kill_all_over(house: &House, line: &str, done: &str, undo: &[&str]) -> Result<()> {
    let back = || undo.iter().try_for_each(|line| house.ok(line).map(drop));
    let before = kernel()?;
    // Not its children: a VPS that it starts is nobody's to trace.
    let all = trace::kill_after(&command(house, line), Victim::Program, usize::MAX)?;
    ensure!(all.success, "`{line}` fails");
    let after = kernel()?;
    back()?;
    is_as(&before, &format!("`{line}` and back"))?;
    for part in 1..PARTS {
        let n = all.calls * part / PARTS;
        trace::kill_after(&command(house, line), Victim::Program, n)?;
        let again = house.output(line)?;
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        let when = || format!("`{line}`, killed after {n} of {} calls", all.calls);
        ensure!(
            again.status.success() || (!done.is_empty() && said.contains(done)),
            "{}: {said}",
            when()
        );
        is_as(&after, &when())?;
        back().with_context(when)?;
        is_as(&before, &format!("{} and taken back", when()))?;
    }
    Ok(())
}

fn a_killed_network_command_is_finished_or_undone() -> Result<()> {
    let house = House::quick()?;
    needs!(program:nft);
    house.ok("create web --image quick -p 8080:80 -p 9000-9009:9000-9009 --rate 10mbit --start")?;
    house.ok("firewall web deny in tcp 81")?;
    let create = "network create lan --subnet 10.50.0.0/24";
    kill_all_over(&house, create, "already exists", &["network delete lan"])?;
    house.ok(create)?;
    let (attach, detach) = ("network attach lan,ip=10.50.0.7 web", "network detach lan web");
    // The network's link comes with the first on it.
    house.ok(attach)?;
    house.ok(detach)?;
    kill_all_over(&house, attach, "already", &[detach])?;
    house.ok(attach)?;
    ensure!(
        house
            .sh("web", "busybox ip addr show eth1")?
            .contains("10.50.0.7/24")
    );
    kill_all_over(&house, detach, "not on the network", &[attach])?;
    house.ok(detach)?;
    kill_all_over(
        &house,
        "network set lan --mtu 1400",
        "",
        &["network set lan --mtu 1500"],
    )?;
    kill_all_over(
        &house,
        "network delete lan",
        "does not exist",
        &[create, attach, detach],
    )?;
    house.ok("network delete lan")?;
    house.leave()
}

fn a_killed_port_command_is_finished_or_undone() -> Result<()> {
    let house = House::quick()?;
    needs!(program:nft);
    house.ok("create web --image quick -p 8080:80 --start")?;
    let ports = "8081:80 9000-9009:9000-9009 53:53/udp";
    let (publish, unpublish) = (format!("publish web {ports}"), format!("unpublish web {ports}"));
    kill_all_over(&house, &publish, "", &[&unpublish])?;
    house.ok(&publish)?;
    kill_all_over(&house, &unpublish, "is not published", &[&publish])?;
    for change in [
        "firewall web deny in tcp 81 --log",
        "firewall web policy out deny",
    ] {
        kill_all_over(&house, change, "", &["firewall web reset"])?;
    }
    house.ok("firewall web allow out any")?;
    house.ok("firewall web policy in deny")?;
    let back = ["firewall web allow out any", "firewall web policy in deny"];
    kill_all_over(&house, "firewall web reset", "", &back)?;
    house.leave()
}

/// A VPS whose deletion was killed starts as it was, or says that parts of it may be gone.
fn is_whole_or_says_so(house: &House) -> Result<()> {
    let start = house.output("start web")?;
    let said = String::from_utf8_lossy(&start.stderr);
    let remedy = "its deletion was interrupted; finish that: `condo delete web`";
    if said.contains(remedy) {
        house.refused("snapshot create web a", remedy)?;
        return house.refused("rename web www", remedy).map(drop);
    }
    let is_known = start.status.success() || said.contains("already") || said.contains("does not exist");
    ensure!(is_known, "{start:?}");
    Ok(())
}

/// With interfaces on two networks, a published port, a firewall and a rate.
fn a_killed_start_or_deletion_is_finished_or_undone() -> Result<()> {
    let house = House::quick()?;
    needs!(program:nft);
    house.ok("network create lan --subnet 10.50.0.0/24")?;
    // What all share stays.
    house.ok("create other --image quick --network condo0 --network lan --start")?;
    let create = || -> Result<()> {
        house.ok(
            "create web --image quick --network condo0 --network lan,ip=10.50.0.7 -p 8080:80 --rate 10mbit --allow other",
        )?;
        house.ok("firewall web deny in tcp 81").map(drop)
    };
    create()?;
    kill_all_over(&house, "start web", "already", &["stop web --timeout 20"])?;
    house.ok("delete web")?;
    let (without, delete) = (kernel()?, "delete --force web");
    let mut calls = 0;
    for part in 0..PARTS {
        create()?;
        house.ok("start web")?;
        match part {
            0 => calls = trace::kill_after(&command(&house, delete), Victim::Program, usize::MAX)?.calls,
            _ => {
                trace::kill_after(&command(&house, delete), Victim::Program, calls * part / PARTS)?;
                is_whole_or_says_so(&house)?;
                let said = house.output(delete)?;
                let done = String::from_utf8_lossy(&said.stderr).contains("does not exist");
                ensure!(said.status.success() || done, "{said:?}");
            }
        }
        is_as(
            &without,
            &format!("`{delete}`, killed after {part} of {PARTS} parts"),
        )?;
        ensure!(house.list()?.len() == 1);
    }
    house.leave()
}
