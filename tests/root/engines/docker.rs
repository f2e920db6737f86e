//! Docker: `docker run --runtime condo`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::client::Client;
use super::room::{Daemon, Room};
use super::{example, image, long};
use crate::harness;
use crate::vps::house::eventually;

tests![
    containers_live_and_end: 240,
    limits_hold in guest: 240,
    limits_hold_by_systemd: 240,
    root_can_be_nobody: 240,
    services_of_compose_reach_one_another: 240,
];

/// A daemon with the image, and its client.
pub struct Docker<'a> {
    pub daemon: Daemon,
    pub client: Client<'a>,
}

impl<'a> Docker<'a> {
    /// Starts it with the example's configuration; `more` are further words of its command line.
    pub fn start(room: &'a Room, more: &[&str]) -> Result<Self> {
        // It gives its containerd 15 seconds to begin, which a busy emulated machine may not have: then it ends.
        let again = |_| Self::begin(room, more);
        Self::begin(room, more).or_else(again).or_else(again)
    }

    fn begin(room: &'a Room, more: &[&str]) -> Result<Self> {
        let text = include_str!("../../../examples/engines/docker-daemon.json");
        let config = room.write("daemon.json", &room.with_driver(&example(text)))?;
        let socket = room.path("docker.sock");
        let host = format!("unix://{}", socket.display());
        let [data, exec, pid] =
            ["data", "exec", "docker.pid"].map(|name| room.path(name).display().to_string());
        let mut words = vec!["dockerd", "--config-file", &config, "--host", &host];
        words.extend(["--data-root", &data, "--exec-root", &exec, "--pidfile", &pid]);
        words.extend(["--cgroup-parent", room.cgroup_parent()]);
        words.extend(more);
        let daemon = room.daemon(&words, &socket)?;
        let client = room.client(&["/usr/bin/docker", "--host", &host]);
        let archive = room.path("image.tar");
        image::busybox(&archive)?;
        client.ok("load --quiet --input", &[&archive.display().to_string()])?;
        Ok(Self { daemon, client })
    }

    /// What `docker inspect` knows.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let list: Value = serde_json::from_str(&self.client.ok("inspect", &[name])?)?;
        list.get(0).cloned().context("nothing was inspected")
    }
}

/// Without a network of the engine's, which takes its time.
pub const NO_NETWORK: &[&str] = &[
    "--bridge",
    "none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
];

/// The words that begin a container of the image.
fn run(options: &str) -> String {
    run_on("none", options)
}

/// As [`run`], on a network of Docker's.
pub fn run_on(network: &str, options: &str) -> String {
    run_by("condo", &format!("--network {network} {options}"), image::IMAGE)
}

/// The same by a runtime of this name, of any image.
pub fn run_by(runtime: &str, options: &str, image: &str) -> String {
    // Where the kernel has AppArmor, Docker has its profile loaded by a program that not every machine has.
    let unconfined = match harness::has("program:apparmor_parser") {
        true => "",
        false => "--security-opt apparmor=unconfined",
    };
    format!("run --runtime {runtime} {unconfined} {options} {image}")
}

fn containers_live_and_end() -> Result<()> {
    needs!(root, ours, engine: dockerd);
    Room::test(|room| {
        // As `docker build` can be told of a runtime in no other way.
        let docker = Docker::start(room, &[NO_NETWORK, &["--default-runtime", "condo"]].concat())?;
        let client = &docker.client;
        ends_are_told(client)?;
        a_long_one(client)?;
        confined(room, client)?;
        health(&docker)?;
        a_build(room, client)?;
        docker.daemon.stop()
    })
}

fn ends_are_told(client: &Client) -> Result<()> {
    client.says("hello", &run("--rm"), &["echo", "hello"])?;
    client.ends(7, &run("--rm"), &["sh", "-c", "exit 7"])?;
    let said = client.ends(127, &run("--rm"), &["no-such-program"])?;
    ensure!(said.contains("executable file not found"), "{said}");
    client.ends(126, &run("--rm"), &["/etc/passwd"])?;
    client.says(
        "terminal",
        &run("--rm --tty"),
        &["sh", "-c", "test -t 1 && echo terminal"],
    )?;
    let script = "echo $(id -u) $(pwd)";
    client.says(
        "1000 /tmp",
        &run("--rm --user guest --workdir /tmp"),
        &["sh", "-c", script],
    )
}

