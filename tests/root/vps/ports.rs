//! Published ports, firewalls, bandwidth and traffic of VPSs, as `condo` keeps them.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually};
use crate::harness;

tests![
    ports_are_kept in guest: 120,
    a_taken_port_is_refused,
    a_lost_database_keeps_ports_and_rules,
    a_firewall_is_kept in guest: 120,
    bandwidth_is_kept,
    traffic_is_counted_across_restarts in guest: 120,
    friends_know_each_other_by_name in guest: 120,
];

/// The host's own address that is published at.
const HOST: &str = "127.0.0.1";

/// A word that a VPS serves at a port, until the VPS or the test ends.
struct Server(std::process::Child);

impl Server {
    fn new(house: &House, name: &str, port: u16) -> Result<Self> {
        let script = format!("while :; do echo from-{name} | nc -l -p {port}; done");
        house.sh_spawn(name, &script).map(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is said at a port of the host, if anything.
fn said(port: u16) -> Option<String> {
    let script = format!("busybox timeout 2 busybox nc {HOST} {port} < /dev/null");
    let output = Command::new("/bin/busybox")
        .args(["sh", "-c", &script])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|said| !said.is_empty())
}

fn leads_to(port: u16, name: &str) -> Result<()> {
    eventually(&format!("port {port} leads to {name}"), || {
        Ok(said(port).is_some_and(|said| said == format!("from-{name}")))
    })
}

fn leads_nowhere(port: u16) -> Result<()> {
    let said = said(port);
    ensure!(said.is_none(), "port {port} says {said:?}");
    Ok(())
}

fn published(house: &House, name: &str) -> Result<Vec<String>> {
    let shown = house.show(name)?["published"].clone();
    Ok(serde_json::from_value(shown)?)
}

fn ports_are_kept() -> Result<()> {
    let house = House::new()?;
    house.running("web", "-p 8080:80")?;
    let _server = Server::new(&house, "web", 80)?;
    leads_to(8080, "web")?;
    house.ok("publish web 127.0.0.1:8081:80 53:53/udp")?;
    leads_to(8081, "web")?;
    ensure!(
        published(&house, "web")?
            == ["127.0.0.1:8081:80/tcp", "8080:80/tcp", "53:53/udp"]
                .map(String::from)
                .to_vec()
            || published(&house, "web")?.len() == 3,
        "{:?}",
        published(&house, "web")?
    );
    // Again is no change.
    house.ok("publish web 8080:80")?;
    house.ok("restart web --timeout 20")?;
    house.up("web")?;
    let _server = Server::new(&house, "web", 80)?;
    leads_to(8080, "web")?;
    // Whatever somebody flushes is there again with the next command.
    if harness::has("program:nft") {
        harness::run(Command::new("nft").args(["flush", "ruleset"]))?;
        leads_nowhere(8080)?;
        house.ok("list")?;
        leads_to(8080, "web")?;
    }
    house.ok("unpublish web 8080")?;
    leads_nowhere(8080)?;
    leads_to(8081, "web")?;
    house.refused("unpublish web 8080:80", "is not published; `condo show web`")?;
    house.ok("unpublish web --all")?;
    leads_nowhere(8081)?;
    ensure!(published(&house, "web")?.is_empty());
    house.leave()
}

fn a_taken_port_is_refused() -> Result<()> {
    let house = House::quick()?;
    house.ok("create a --image quick -p 8080:80 --start")?;
    house.refused(
        "create b --image quick -p 8080:81",
        "--publish: `8080/tcp` is published by `a` already",
    )?;
    house.ok("create b --image quick")?;
    house.refused("publish b 127.0.0.1:8080:80", "`a` already")?;
    house.refused("publish b 8000-8100:8000-8100", "`a` already")?;
    house.refused("publish a 8080:81", "by this VPS already")?;
    // TCP's is not UDP's.
    house.ok("publish b 8080:80/udp")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9090))?;
    for port in ["9090:80", "127.0.0.1:9090:80", "9000-9100:9000-9100"] {
        house.refused(
            &format!("publish b {port}"),
            "is taken: a program of this host uses port 9090",
        )?;
    }
    house.refused(
        "publish b 192.0.2.1:80:80",
        "an address that this host does not have",
    )?;
    house.refused("publish b 80", "is not of the form [HOSTADDR:]HOSTPORT:PORT")?;
    drop(listener);
    house.ok("publish b 9090:80")?;
    // Taken while the VPS is stopped: it says so, and what to do.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9090))?;
    house.refused("start b", "condo unpublish b")?;
    drop(listener);
    house.ok("start b")?;
    // Several at once: one has the port.
    let racers: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| house.spawn(&format!("publish {name} 7070:70")))
        .collect::<Result<_>>()?;
    let won = racers
        .into_iter()
        .map(|racer| Ok(super::house::finish(racer)?.status.success()))
        .collect::<Result<Vec<bool>>>()?;
    ensure!(won.iter().filter(|won| **won).count() == 1, "{won:?}");
    house.ok("delete --force a")?;
    house.ok("publish b 8080:80")?;
    house.leave()
}

