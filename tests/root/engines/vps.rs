//! Containers of engines that are VPSs: `docker run --runtime condo-vps`.

use anyhow::{Context, Result, ensure};

use super::client::Client;
use super::docker::{Docker, NO_NETWORK, run_by};
use super::image;
use super::podman::podman;
use super::room::Room;
use crate::vps::house::eventually;

/// What the image of Debian is called.
const DEBIAN: &str = "localhost/debian:latest";

tests![docker_gives_a_vps: 240, podman_gives_a_vps: 240, systemd_and_docker_run_inside: 400, podman_boots_systemd: 300];

/// Where the machine keeps who has which user ids.
const CLAIMS: &str = "/run/condo-ids";

fn run(options: &str) -> String {
    run_by("condo-vps", options, image::IMAGE)
}

/// How many ranges of user ids are claimed.
fn claimed() -> Result<usize> {
    Ok(std::fs::read_dir(CLAIMS).map_or(0, |entries| entries.count()))
}

fn docker_gives_a_vps() -> Result<()> {
    needs!(root, ours, userns, engine: dockerd);
    Room::test(|room| {
        let docker = Docker::start(room, NO_NETWORK)?;
        users(room, &docker.client)?;
        volumes(room, &docker.client)?;
        inside(&docker.client)?;
        figures(&docker.client)?;
        shared_is_refused(&docker.client)?;
        ensure!(claimed()? == 0, "user ids are left claimed");
        docker.daemon.stop()
    })
}

/// Two have different ones, files are root's, and all of it goes back.
fn users(room: &Room, client: &Client) -> Result<()> {
    let mut bases = Vec::new();
    for name in ["one", "two"] {
        client.ok(
            &run(&format!("--detach --network none --name {name}")),
            &["sleep", "1000"],
        )?;
        let map = client.ok(&format!("exec {name} cat /proc/self/uid_map"), &[])?;
        let numbers: Vec<u64> = map.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        ensure!(
            numbers[0] == 0 && numbers[1] > 65_536 && numbers[2] == 262_144,
            "{map}"
        );
        let pid = client.ok("inspect --format {{.State.Pid}}", &[name])?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:\t"))
            .context("no uid")?;
        ensure!(uid.split('\t').next() == Some(&numbers[1].to_string()), "{uid}");
        bases.push(numbers[1]);
    }
    ensure!(bases[0].abs_diff(bases[1]) >= 262_144, "{bases:?}");
    ensure!(claimed()? == 8, "{} claims", claimed()?);
    client.says("0:0", "exec one stat -c %u:%g /bin/busybox", &[])?;
    client.ok(
        "exec one",
        &[
            "sh",
            "-c",
            "echo mine > /bin/own && chown 1000:7 /bin/own && cp /bin/busybox /new",
        ],
    )?;
    // The engine's own view has the owners that they have inside.
    let copy = room.path("copy");
    client.ok("cp one:/bin/own", &[&copy.display().to_string()])?;
    ensure!(std::fs::read_to_string(&copy)? == "mine\n");
    client.ok("stop --time 0 one", &[])?;
    client.ok("start one", &[])?;
    client.says(
        "1000:7 mine",
        "exec one",
        &["sh", "-c", "echo $(stat -c %u:%g /bin/own) $(cat /bin/own)"],
    )?;
    client.ok("commit one localhost/own", &[])?;
    client.says(
        "1000:7",
        &run_by("condo", "--rm --network none", "localhost/own"),
        &["stat", "-c", "%u:%g", "/bin/own"],
    )?;
    client.ok("rm --force one two", &[])?;
    Ok(())
}

fn volumes(room: &Room, client: &Client) -> Result<()> {
    let volume = room.path("shared");
    std::fs::create_dir(&volume)?;
    std::fs::write(volume.join("old"), "old\n")?;
    let options = format!(
        "--rm --network none --volume {}:/data --volume named:/named",
        volume.display()
    );
    let script = "stat -c %u /data/old /named /etc/hosts && echo new > /data/new && touch /named/file";
    client.says("0\n0\n0", &run(&options), &["sh", "-c", script])?;
    let made = std::fs::metadata(volume.join("new"))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&made);
    ensure!(owner == 0, "what root makes in a volume belongs to {owner}");
    client.says(
        "0",
        &run("--rm --network none --volume named:/named"),
        &["stat", "-c", "%u", "/named/file"],
    )
}

