//! Podman and Buildah, which have no daemon: `podman --runtime condo`.

use anyhow::{Result, ensure};

use super::client::Client;
use super::room::Room;
use super::{example, image, long};
use crate::harness;

tests![
    containers_live_and_end: 240,
    pods_share: 240,
    root_can_be_nobody in guest: 240,
    root_can_be_nobody_by_systemd: 240,
    images_are_built: 240,
];

/// Podman as the example has it, with all its state in the room, and the image.
pub fn podman(room: &Room) -> Result<Client<'_>> {
    let text = example(include_str!("../../../examples/engines/podman-containers.conf"));
    let mut text = room.with_driver(&text);
    // Podman asks for what it takes to be the most that root may have; where root has no CAP_SYS_RESOURCE, that is too much.
    text += "\n[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
    let config = room.write("containers.conf", &text)?;
    let client = room
        .client(&words(room, "podman"))
        .with("CONTAINERS_CONF", &config);
    let archive = room.path("image.tar");
    image::busybox(&archive)?;
    client.ok("load --quiet --input", &[&archive.display().to_string()])?;
    Ok(client)
}

/// A program of the family, with where its state is.
fn words(room: &Room, program: &str) -> Vec<String> {
    let place = |name: &str| room.path(name).display().to_string();
    let mut words: Vec<String> = vec![
        program.into(),
        "--root".into(),
        place("lib"),
        "--runroot".into(),
        place("run"),
    ];
    if program == "podman" {
        words.extend([
            "--tmpdir".into(),
            place("tmp"),
            "--network-config-dir".into(),
            place("networks"),
            "--runtime".into(),
            "condo".into(),
        ]);
    }
    words
}

fn containers_live_and_end() -> Result<()> {
    needs!(root, ours, engine: podman, engine: conmon);
    Room::test(|room| {
        let podman = podman(room)?;
        let run = format!(
            "run --rm --network none --cgroup-parent {} {}",
            room.cgroup,
            image::IMAGE
        );
        podman.says("hello", &run, &["echo", "hello"])?;
        podman.ends(7, &run, &["sh", "-c", "exit 7"])?;
        let said = podman.ends(127, &run, &["no-such-program"])?;
        // The error as a person is to read it, and not as the line of a log.
        ensure!(
            said.contains("executable file not found in $PATH") && !said.contains("level="),
            "{said}"
        );
        let nowhere = format!("run --rm --network none --cgroups disabled {}", image::IMAGE);
        let cgroup = podman.ok(&nowhere, &["cat", "/proc/self/cgroup"])?;
        ensure!(!cgroup.contains("libpod"), "{cgroup}");
        a_long_one(room, &podman)
    })
}

fn a_long_one(room: &Room, podman: &Client) -> Result<()> {
    let run = format!(
        "run --detach --name long --network none --memory 64m --cpus 0.5 --cgroup-parent {}",
        room.cgroup
    );
    let id = podman.ok(&format!("{run} {}", image::IMAGE), &["sh", "-c", long::SCRIPT])?;
    long::comes_up(podman)?;
    podman.says("condo", "inspect --format {{.OCIRuntime}} long", &[])?;
    let below = format!("libpod-{id}");
    room.has_quota(&below, "50000")?;
    podman.ends(127, "exec long no-such-program", &[])?;
    let stats = podman.ok("stats --no-stream --format", &["{{.MemUsage}} {{.PIDS}}", "long"])?;
    ensure!(stats.contains("67.11MB"), "{stats}");
    let top = podman.ok("top long args", &[])?;
    ensure!(top.contains("while :"), "{top}");
    long::lives_and_ends(podman)?;
    podman.ok("rm long", &[])?;
    Ok(())
}

