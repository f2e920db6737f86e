//! VPSs beside Docker, whose firewall drops what is forwarded and not its own.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use condo::net::Network;
use condo::net::filter::Filter;

use super::docker::{Docker, run_on};
use super::room::Room;
use crate::harness;
use crate::net::doors::{greet, hears, is_closed, provide};
use crate::net::room::{Room as World, Vps, host};
use crate::net::wire;

tests![vpss_get_through_beside_docker: 240];

/// The host outside, and who is there.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Docker's firewall as its own tool lists it.
fn chain(room: &Room, name: &str) -> Result<Vec<String>> {
    let listed = harness::run(room.command("iptables").args(["--wait", "-S", name]))?;
    Ok(listed.lines().map(Into::into).collect())
}

/// What is condo's in the chain that Docker leaves to the operator.
fn ours(room: &Room) -> Result<Vec<String>> {
    let mut rules = chain(room, "DOCKER-USER")?;
    rules.retain(|rule| rule.contains("condo"));
    Ok(rules)
}

/// It reaches out, is reached, and finds nothing of its neighbours' that was closed.
fn gets_through(vps: &Vps, world: &World) -> Result<()> {
    ensure!(vps.reaches(WORLD)?, "a VPS does not reach out");
    world.run(|| hears((HOST, 8080), &format!("80 {WORLD}")))
}

/// An order of Docker's own tool.
fn iptables(room: &Room, words: &str) -> Result<()> {
    let mut iptables = room.command("iptables");
    iptables.arg("--wait").args(words.split(' '));
    harness::run(&mut iptables).map(drop)
}

fn vpss_get_through_beside_docker() -> Result<()> {
    needs!(root, ours, engine: dockerd, engine: iptables);
    harness::need("program:ip");
    Room::test(|room| {
        let network = host()?;
        let world = wire(["198.51.100.2/24", "198.51.100.1/24"])?;
        harness::run(Command::new("ip").args(["route", "add", "default", "via", "198.51.100.1"]))?;
        docker_comes_later(room, &network, &world)?;
        network.remove()?;
        ensure!(ours(room)?.is_empty(), "{:?}", ours(room)?);
        iptables(room, "-P FORWARD ACCEPT")?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
        docker_comes_first(room, &network, &world)
    })
}

fn docker_comes_later(room: &Room, network: &Network, world: &World) -> Result<()> {
    let a = Vps::new(network, 2)?;
    greet(&a, 80)?;
    provide(&a, &["8080:80"], &Filter::default())?;
    gets_through(&a, world)?;
    let docker = Docker::start(room, &[])?;
    // What Docker does where it is the first who wants packets forwarded.
    iptables(room, "-P FORWARD DROP")?;
    ensure!(!a.glimpses(WORLD)?, "Docker's firewall stops nothing");
    // The next command, whichever, sees to it.
    ensure!(!network.stands()?, "a closed way is not noticed");
    network.restore(std::slice::from_ref(&a.port), &[])?;
    ensure!(network.stands()?);
    gets_through(&a, world)?;
    let rules = ours(room)?;
    ensure!(
        rules
            == [
                r#"-A DOCKER-USER -o condo0 -m comment --comment "condo condo0: to" -j ACCEPT"#,
                r#"-A DOCKER-USER -i condo0 -o eth0 -m comment --comment "condo condo0: from, by eth0" -j ACCEPT"#,
            ],
        "{rules:?}"
    );
    let end = chain(room, "DOCKER-USER")?.pop();
    ensure!(end.as_deref() == Some("-A DOCKER-USER -j RETURN"), "{end:?}");
    containers_are_dockers(&docker, network, &a)?;
    network.detach(&a.port)?;
    docker.daemon.stop()
}

/// With an exception of the operator's, which goes before condo's.
fn docker_comes_first(room: &Room, network: &Network, world: &World) -> Result<()> {
    let docker = Docker::start(room, &[])?;
    let policy = chain(room, "FORWARD")?;
    ensure!(policy.contains(&"-P FORWARD DROP".to_owned()), "{policy:?}");
    iptables(room, "-I DOCKER-USER -p tcp --dport 81 -j DROP")?;
    network.ensure()?;
    let b = Vps::new(network, 2)?;
    for port in [80, 81] {
        greet(&b, port)?;
    }
    provide(&b, &["8080:80", "8081:81"], &Filter::default())?;
    ensure!(network.stands()?);
    gets_through(&b, world)?;
    world.run(|| is_closed((HOST, 8081)))?;
    network.retire()?;
    ensure!(ours(room)?.is_empty(), "{:?}", ours(room)?);
    let left = chain(room, "DOCKER-USER")?;
    ensure!(
        left.len() == 3,
        "an exception of the operator's is gone: {left:?}"
    );
    docker.daemon.stop()
}

/// A VPS reaches of a container what Docker publishes, and no more; a container reaches what a VPS publishes.
fn containers_are_dockers(docker: &Docker, network: &Network, vps: &Vps) -> Result<()> {
    let server =
        "(while :; do echo closed | nc -l -p 9001; done) & while :; do echo open | nc -l -p 9000; done";
    let client = &docker.client;
    client.ok(
        &run_on("bridge", "--detach --name server --publish 9000:9000"),
        &["sh", "-c", server],
    )?;
    let facts = docker.inspect("server")?;
    let address: Ipv4Addr = facts["NetworkSettings"]["IPAddress"]
        .as_str()
        .context("no address")?
        .parse()?;
    hears((address, 9001), "closed\n")?;
    vps.room.run(|| hears((HOST, 9000), "open\n"))?;
    vps.room.run(|| is_closed((address, 9001)))?;
    let ask = format!("exec server nc -w 5 {} 8080", network.gateway());
    let said = client.ok(&ask, &[])?;
    // Docker has its containers call under the host's address.
    ensure!(said == format!("80 {}", network.gateway()), "{said}");
    client.ok("rm --force server", &[]).map(drop)
}