/// What a VPS may do and an ordinary container may not, and what neither may.
fn inside(client: &Client) -> Result<()> {
    client.ok(
        &run("--detach --network none --name vps --memory 128m --hostname vps"),
        &["sleep", "1000"],
    )?;
    let script = "mkdir /mnt && mount -t tmpfs tmpfs /mnt && umount /mnt && ip addr add 192.0.2.7/32 dev lo && hostname other &&
        busybox unshare -rUpf --mount-proc true && exec 3<> /dev/net/tun && exec 4<> /dev/fuse && test $(stat -c %u /dev/null) = 0 &&
        mkdir /sys/fs/cgroup/below && rmdir /sys/fs/cgroup/below";
    client.ok("exec vps", &["sh", "-c", script])?;
    let layers = "cd /var/lib/docker && mkdir lower upper work all && echo old > lower/file &&
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay all && rm all/file && stat -c %u:%g upper/file";
    client.says("0:0", "exec vps", &["sh", "-c", layers])?;
    for refused in [
        "mknod /null c 1 3",
        "echo 1 > /proc/sys/vm/drop_caches",
        "mount -t ext4 /dev/vda /mnt",
        "dmesg",
    ] {
        let ran = client.run("exec vps", &["sh", "-c", refused])?;
        ensure!(!ran.status.success(), "`{refused}` is let through: {ran:?}");
    }
    client.ok("rm --force vps", &[])?;
    Ok(())
}

/// Its memory and processors, by who ends with it; they follow its limits, and come back after who told them was killed.
fn figures(client: &Client) -> Result<()> {
    let limits = "--network none --memory 128m --memory-swap 128m --cpus 1";
    let id = client.ok(
        &run(&format!("--detach --name told {limits}")),
        &["sleep", "1000"],
    )?;
    let script = "sed -n 's/^MemTotal: *//p' /proc/meminfo; grep -c ^processor /proc/cpuinfo; cut -d. -f1 /proc/uptime";
    let nproc = || client.ok("exec told busybox nproc", &[]);
    let says = |memory: &str| -> Result<()> {
        let told = client.ok("exec told", &["sh", "-c", script])?;
        let lines: Vec<&str> = told.lines().collect();
        let uptime: u64 = lines.get(2).context("no uptime")?.parse()?;
        ensure!(lines[..2] == [memory, "1"] && uptime < 300, "{told}");
        Ok(())
    };
    says("131072 kB")?;
    client.ok("update --memory 96m --memory-swap 96m told", &[])?;
    says("98304 kB")?;
    // By affinity as well: as many as it has time for, unless the engine names them.
    ensure!(nproc()? == "1");
    let all = std::thread::available_parallelism()?.get();
    client.ok(&format!("update --cpus {all} told"), &[])?;
    ensure!(nproc()? == all.to_string());
    client.ok("update --cpuset-cpus 0 told", &[])?;
    client.ok(&format!("update --cpus {all} told"), &[])?;
    ensure!(nproc()? == "1");
    client.ok("update --cpus 1 told", &[])?;
    who_tells_is_killed(client, &id)?;
    says("98304 kB")?;
    // A sandbox inside mounts a procfs of its own, in spite of them.
    client.ok(
        "exec told busybox unshare -rUpf --mount-proc grep -q MemTotal /proc/meminfo",
        &[],
    )?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!table.contains("fuse.condo"), "the engine sees them too: {table}");
    client.ok("rm --force told", &[])?;
    eventually("who told them has ended", || Ok(tellers(&id)?.is_empty()))
}