fn pods_share() -> Result<()> {
    needs!(root, ours, engine: podman, engine: conmon, engine: catatonit);
    Room::test(|room| {
        let podman = podman(room)?;
        podman.ok(
            &format!(
                "pod create --name two --hostname two --cgroup-parent {}",
                room.cgroup
            ),
            &[],
        )?;
        let server = "mkdir /www && echo hello > /www/index.html && exec busybox httpd -f -h /www";
        podman.ok(
            &format!("run --detach --pod two --name server {}", image::IMAGE),
            &["sh", "-c", server],
        )?;
        let client = "until wget -q -O - http://127.0.0.1/; do sleep 0.1; done; hostname";
        podman.says(
            "hello\ntwo",
            &format!("run --rm --pod two {}", image::IMAGE),
            &["sh", "-c", client],
        )?;
        podman.ok("pod pause two", &[])?;
        podman.says("Paused", "pod inspect --format {{.State}} two", &[])?;
        podman.ok("pod unpause two", &[])?;
        podman.ok("pod rm --force --time 0 two", &[])?;
        kube(room, &podman)
    })
}

const KUBE: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: kube
spec:
  hostNetwork: true
  containers:
  - name: steady
    image: localhost/busybox:latest
    imagePullPolicy: Never
    command: ["sh", "-c", "echo $GREETING; exec sleep 1000"]
    env: [{name: GREETING, value: hello}]
    resources: {limits: {memory: 64Mi}}
    securityContext: {readOnlyRootFilesystem: true}
"#;

fn kube(room: &Room, podman: &Client) -> Result<()> {
    let file = room.write("pod.yaml", KUBE)?;
    podman.ok("play kube", &[&file])?;
    podman.comes_to_say("hello", "logs kube-steady", &[])?;
    podman.says(
        "67108864",
        "inspect --format {{.HostConfig.Memory}} kube-steady",
        &[],
    )?;
    podman.ends(1, "exec kube-steady touch /file", &[])?;
    podman.ok("play kube --down", &[&file])?;
    Ok(())
}

fn root_can_be_nobody() -> Result<()> {
    needs!(root, ours, userns, engine: podman, engine: conmon);
    Room::test(mapped)
}

fn root_can_be_nobody_by_systemd() -> Result<()> {
    needs!(root, ours, userns, systemd, cgroup2, engine: podman, engine: conmon);
    Room::test_beside_systemd(mapped)
}

fn mapped(room: &Room) -> Result<()> {
    room.subordinate_ids("containers:500000:200000\n")?;
    let podman = podman(room)?;
    let options = "--network none --userns auto --memory 64m --pids-limit 9";
    let run = format!(
        "run --rm {options} --cgroup-parent {} {}",
        room.cgroup_parent(),
        image::IMAGE
    );
    let script = "touch /file && stat -c %u /file && cat /proc/self/uid_map; for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait";
    let ran = podman.run(&run, &["sh", "-c", script])?;
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    ensure!(words.starts_with(&["0", "0", "500000"]), "{ran:?}");
    ensure!(ran.err.contains("can't fork"), "{ran:?}");
    podman.ends(
        137,
        &run,
        &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"],
    )?;
    Ok(())
}

fn images_are_built() -> Result<()> {
    needs!(root, ours, engine: podman, engine: buildah);
    Room::test(|room| {
        podman(room)?;
        let runtime = harness::condo_runtime().display().to_string();
        let buildah = room
            .client(&words(room, "buildah"))
            .with("BUILDAH_ISOLATION", "oci");
        let from = format!(
            "from --pull-never --name work --cgroup-parent {} {}",
            room.cgroup,
            image::IMAGE
        );
        buildah.ok(&from, &[])?;
        let run = format!("run --runtime {runtime} --isolation oci --network none work --");
        buildah.says("made", &run, &["sh", "-c", "echo made | tee /made"])?;
        buildah.ends(3, &run, &["sh", "-c", "test -e /made && exit 3"])?;
        let file = format!(
            "FROM {}\nRUN echo built > /built && test $(id -u) = 0\nUSER guest\nRUN test $(id -u) = 1000\n",
            image::IMAGE
        );
        let file = room.write("Containerfile", &file)?;
        let bud = format!(
            "bud --runtime {runtime} --isolation oci --network none --pull-never --cgroup-parent {}",
            room.cgroup
        );
        buildah.ok(&bud, &["--tag", "localhost/built", "--file", &file, "."])?;
        let podman = podman(room)?;
        let run = format!(
            "run --rm --network none --cgroup-parent {} localhost/built",
            room.cgroup
        );
        podman.says("built", &run, &["cat", "/built"])
    })
}
