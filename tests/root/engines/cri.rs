//! Kubernetes' side of containerd, the Container Runtime Interface: what a kubelet asks for, in its own words, over the socket.

mod client;
mod messages;

use anyhow::{Context, Result, ensure};

use self::client::Kubelet;
use self::messages::*;
use super::containerd::Containerd;
use super::image;
use super::room::Room;
use crate::vps::house::eventually;

tests![pods_live_and_end: 240, a_pod_is_a_vps: 240, systemd_and_docker_run_in_a_pod: 400,];

/// An image of Debian's system.
const DEBIAN: &str = "localhost/debian:latest";
/// The image that holds a pod's namespaces.
const PAUSE: &str = "localhost/pause:latest";

fn pods_live_and_end() -> Result<()> {
    needs!(root, ours, engine: containerd, engine: curl);
    Room::test(|room| {
        let containerd = Containerd::start(room, &config(room)?)?;
        images(room, &containerd)?;
        let kubelet = Kubelet::new(room, &room.path("containerd.sock"));
        let version: Version = kubelet.ask("Version", &Nothing {})?;
        ensure!(version.runtime_name == "containerd", "{version:?}");
        let on_host = pod(room, "on-host", NODE);
        let alone = pod(room, "alone", POD);
        let first = run(&kubelet, &on_host, "condo")?;
        let second = run(&kubelet, &alone, "condo")?;
        containers(room, &kubelet, &first, &on_host)?;
        network(&kubelet, &second, &alone)?;
        for id in [first, second] {
            let _: Nothing = kubelet.ask("StopPodSandbox", &Id { id: id.clone() })?;
            let _: Nothing = kubelet.ask("RemovePodSandbox", &Id { id })?;
        }
        containerd.daemon.stop()
    })
}

/// All containers of a pod with `runtimeClassName: condo-vps` have one range of user ids, and its network.
fn a_pod_is_a_vps() -> Result<()> {
    needs!(root, ours, userns, engine: containerd, engine: curl);
    Room::test(|room| {
        let containerd = Containerd::start(room, &config(room)?)?;
        images(room, &containerd)?;
        let kubelet = Kubelet::new(room, &room.path("containerd.sock"));
        let pod = pod(room, "alone", POD);
        let id = run(&kubelet, &pod, "condo-vps")?;
        network(&kubelet, &id, &pod)?;
        let place = (id.as_str(), &pod);
        let mut seen = Vec::new();
        for name in ["one", "two"] {
            let container = start(&kubelet, place, name, "exec sleep 1000", linux(POD, 64 << 20))?;
            let script = "stat -c %u:%g /bin/busybox && test -d /sys/class/net/lo && mount -t tmpfs tmpfs /tmp && ! ip link set lo down 2>&- &&
                readlink /proc/self/ns/user && cat /proc/self/uid_map";
            let ran = sh(&kubelet, &container, script)?;
            ensure!(ran.code == 0 && ran.stdout.starts_with(b"0:0\n"), "{ran:?}");
            seen.push(ran.stdout);
            end(&kubelet, &container, 137)?;
        }
        let map = String::from_utf8_lossy(&seen[0]).into_owned();
        let numbers: Vec<u64> = map.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        ensure!(
            numbers.first() == Some(&0) && numbers.get(1).is_some_and(|base| *base > 65_536),
            "{map}"
        );
        ensure!(seen[0] == seen[1], "{seen:?}");
        let _: Nothing = kubelet.ask("StopPodSandbox", &Id { id: id.clone() })?;
        let _: Nothing = kubelet.ask("RemovePodSandbox", &Id { id })?;
        let left = std::fs::read_dir("/run/condo-ids").map_or(0, |entries| entries.count());
        ensure!(left == 0, "{left} ranges of user ids are left claimed");
        containerd.daemon.stop()
    })
}

