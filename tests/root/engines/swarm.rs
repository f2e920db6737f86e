//! Docker Swarm: three daemons, each in a network namespace of its own, whose default runtime makes VPSs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::room::{Daemon, Room};
use super::{example, image};
use crate::harness;
use crate::vps::house::{eventually, within};

tests![vpss_are_placed_scaled_and_moved: 300];

/// How long three daemons may take on two processors, and between two questions: each question is three programs' work.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(500);

/// One machine of the swarm.
struct Node<'a> {
    daemon: Daemon,
    client: Client<'a>,
}

/// Where the daemons see one another.
fn address(number: usize) -> String {
    format!("10.9.0.{number}")
}

fn ip(line: &str) -> Result<()> {
    harness::run(Command::new("ip").args(line.split(' '))).map(drop)
}

/// A network namespace with a cable to the room's bridge, by a process that holds it.
fn namespace(number: usize) -> Result<u32> {
    let mut holder = Command::new("unshare");
    let holder = holder.args(["--net", "sleep", "1000"]).spawn()?.id();
    let own = std::fs::read_link("/proc/self/ns/net")?;
    eventually("the namespace is there", || {
        Ok(std::fs::read_link(format!("/proc/{holder}/ns/net"))? != own)
    })?;
    ip(&format!(
        "link add node{number} type veth peer name eth0 netns {holder}"
    ))?;
    ip(&format!("link set node{number} master swarm up"))?;
    let script = format!(
        "ip link set lo up; ip addr add {}/24 dev eth0; ip link set eth0 up; ip route add default via {}",
        address(number),
        address(254)
    );
    let net = format!("--net=/proc/{holder}/ns/net");
    harness::run(Command::new("nsenter").args([&net, "sh", "-ec", &script]))?;
    Ok(holder)
}

impl<'a> Node<'a> {
    fn start(room: &'a Room, number: usize) -> Result<Self> {
        let holder = namespace(number)?;
        let text = example(include_str!("../../../examples/engines/docker-daemon.json"));
        let mut config: serde_json::Value = serde_json::from_str(&text)?;
        config["default-runtime"] = "condo-vps".into();
        let config = room.write(&format!("daemon{number}.json"), &config.to_string())?;
        let dir = room.path(&format!("node{number}"));
        std::fs::create_dir(&dir)?;
        let [socket, data, exec, pid] = ["socket", "data", "exec", "pid"].map(|name| dir.join(name));
        let host = format!("unix://{}", socket.display());
        let [data, exec, pid] = [data, exec, pid].map(|path| path.display().to_string());
        let net = format!("--net=/proc/{holder}/ns/net");
        let mut words = vec![
            "nsenter",
            &net,
            "dockerd",
            "--config-file",
            &config,
            "--host",
            &host,
        ];
        words.extend(["--data-root", &data, "--exec-root", &exec, "--pidfile", &pid]);
        words.extend(["--cgroup-parent", room.cgroup_parent()]);
        words.extend(super::docker::NO_NETWORK);
        let daemon = room.daemon(&words, &socket)?;
        let client = room.client(&["/usr/bin/docker", "--host", &host]);
        let archive = room.path("image.tar");
        client.ok("load --quiet --input", &[&archive.display().to_string()])?;
        Ok(Self { daemon, client })
    }

    /// What runs here of a service.
    fn tasks(&self) -> Result<Vec<String>> {
        let list = self
            .client
            .ok("ps --quiet --filter label=com.docker.swarm.service.name=vps", &[])?;
        Ok(list.lines().map(Into::into).collect())
    }
}