/// Programs inside notice nothing when who answers them is killed, by files or by system calls; when the heir is as well, the next
/// command puts others in their place.
fn who_tells_is_killed(client: &Client, id: &str) -> Result<()> {
    let script = "while busybox free -k > /free && grep MemTotal /proc/meminfo >> /free; do mv /free /told; done; echo failed > /told";
    client.ok("exec --detach told", &["sh", "-c", script])?;
    let says = || {
        client.ok(
            "exec told",
            &[
                "sh",
                "-c",
                "rm -f /told; until [ -e /told ]; do :; done; cat /told",
            ],
        )
    };
    let is_right = |told: &str| -> Result<()> {
        let mut numbers = told.split_whitespace().filter(|word| *word == "98304");
        ensure!(numbers.by_ref().count() == 2, "{told}");
        Ok(())
    };
    is_right(&says()?)?;
    for _ in 0..2 {
        let before = tellers(id)?;
        ensure!(before.len() == 2, "{before:?}");
        kill(before[0])?;
        eventually("the heir has one as well", || {
            let now = tellers(id)?;
            Ok(now.len() == 2 && now[0] == before[1])
        })?;
        is_right(&says()?)?;
    }
    for teller in tellers(id)? {
        kill(teller)?;
    }
    eventually("they are dead", || Ok(tellers(id)?.is_empty()))?;
    let fresh = client.ok("exec told busybox free -k", &[])?;
    ensure!(fresh.contains(" 98304 ") && tellers(id)?.len() == 2, "{fresh}");
    Ok(())
}

fn kill(pid: i32) -> Result<()> {
    use nix::sys::signal::Signal;
    Ok(nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        Signal::SIGKILL,
    )?)
}

/// The processes that tell a container's figures: who does, and the heir.
fn tellers(id: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        if words[0] == b"condo-figures" && words.get(2) == Some(&id.as_bytes()) {
            found.push(pid);
        }
    }
    // The heir is the younger.
    found.sort_unstable();
    Ok(found)
}

fn shared_is_refused(client: &Client) -> Result<()> {
    for option in [
        "--pid host --network none",
        "--network host",
        "--uts host --network none",
    ] {
        let said = client.ends(125, &run(&format!("--rm {option}")), &["true"])?;
        ensure!(said.contains("a VPS has its own"), "{said}");
    }
    Ok(())
}

/// By the range of its own, and by one that Podman chose and made the network for.
fn podman_gives_a_vps() -> Result<()> {
    needs!(root, ours, userns, engine: podman, engine: conmon);
    Room::test(|room| {
        room.subordinate_ids("containers:500000:200000\n")?;
        let podman = podman(room)?;
        let run = |options: &str| {
            format!(
                "--runtime condo-vps run --rm --network none --cgroup-parent {} {options} {}",
                room.cgroup,
                image::IMAGE
            )
        };
        let map = "tr -s ' ' < /proc/self/uid_map";
        let own = podman.ok(&run(""), &["sh", "-c", map])?;
        let numbers: Vec<u64> = own.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        ensure!(
            numbers[0] == 0 && numbers[1] > 700_000 && numbers[2] == 262_144,
            "{own}"
        );
        let script = "stat -c %u:%g /bin/busybox && ip addr add 192.0.2.7/32 dev lo && mkdir /m && mount -t tmpfs tmpfs /m && cat /proc/self/uid_map";
        for options in ["", "--userns auto"] {
            let said = podman.ok(&run(options), &["sh", "-c", script])?;
            let words: Vec<&str> = said.split_whitespace().collect();
            ensure!(words[..2] == ["0:0", "0"], "{options}: {said}");
            ensure!(
                (words[2] == "500000") == (options == "--userns auto"),
                "{options}: {said}"
            );
        }
        let memory = "sed -n 's/^MemTotal: *//p' /proc/meminfo";
        podman.says("65536 kB", &run("--memory 64m"), &["sh", "-c", memory])?;
        // By the annotation, whatever the runtime is called.
        let noted = run("--annotation io.condo.vps=true").replace("--runtime condo-vps", "--runtime condo");
        let map = podman.ok(&noted, &["sh", "-c", map])?;
        ensure!(map.trim().ends_with("262144"), "{map}");
        ensure!(claimed()? == 0, "user ids are left claimed");
        Ok(())
    })
}