/// Debian's system in a container of a pod, and Docker in that: what the pod's own image has beside is the room's engines.
fn systemd_and_docker_run_in_a_pod() -> Result<()> {
    needs!(root, ours, userns, engine: containerd, engine: curl, engine: dockerd);
    let debian = crate::vps::debian::image()?;
    Room::test(|room| {
        let containerd = Containerd::start(room, &config(room)?)?;
        images(room, &containerd)?;
        let archive = room.path("debian.tar");
        image::of_directory(&archive, DEBIAN, &debian.join("rootfs"))?;
        let archive = archive.display().to_string();
        containerd
            .client
            .ok("--namespace k8s.io image import", &[&archive])?;
        let kubelet = Kubelet::new(room, &room.path("containerd.sock"));
        let pod = pod(room, "alone", POD);
        let sandbox = run(&kubelet, &pod, "condo-vps")?;
        let mount = |inside: &str, outside: String| Mount {
            inside: inside.into(),
            outside,
            readonly: inside != "/srv",
        };
        let mut own = linux(POD, 768 << 20);
        own.resources = own.resources.map(|r| Resources { cpu_quota: 0, ..r });
        if let Some(security) = &mut own.security {
            security.readonly_rootfs = false;
            security.no_new_privileges = false;
        }
        let system = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "debian".into(),
            }),
            image: Some(ImageSpec { image: DEBIAN.into() }),
            command: vec!["/sbin/init".into()],
            mounts: vec![
                mount("/mnt/usr", "/usr".into()),
                mount("/srv", room.dir.display().to_string()),
            ],
            log_path: "debian.log".into(),
            linux: Some(own),
        };
        let id = begin(&kubelet, (&sandbox, &pod), system)?;
        system_is_up(&kubelet, &id)?;
        docker_inside(&kubelet, &id)?;
        end(&kubelet, &id, 130)?;
        let _: Nothing = kubelet.ask("StopPodSandbox", &Id { id: sandbox.clone() })?;
        let _: Nothing = kubelet.ask("RemovePodSandbox", &Id { id: sandbox })?;
        containerd.daemon.stop()
    })
}

fn system_is_up(kubelet: &Kubelet, id: &str) -> Result<()> {
    let mut last = None;
    eventually("systemd is up", || {
        let ran = last.insert(sh(
            kubelet,
            id,
            "systemctl is-system-running; systemctl --failed --no-legend",
        )?);
        Ok(ran.stdout == b"running\n")
    })
    .with_context(|| format!("{last:?}"))
}

fn docker_inside(kubelet: &Kubelet, id: &str) -> Result<()> {
    let script = "mount --bind /mnt/usr /usr && systemd-run --quiet --unit inner dockerd --bridge none --iptables=false --ip6tables=false --ip-forward=false
        n=0; until docker info --format {{.Driver}} 2>/dev/null | grep -q overlay2 || [ $n = 60 ]; do sleep 0.5; n=$((n + 1)); done
        docker load --quiet --input /srv/busybox.tar >&2 &&
        docker run --rm --network none localhost/busybox sh -c 'echo hello from $(cat /proc/1/comm)'";
    let ran = sh(kubelet, id, script)?;
    ensure!(
        ran.code == 0 && ran.stdout.ends_with(b"hello from sh\n"),
        "{ran:?}"
    );
    Ok(())
}

/// What a node's administrator adds to the example: here, an image that needs no registry and a network that needs no plugins
/// from elsewhere. `restrict_oom_score_adj`: for machines where root may not lower scores.
fn config(room: &Room) -> Result<String> {
    let cni = room.path("cni");
    std::fs::create_dir(&cni)?;
    let network = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]}}]}"#;
    room.write("cni/pods.conflist", network)?;
    Ok(format!(
        r#"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{}"
"#,
        cni.display()
    ))
}