fn vpss_are_placed_scaled_and_moved() -> Result<()> {
    needs!(root, ours, userns, vxlan, engine: dockerd);
    Room::test(|room| {
        image::busybox(&room.path("image.tar"))?;
        ip("link add swarm type bridge")?;
        ip(&format!("addr add {}/24 dev swarm", address(254)))?;
        ip("link set swarm up")?;
        let nodes: Vec<Node> = (1..=3)
            .map(|number| Node::start(room, number))
            .collect::<Result<_>>()?;
        let manager = &nodes[0].client;
        join(&nodes)?;
        manager.ok("network create --driver overlay inner", &[])?;
        // Virtual addresses take IPVS, which not every kernel has; names with several addresses do not.
        let service = "service create --detach --no-resolve-image --name vps --endpoint-mode dnsrr --network inner --replicas 3";
        manager.ok(service, &[image::IMAGE, "sleep", "100000"])?;
        spread(&nodes, &[1, 1, 1])?;
        each_has_its_own(&nodes)?;
        reach_one_another(&nodes[0])?;
        manager.ok("service scale --detach vps=6", &[])?;
        spread(&nodes, &[2, 2, 2])?;
        let [one, two, three] = <[Node; 3]>::try_from(nodes).map_err(|_| anyhow::anyhow!("three"))?;
        // A machine that dies: nobody hears of it any more.
        three.daemon.kill()?;
        ip("link set node3 down")?;
        let rest = [one, two];
        spread(&rest, &[3, 3])?;
        rest[0].client.ok("service rm vps", &[])?;
        spread(&rest, &[0, 0])?;
        rest.into_iter().try_for_each(|node| node.daemon.stop())
    })
}

/// Makes them one swarm, in which a machine counts as dead after seconds.
fn join(nodes: &[Node]) -> Result<()> {
    let manager = &nodes[0].client;
    let own = address(1);
    let init = format!("swarm init --dispatcher-heartbeat 1s --advertise-addr {own} --listen-addr {own}");
    manager.ok(&init, &[])?;
    let token = manager.ok("swarm join-token --quiet worker", &[])?;
    for (at, node) in nodes.iter().enumerate().skip(1) {
        let own = address(at + 1);
        let line = format!("swarm join --advertise-addr {own} --listen-addr {own} --token {token}");
        node.client.ok(&line, &[&format!("{}:2377", address(1))])?;
    }
    manager.comes_to_say("Ready\nReady\nReady", "node ls --format {{.Status}}", &[])
}

/// Waits until as many run on each.
fn spread(nodes: &[Node], expected: &[usize]) -> Result<()> {
    let mut last = Vec::new();
    within(PATIENCE, PAUSE, &format!("{expected:?} run"), || {
        last = nodes
            .iter()
            .map(|node| Ok(node.tasks()?.len()))
            .collect::<Result<_>>()?;
        Ok(last == expected)
    })
    .with_context(|| {
        let tasks = nodes[0].client.run("service ps --no-trunc vps", &[]);
        format!("{last:?}: {tasks:?}")
    })
}

/// User ids that nobody else has, and a capability that containers have not.
fn each_has_its_own(nodes: &[Node]) -> Result<()> {
    let mut bases = Vec::new();
    for node in nodes {
        let task = node.tasks()?.pop().context("no task")?;
        let script = "mount -t tmpfs tmpfs /tmp && cat /proc/self/uid_map";
        let map = node.client.ok(&format!("exec {task}"), &["sh", "-c", script])?;
        let numbers: Vec<u64> = map.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        ensure!(numbers[0] == 0 && numbers[2] == 262_144, "{map}");
        bases.push(numbers[1]);
    }
    bases.sort_unstable();
    bases.dedup();
    ensure!(bases.len() == nodes.len(), "{bases:?}");
    Ok(())
}

/// By the service's name, from machine to machine.
fn reach_one_another(node: &Node) -> Result<()> {
    let task = node.tasks()?.pop().context("no task")?;
    let script =
        "all=$(nslookup tasks.vps 2>/dev/null | sed -n 's/^Address.*: \\(10\\.0\\.[0-9.]*\\)$/\\1/p')
        for one in $all; do ping -qc1 -W2 $one >/dev/null && echo reached; done";
    node.client.comes_to_say(
        "reached\nreached\nreached",
        &format!("exec {task}"),
        &["sh", "-c", script],
    )
}