/// Debian's system in a container of Podman's, stopped as it wants to be.
fn podman_boots_systemd() -> Result<()> {
    needs!(root, ours, userns, engine: podman, engine: conmon);
    let debian = crate::vps::debian::image()?;
    Room::test(|room| {
        let podman = podman(room)?;
        let archive = room.path("debian.tar");
        image::of_directory(&archive, DEBIAN, &debian.join("rootfs"))?;
        podman.ok("load --quiet --input", &[&archive.display().to_string()])?;
        let run = format!(
            "--runtime condo-vps run --detach --name debian --network none --cgroup-parent {} {DEBIAN}",
            room.cgroup
        );
        podman.ok(&run, &["/sbin/init"])?;
        // Not by `podman exec`: it sets limits, which needs CAP_SYS_RESOURCE where the process is somebody else's.
        let pid = podman.ok("inspect --format {{.State.Pid}}", &["debian"])?;
        let mut last = None;
        eventually("systemd is up", || {
            let mut inside = room.command("nsenter");
            inside.args(["--target", &pid, "--all", "systemctl", "is-system-running"]);
            let said = last.insert(inside.output()?);
            Ok(said.stdout == b"running\n")
        })
        .with_context(|| format!("{last:?}"))?;
        podman.ok("stop --time 60 debian", &[])?;
        podman.says(
            "exited 130",
            "inspect --format",
            &["{{.State.Status}} {{.State.ExitCode}}", "debian"],
        )?;
        podman.ok("rm debian", &[])?;
        ensure!(claimed()? == 0, "user ids are left claimed");
        Ok(())
    })
}

/// Debian's system in a container of Docker's, and Docker in that.
fn systemd_and_docker_run_inside() -> Result<()> {
    needs!(root, ours, userns, engine: dockerd);
    let debian = crate::vps::debian::image()?;
    Room::test(|room| {
        let docker = Docker::start(room, NO_NETWORK)?;
        let client = &docker.client;
        let archive = room.path("debian.tar");
        image::of_directory(&archive, DEBIAN, &debian.join("rootfs"))?;
        client.ok("load --quiet --input", &[&archive.display().to_string()])?;
        // The engines of the room, which lie on an overlay, and an image for the one inside.
        let options = format!(
            "--detach --network none --name debian --memory 768m --volume /usr:/mnt/usr:ro --volume {}:/srv",
            room.dir.display()
        );
        client.ok(&run_by("condo-vps", &options, DEBIAN), &["/sbin/init"])?;
        systemd_is_up(client)?;
        docker_inside(client)?;
        client.ok("stop --time 60 debian", &[])?;
        // What the kernel makes of a power off in a pid namespace: an end by SIGINT (reboot(2)).
        client.says(
            "exited 130",
            "inspect --format",
            &["{{.State.Status}} {{.State.ExitCode}}", "debian"],
        )?;
        client.ok("rm debian", &[])?;
        docker.daemon.stop()
    })
}

fn systemd_is_up(client: &Client) -> Result<()> {
    let mut last = None;
    eventually("systemd is up", || {
        let ran = last.insert(client.run("exec debian systemctl is-system-running", &[])?);
        ensure!(
            !ran.out.contains("degraded"),
            "{}",
            client.ok("exec debian systemctl --failed --no-legend", &[])?
        );
        Ok(ran.out.trim() == "running")
    })
    .with_context(|| format!("{last:?}: {:?}", client.run("logs debian", &[])))?;
    client.says("systemd", "exec debian cat /proc/1/comm", &[])?;
    let service = "run --quiet --wait --pipe --property DynamicUser=yes --property PrivateTmp=yes --property PrivateUsers=yes id -u";
    let uid = client.ok(&format!("exec debian systemd-{service}"), &[])?;
    ensure!(
        uid.parse::<u32>().is_ok_and(|uid| uid > 60_000),
        "a dynamic user is {uid}"
    );
    Ok(())
}

fn docker_inside(client: &Client) -> Result<()> {
    let sh = |script: &str| client.ok("exec debian", &["sh", "-ec", script]);
    sh(
        "mount --bind /mnt/usr /usr; systemd-run --quiet --unit inner dockerd --bridge none --iptables=false --ip6tables=false --ip-forward=false",
    )?;
    client.comes_to_say("overlay2", "exec debian docker info --format {{.Driver}}", &[])?;
    sh("docker load --quiet --input /srv/image.tar")?;
    let hello =
        "docker run --rm --network none localhost/busybox sh -c 'echo hello from $(cat /proc/1/comm)'";
    let said = sh(hello)?;
    ensure!(said == "hello from sh", "{said}");
    Ok(())
}