/// The CRI looks for images in a namespace of its own.
fn images(room: &Room, containerd: &Containerd) -> Result<()> {
    let [busybox, pause] = ["busybox.tar", "pause.tar"].map(|name| room.path(name));
    image::busybox(&busybox)?;
    image::write(
        &pause,
        PAUSE,
        &serde_json::json!({"Env": ["PATH=/bin"], "Entrypoint": ["sleep", "1000000"]}),
    )?;
    for archive in [busybox, pause] {
        containerd.client.ok(
            "--namespace k8s.io image import",
            &[&archive.display().to_string()],
        )?;
    }
    Ok(())
}

fn pod(room: &Room, name: &str, network: i32) -> SandboxConfig {
    let namespaces = NamespaceOption {
        network,
        pid: CONTAINER,
        ipc: network,
    };
    SandboxConfig {
        metadata: Some(Metadata {
            name: name.into(),
            uid: format!("{name}-uid"),
            namespace: "tests".into(),
        }),
        hostname: if network == NODE {
            String::new()
        } else {
            name.into()
        },
        log_directory: room.dir.display().to_string(),
        linux: Some(LinuxSandbox {
            cgroup_parent: format!("{}/{name}", room.cgroup),
            security: Some(SandboxSecurity {
                namespaces: Some(namespaces),
            }),
        }),
    }
}

fn run(kubelet: &Kubelet, pod: &SandboxConfig, handler: &str) -> Result<String> {
    let request = RunPodSandbox {
        config: Some(pod.clone()),
        runtime_handler: handler.into(),
    };
    let id: Id = kubelet.ask("RunPodSandbox", &request)?;
    let status: SandboxStatusResponse = kubelet.ask("PodSandboxStatus", &Id { id: id.id.clone() })?;
    let status = status.status.context("no status")?;
    ensure!(
        status.runtime_handler == handler && status.state == 0,
        "{status:?}"
    );
    Ok(id.id)
}

/// A container of a shell script that has been started.
fn start(
    kubelet: &Kubelet,
    (sandbox, pod): (&str, &SandboxConfig),
    name: &str,
    script: &str,
    linux: LinuxContainer,
) -> Result<String> {
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into() }),
        image: Some(ImageSpec {
            image: image::IMAGE.into(),
        }),
        command: ["sh", "-c", script].map(String::from).to_vec(),
        mounts: Vec::new(),
        log_path: format!("{name}.log"),
        linux: Some(linux),
    };
    begin(kubelet, (sandbox, pod), config)
}

fn begin(
    kubelet: &Kubelet,
    (sandbox, pod): (&str, &SandboxConfig),
    config: ContainerConfig,
) -> Result<String> {
    let request = CreateContainer {
        sandbox: sandbox.into(),
        config: Some(config),
        sandbox_config: Some(pod.clone()),
    };
    let id: Id = kubelet.ask("CreateContainer", &request)?;
    let _: Nothing = kubelet.ask("StartContainer", &id)?;
    Ok(id.id)
}

fn linux(network: i32, memory: i64) -> LinuxContainer {
    let namespaces = NamespaceOption {
        network,
        pid: CONTAINER,
        ipc: network,
    };
    LinuxContainer {
        resources: Some(Resources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            memory,
        }),
        security: Some(ContainerSecurity {
            namespaces: Some(namespaces),
            readonly_rootfs: true,
            no_new_privileges: true,
        }),
    }
}