fn a_long_one(client: &Client) -> Result<()> {
    client.ok(&run("--detach --name long"), &["sh", "-c", long::SCRIPT])?;
    long::comes_up(client)?;
    client.says("1", "exec long", &["grep", "-c", "asked", "/proc/1/cmdline"])?;
    let top = client.ok("top long", &[])?;
    ensure!(top.contains("while :"), "{top}");
    long::lives_and_ends(client)?;
    client.ok("start long", &[])?;
    client.ok("kill long", &[])?;
    client.comes_to_say("137", "inspect --format {{.State.ExitCode}} long", &[])?;
    client.ok("rm long", &[])?;
    Ok(())
}

fn confined(room: &Room, client: &Client) -> Result<()> {
    let sh =
        |options: &str, script: &str| client.run(&run(&format!("--rm {options}")), &["sh", "-c", script]);
    let said = sh("--read-only --tmpfs /tmp", "touch /tmp/a && touch /a")?.fault()?;
    ensure!(said.contains("/a: Read-only file system"), "{said}");
    sh("", "touch /a && chown guest /a")?.ok()?;
    let said = sh("--cap-drop CHOWN", "touch /a && chown guest /a")?.fault()?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = room.write("seccomp.json", profile)?;
    let said = sh(
        &format!("--security-opt seccomp={profile}"),
        "touch /a && mkdir /b",
    )?
    .fault()?;
    ensure!(said.contains("Operation not supported"), "{said}");
    let said = sh("--init", "cat /proc/1/comm")?.ok()?;
    ensure!(said.trim() == "docker-init", "PID 1 is {said}");
    let volume = room.path("volume");
    std::fs::create_dir(&volume)?;
    sh(
        &format!("--volume {}:/data", volume.display()),
        "echo kept > /data/file",
    )?
    .ok()?;
    ensure!(
        std::fs::read_to_string(volume.join("file"))? == "kept\n",
        "the volume does not hold it"
    );
    Ok(())
}

fn health(docker: &Docker) -> Result<()> {
    let mut line = vec!["run", "--health-cmd", "test -e /tmp/well"];
    let rest = run("--detach --name well --health-interval 200ms");
    line.extend(rest.split_whitespace().skip(1));
    line.extend(["sleep", "1000"]);
    docker.client.ok("", &line)?;
    docker.client.ok("exec well touch /tmp/well", &[])?;
    docker
        .client
        .comes_to_say("healthy", "inspect --format {{.State.Health.Status}} well", &[])?;
    let facts = docker.inspect("well")?;
    ensure!(facts["HostConfig"]["Runtime"] == "condo", "{facts}");
    docker.client.ok("rm --force well", &[])?;
    Ok(())
}

fn a_build(room: &Room, client: &Client) -> Result<()> {
    let context = room.path("context");
    std::fs::create_dir(&context)?;
    let steps = format!(
        "FROM {}\nRUN echo built > /built\nRUN test $(cat /built) = built\nCMD cat /built\n",
        image::IMAGE
    );
    std::fs::write(context.join("Dockerfile"), steps)?;
    client.ok(
        "build --network none --tag localhost/built",
        &[&context.display().to_string()],
    )?;
    client.says("built", "run --rm --network none localhost/built", &[])
}

fn limits_hold() -> Result<()> {
    needs!(root, ours, engine: dockerd);
    Room::test(limits)
}

fn limits_hold_by_systemd() -> Result<()> {
    needs!(root, ours, systemd, cgroup2, engine: dockerd);
    Room::test_beside_systemd(limits)
}

fn limits(room: &Room) -> Result<()> {
    let docker = Docker::start(room, NO_NETWORK)?;
    memory(&docker.client)?;
    processes(&docker.client)?;
    processors(room, &docker.client)?;
    docker.daemon.stop()
}