fn a_lost_database_keeps_ports_and_rules() -> Result<()> {
    let house = House::quick()?;
    house.ok("create a --image quick -p 8080:80")?;
    house.ok("firewall a deny in tcp 81")?;
    std::fs::remove_file(house.root.join("lib/condo.db"))?;
    ensure!(published(&house, "a")? == ["8080:80/tcp"]);
    ensure!(house.ok("firewall a list")?.contains("deny"));
    house.ok("create b --image quick")?;
    house.refused("publish b 8080:80", "`a` already")?;
    house.leave()
}

fn a_firewall_is_kept() -> Result<()> {
    let house = House::new()?;
    house.running("web", "-p 8080:80")?;
    let _server = Server::new(&house, "web", 80)?;
    leads_to(8080, "web")?;
    house.ok("firewall web policy in deny")?;
    leads_nowhere(8080)?;
    house.ok("firewall web allow in tcp 443")?;
    house.ok("firewall web allow in tcp 80 --from 0.0.0.0/0 --at 1")?;
    leads_to(8080, "web")?;
    let list: serde_json::Value = serde_json::from_str(&house.ok("firewall web list --json")?)?;
    ensure!(
        list == serde_json::json!({
            "policy": {"in": "deny", "out": "allow"},
            "rules": [
                {"number": 1, "action": "allow", "direction": "in", "protocol": "tcp", "ports": "80", "from": "0.0.0.0/0"},
                {"number": 2, "action": "allow", "direction": "in", "protocol": "tcp", "ports": "443"},
            ]
        }),
        "{list}"
    );
    house.ok("restart web --timeout 20")?;
    house.up("web")?;
    let _server = Server::new(&house, "web", 80)?;
    leads_to(8080, "web")?;
    house.ok("firewall web remove 1")?;
    leads_nowhere(8080)?;
    if harness::has("program:nft") {
        harness::run(Command::new("nft").args(["flush", "ruleset"]))?;
        house.ok("list")?;
        leads_nowhere(8080)?;
        // By its port, and only this.
        house.ok("firewall web reset")?;
        leads_to(8080, "web")?;
        let table = harness::run(Command::new("nft").args(["list", "ruleset"]))?;
        ensure!(!table.contains("chain in-"), "{table}");
    }
    for (words, needle) in [
        ("allow in icmp 80", "PORT: `80` icmp has no ports"),
        ("allow up tcp 80", "DIRECTION: `up` is none of: in out"),
        ("allow in sctp", "PROTOCOL: `sctp` is none of"),
        ("allow in tcp 0", "PORT: `0` is not a port"),
        ("allow in tcp 80 --from 10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("allow in tcp 80 --from 10.0.0.0/8 --to ::1", "address family"),
        ("remove 7", "NUMBER: `7` is no rule's number"),
        ("policy in reject", "POLICY: `reject` is none of: allow deny"),
    ] {
        house.refused(&format!("firewall web {words}"), needle)?;
    }
    house.leave()
}

/// What `tc` says of the VPSs' interfaces, without the rest.
fn buckets() -> Result<Vec<String>> {
    let all = harness::run(Command::new("tc").args(["qdisc", "show"]))?;
    Ok(all
        .lines()
        .filter(|l| l.contains(" tbf "))
        .map(Into::into)
        .collect())
}

/// That the rates hold is shown in `net::shape`.
fn bandwidth_is_kept() -> Result<()> {
    let house = House::quick()?;
    needs!(program:tc);
    house.ok("create web --image quick --rate-in 20mbit --rate-out 10mbit --start")?;
    ensure!(buckets()?.len() == 2, "{:?}", buckets()?);
    house.ok("resize web --rate 5mbit")?;
    let at_five = |buckets: Vec<String>| buckets.iter().filter(|l| l.contains("rate 50")).count();
    ensure!(at_five(buckets()?) == 2, "{:?}", buckets()?);
    let limits = house.show("web")?["limits"].clone();
    ensure!(
        limits["rate_in"] == 5_000_000 && limits["rate_out"] == 5_000_000,
        "{limits}"
    );
    house.ok("restart web --timeout 20")?;
    ensure!(at_five(buckets()?) == 2, "{:?}", buckets()?);
    house.ok("resize web --no-limit rate-out")?;
    ensure!(buckets()?.len() == 1, "{:?}", buckets()?);
    for (options, needle) in [
        ("--rate-in 10", "--rate-in: `10bit` is below"),
        ("--rate-out 10mb", "--rate-out: `10mb` is not a rate"),
        ("--no-limit rate-in --burst 9000", "--burst: `9000` needs a rate"),
        ("--burst 100", "--burst: `100` is less than a packet"),
    ] {
        house.refused(&format!("resize web {options}"), needle)?;
    }
    house.ok("stop web --timeout 20")?;
    ensure!(buckets()?.is_empty(), "{:?}", buckets()?);
    house.leave()
}

/// Bytes that a VPS has received and sent, all in all and in all months.
fn traffic(house: &House, name: &str) -> Result<(u64, u64)> {
    let traffic = house.show(name)?["traffic"].clone();
    let number = |value: &serde_json::Value| value.as_u64().context("no number");
    let (received, sent) = (
        number(&traffic["in"]["bytes"])?,
        number(&traffic["out"]["bytes"])?,
    );
    let months = traffic["months"].as_object().context("no months")?;
    let mut sum = 0;
    for month in months.values() {
        sum += number(&month["in"]["bytes"])?;
    }
    ensure!(sum == received, "{traffic}");
    ensure!(number(&traffic["in"]["packets"])? * 42 <= received, "{traffic}");
    Ok((received, sent))
}

/// As many packets of a thousand bytes and their headers to the gateway and back.
fn ping(house: &House, times: u64) -> Result<()> {
    let gateway = house.sh("web", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'")?;
    let line = format!("ping -c {times} -i 0.1 -s 1000 {gateway} > /dev/null");
    house.sh("web", &line).map(drop)
}

fn traffic_is_counted_across_restarts() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let ping = |times: u64| ping(&house, times);
    ping(10)?;
    // Ten of a thousand bytes with their headers, both ways, and little else.
    let expected = 10 * (1000 + 42);
    let (received, sent) = traffic(&house, "web")?;
    ensure!(
        (expected..expected + 2000).contains(&received),
        "{received} received"
    );
    ensure!((expected..expected + 2000).contains(&sent), "{sent} sent");
    ping(10)?;
    // Nobody asks before it ends by itself, and begins anew.
    house.sh_last("web", "reboot")?;
    eventually("it comes up again", || {
        Ok(house.ok("logs web")?.matches("Press Enter").count() >= 2)
    })?;
    let (received, sent) = traffic(&house, "web")?;
    ensure!(
        received >= 2 * expected && sent >= 2 * expected,
        "{received}, {sent} after a reboot"
    );
    ping(10)?;
    house.ok("stop web --timeout 20")?;
    let (received, sent) = traffic(&house, "web")?;
    ensure!(
        received >= 3 * expected && sent >= 3 * expected,
        "{received}, {sent} after a stop"
    );
    // A database that is lost takes none of it along, neither what was before nor what is counted while it runs.
    house.ok("start web")?;
    house.up("web")?;
    ping(10)?;
    traffic(&house, "web")?;
    ping(10)?;
    std::fs::remove_file(house.root.join("lib/condo.db"))?;
    let (received, sent) = traffic(&house, "web")?;
    ensure!(
        (5 * expected..6 * expected).contains(&received) && (5 * expected..6 * expected).contains(&sent),
        "{received}, {sent} with a new database"
    );
    house.ok("stop web --timeout 20")?;
    // What a limit changes: who counts.
    house.ok("start web")?;
    house.up("web")?;
    house.ok("resize web --rate 10mbit")?;
    ping(10)?;
    house.ok("resize web --no-limit rate-in,rate-out")?;
    let (received, sent) = traffic(&house, "web")?;
    ensure!(
        (6 * expected..7 * expected).contains(&received),
        "{received} received after a limit"
    );
    ensure!(
        (6 * expected..7 * expected).contains(&sent),
        "{sent} sent after a limit"
    );
    house.leave()
}

/// What a VPS finds of a name.
fn finds(house: &House, name: &str, peer: &str) -> Result<Option<String>> {
    let hosts = house.sh(name, "cat /etc/hosts")?;
    let line = hosts
        .lines()
        .find(|line| line.ends_with(&format!("\t{peer}.condo")));
    Ok(line.and_then(|line| line.split('\t').next()).map(Into::into))
}

fn friends_know_each_other_by_name() -> Result<()> {
    let house = House::new()?;
    house.running("db", "")?;
    house.sh("db", "echo '10.9.9.9\tprinter' >> /etc/hosts")?;
    house.running("web", "--allow db")?;
    house.running("other", "")?;
    let (web, db) = (Some(house.address("web")?), Some(house.address("db")?));
    // The one that comes, and the one that was there and has not started anew.
    ensure!(finds(&house, "web", "db")? == db && finds(&house, "db", "web")? == web);
    house.sh("web", "ping -c 1 -W 5 db.condo")?;
    ensure!(finds(&house, "other", "db")?.is_none() && finds(&house, "db", "other")?.is_none());
    // What its tenant wrote stays.
    ensure!(house.sh("db", "cat /etc/hosts")?.contains("printer"));
    // Files that are not what they should be hold nothing up, and lead nowhere else.
    let target = harness::tempdir().join("target");
    std::fs::write(&target, "untouched")?;
    house.sh("db", &format!("ln -sf {} /etc/hosts", target.display()))?;
    house.ok("create late --image busybox --allow db")?;
    ensure!(std::fs::read_to_string(&target)? == "untouched");
    house.sh("db", "rm /etc/hosts; mkfifo /etc/hosts")?;
    house.ok("delete late")?;
    house.sh("db", "rm /etc/hosts; mount -t tmpfs none /etc")?;
    house.ok("create late --image busybox --allow db")?;
    ensure!(
        house.sh("db", "ls /etc")?.is_empty(),
        "written into what the tenant mounted"
    );
    house.sh("db", "umount /etc")?;
    house.ok("delete late")?;
    ensure!(finds(&house, "db", "web")? == web);
    // And when one goes.
    house.ok("delete --force web")?;
    ensure!(finds(&house, "db", "web")?.is_none());
    ensure!(!house.sh("db", "cat /etc/hosts")?.contains("condo"));
    house.leave()
}