fn containers(room: &Room, kubelet: &Kubelet, sandbox: &str, pod: &SandboxConfig) -> Result<()> {
    let place = (sandbox, pod);
    let script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done";
    let id = start(kubelet, place, "steady", script, linux(NODE, 64 << 20))?;
    ensure!(status(kubelet, &id)?.state == RUNNING, "it does not run");
    eventually("its log is written", || {
        let log = std::fs::read_to_string(room.path("steady.log")).unwrap_or_default();
        Ok(log.contains("stdout F up"))
    })?;
    let ran = sh(kubelet, &id, "cat /proc/1/comm; touch /file; exit 3")?;
    ensure!(ran.code == 3 && ran.stdout == b"sh\n", "{ran:?}");
    ensure!(
        String::from_utf8_lossy(&ran.stderr).contains("Read-only"),
        "{ran:?}"
    );
    let below = format!("on-host/{id}");
    room.has_quota(&below, "50000")?;
    let more = Resources {
        cpu_period: 100_000,
        cpu_quota: 80_000,
        ..Resources::default()
    };
    let _: Nothing = kubelet.ask(
        "UpdateContainerResources",
        &Update {
            id: id.clone(),
            linux: Some(more),
        },
    )?;
    room.has_quota(&below, "80000")?;
    let stats: StatsResponse = kubelet.ask("ContainerStats", &Id { id: id.clone() })?;
    let memory = stats
        .stats
        .and_then(|s| s.memory)
        .and_then(|m| m.working_set)
        .map_or(0, |w| w.value);
    ensure!((1..64 << 20).contains(&memory), "its memory is {memory}");
    end(kubelet, &id, 4)?;
    let greedy = start(
        kubelet,
        place,
        "greedy",
        "dd if=/dev/zero of=/dev/null bs=100M count=1",
        linux(NODE, 32 << 20),
    )?;
    eventually("it is killed", || Ok(status(kubelet, &greedy)?.state == EXITED))?;
    let ended = status(kubelet, &greedy)?;
    ensure!(ended.reason == "OOMKilled" && ended.exit_code == 137, "{ended:?}");
    let _: Nothing = kubelet.ask("RemoveContainer", &Id { id: greedy })?;
    Ok(())
}

/// Two containers of one pod share its network, which has an address.
fn network(kubelet: &Kubelet, sandbox: &str, pod: &SandboxConfig) -> Result<()> {
    let status: SandboxStatusResponse = kubelet.ask("PodSandboxStatus", &Id { id: sandbox.into() })?;
    let address = status.status.and_then(|s| s.network).context("no network")?.ip;
    ensure!(address.starts_with("10.88.0."), "its address is {address}");
    let place = (sandbox, pod);
    let server =
        "mkdir /dev/shm/www && echo hello > /dev/shm/www/index.html && exec busybox httpd -f -h /dev/shm/www";
    let server = start(kubelet, place, "server", server, linux(POD, 64 << 20))?;
    let client = start(kubelet, place, "client", "exec sleep 1000", linux(POD, 64 << 20))?;
    let mut last = None;
    eventually("it answers", || {
        let ran = last.insert(sh(
            kubelet,
            &client,
            &format!("hostname; wget -q -O - http://{address}/"),
        )?);
        Ok(ran.code == 0 && ran.stdout == b"alone\nhello\n")
    })
    .with_context(|| format!("{last:?}"))?;
    end(kubelet, &server, 137)?;
    end(kubelet, &client, 137)
}

fn sh(kubelet: &Kubelet, id: &str, script: &str) -> Result<ExecSyncResponse> {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    kubelet.ask(
        "ExecSync",
        &ExecSync {
            id: id.into(),
            command,
            timeout: 0,
        },
    )
}

fn status(kubelet: &Kubelet, id: &str) -> Result<ContainerStatus> {
    let response: ContainerStatusResponse = kubelet.ask("ContainerStatus", &Id { id: id.into() })?;
    response.status.context("no status")
}

/// Stops a container and removes it.
fn end(kubelet: &Kubelet, id: &str, code: i32) -> Result<()> {
    let timeout = if code == 137 { 0 } else { 30 };
    let _: Nothing = kubelet.ask(
        "StopContainer",
        &StopContainer {
            id: id.into(),
            timeout,
        },
    )?;
    let ended = status(kubelet, id)?;
    ensure!(ended.state == EXITED && ended.exit_code == code, "{ended:?}");
    let _: Nothing = kubelet.ask("RemoveContainer", &Id { id: id.into() })?;
    Ok(())
}