fn memory(client: &Client) -> Result<()> {
    // It outlives what is killed: containerd reads of it in the cgroup, which may go before that when the container does.
    let script = "dd if=/dev/zero of=/dev/null bs=100M count=1; exec sleep 1000";
    client.ok(
        &run("--detach --name greedy --memory 32m --memory-swap 32m"),
        &["sh", "-c", script],
    )?;
    let events =
        "events --since 1h --until 0s --filter container=greedy --filter event=oom --format {{.Action}}";
    // On cgroup v1 the kernel may look again before the killed one has gone, and tells of both times.
    eventually("Docker tells of it", || {
        Ok(client.ok(events, &[])?.lines().next() == Some("oom"))
    })?;
    client.ok("kill greedy", &[])?;
    client.comes_to_say("true", "inspect --format {{.State.OOMKilled}} greedy", &[])?;
    client.ok("rm --force greedy", &[])?;
    Ok(())
}

fn processes(client: &Client) -> Result<()> {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let ran = client.run(&run("--rm --pids-limit 5"), &["sh", "-c", script])?;
    ensure!(ran.err.contains("can't fork"), "{ran:?}");
    Ok(())
}

fn processors(room: &Room, client: &Client) -> Result<()> {
    let limits = "--cpus 0.5 --memory 64m --memory-swap 64m";
    let id = client.ok(
        &run(&format!("--detach --name steady {limits}")),
        &["sleep", "1000"],
    )?;
    let id = match room.is_slice() {
        true => format!("docker-{id}.scope"),
        false => id,
    };
    room.has_quota(&id, "50000")?;
    client.ok("update --cpus 1.5 --memory 96m --memory-swap 96m steady", &[])?;
    room.has_quota(&id, "150000")?;
    let stats = client.ok(
        "stats --no-stream --format",
        &["{{.MemUsage}} {{.PIDs}}", "steady"],
    )?;
    ensure!(stats.ends_with("/ 96MiB 1"), "{stats}");
    client.ok("rm --force steady", &[])?;
    Ok(())
}

fn root_can_be_nobody() -> Result<()> {
    needs!(root, ours, userns, engine: dockerd);
    Room::test(|room| {
        // Any user but root.
        room.subordinate_ids("daemon:500000:65536\n")?;
        let docker = Docker::start(room, &[NO_NETWORK, &["--userns-remap", "daemon"]].concat())?;
        let map = "cat /proc/self/uid_map | tr -s ' '";
        docker
            .client
            .says("0 500000 65536", &run("--rm"), &["sh", "-c", map])?;
        docker
            .client
            .says("0 0", &run("--rm"), &["stat", "-c", "%u %g", "/bin/busybox"])?;
        docker
            .client
            .says("0 0 4294967295", &run("--rm --userns host"), &["sh", "-c", map])?;
        docker.daemon.stop()
    })
}

const COMPOSE: &str = r#"
services:
  server:
    image: localhost/busybox:latest
    runtime: condo
    command: ["sh", "-c", "mkdir /www && echo hello from $$(hostname) > /www/index.html && exec busybox httpd -f -h /www"]
    hostname: the-server
    mem_limit: 64m
  client:
    image: localhost/busybox:latest
    runtime: condo
    depends_on: [server]
    command: ["sh", "-c", "until wget -q -O - http://server/; do sleep 0.2; done; exec sleep 1000"]
"#;

fn services_of_compose_reach_one_another() -> Result<()> {
    needs!(root, ours, engine: dockerd, engine: iptables);
    harness::need("engine:docker-compose");
    Room::test(|room| {
        let docker = Docker::start(room, &[])?;
        let file = room.write("compose.yaml", COMPOSE)?;
        let host = format!("unix://{}", room.path("docker.sock").display());
        let words = [
            "docker-compose",
            "--host",
            &host,
            "--project-name",
            "two",
            "--file",
            &file,
        ];
        let compose = room.client(&words);
        compose.ok("up --detach", &[])?;
        docker
            .client
            .comes_to_say("hello from the-server", "logs two_client_1", &[])?;
        compose.says("the-server", "exec -T server hostname", &[])?;
        let facts = docker.inspect("two_server_1")?;
        ensure!(facts["HostConfig"]["Runtime"] == "condo", "{facts}");
        compose.ok("restart --timeout 1 server", &[])?;
        compose.ok("down --timeout 1", &[])?;
        docker.client.says("", "ps --all --quiet", &[])?;
        docker.daemon.stop()
    })
}
