//! What programs inside of a VPS need that make containers, sandboxes and mounts of their own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::house::House;
use crate::harness::{self, Bundle};
use crate::image::Tar;

tests![
    sandboxes_mount_procfs_and_sysfs in guest,
    mounts_reach_namespaces_inside in guest,
    permitted_devices_open,
    nesting_has_what_engines_need in guest: 60,
    an_image_needs_as_many_ids_as_it_has_owners,
    as_many_ids_as_are_asked_for,
    devices_are_looked_at,
    engines_have_a_place_for_layers in guest: 120,
    kubelet_finds_what_the_book_says in guest,
    the_runtime_runs_two_levels_deep in guest: 60,
    a_vps_has_vpss_of_its_own in guest: 120,
    vpss_inside_need_ids,
];

fn sandboxes_mount_procfs_and_sysfs() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.sh("web", "echo user:x:1000:1000::/:/bin/sh >> /etc/passwd")?;
    // As bubblewrap and rootless containers do it, as `unshare --mount-proc`, and as `ip netns exec`.
    let sandbox = "busybox unshare -rUpf --mount-proc sh -ec";
    let network = "busybox unshare -rUmn sh -ec";
    for (user, how, script) in [
        ("0", sandbox, "test -d /proc/1 && ! test -d /proc/200"),
        ("1000", sandbox, "test -d /proc/1"),
        (
            "0",
            network,
            "mount -t sysfs sysfs /sys && test -d /sys/class/net/lo",
        ),
        (
            "1000",
            network,
            "mount -t sysfs sysfs /sys && ! test -e /sys/class/net/eth0",
        ),
        ("0", "busybox unshare -pf --mount-proc sh -ec", "test -d /proc/1"),
        (
            "0",
            "busybox unshare -mn sh -ec",
            "umount -l /sys && mount -t sysfs sysfs /sys && ! test -e /sys/class/net/eth0",
        ),
    ] {
        let mut command = house.command();
        command.args(["exec", "web", "--user", user, "--"]);
        command.args(how.split(' ')).arg(script);
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "user {user}: {how} `{script}`: {output:?}"
        );
    }
    // Engines give their containers this capability, which a root without it could not pass on.
    let bounding = house.sh("web", "sed -n 's/^CapBnd:\\s*//p' /proc/self/status")?;
    let mknod = 1_u64 << 27;
    ensure!(u64::from_str_radix(&bounding, 16)? & mknod != 0, "{bounding}");
    let made = house.try_sh("web", "mknod /root/null c 1 3")?;
    ensure!(!made.status.success(), "a device node was made");
    house.leave()
}

/// systemd hands credentials to a service by a mount that it makes after the service's namespace.
fn mounts_reach_namespaces_inside() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let script = "mkfifo /tmp/made /tmp/mounted
        busybox unshare -m --propagation slave sh -c '
            echo > /tmp/made; read x < /tmp/mounted; cat /mnt/credential' &
        read x < /tmp/made
        mount -t tmpfs tmpfs /mnt && echo secret > /mnt/credential
        echo > /tmp/mounted
        wait";
    let seen = house.sh("web", script)?;
    ensure!(seen == "secret", "`{seen}`");
    // Not outside.
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!table.contains(" /mnt "), "{table}");
    house.leave()
}

fn permitted_devices_open() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.running("vpn", "--permit tun,fuse")?;
    for device in ["/dev/net/tun", "/dev/fuse"] {
        let there = house.try_sh("web", &format!("test -e {device}"))?;
        ensure!(!there.status.success(), "{device} is in every VPS");
        house.sh("vpn", &format!("exec 3<> {device}"))?;
    }
    house.leave()
}

/// Nodes, and ids for the containers of users inside, as `subuid(5)` gives them to the first two.
fn nesting_has_what_engines_need() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--nesting")?;
    house.running("plain", "")?;
    for device in ["/dev/net/tun", "/dev/fuse"] {
        house.sh("web", &format!("exec 3<> {device}"))?;
    }
    let map = |name| house.sh(name, "cat /proc/self/uid_map /proc/self/gid_map");
    let (wide, narrow) = (map("web")?, map("plain")?);
    let span = |map: &str| -> Vec<u64> { map.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect() };
    let (wide, narrow) = (span(&wide), span(&narrow));
    ensure!(
        (wide[2], wide[5], narrow[2]) == (262_144, 262_144, 65_536),
        "{wide:?} {narrow:?}"
    );
    let apart = narrow[1] >= wide[1] + wide[2] || narrow[1] + narrow[2] <= wide[1];
    ensure!(apart, "{wide:?} {narrow:?}");
    // They are ids of files as well, and stay when the VPS is started anew.
    house.sh("web", "echo mine > /root/file && chown 231071:100000 /root/file")?;
    house.ok("restart web --timeout 20")?;
    house.up("web")?;
    ensure!(house.sh("web", "stat -c %u:%g /root/file")? == "231071:100000");
    ensure!(house.show("web")?["nesting"] == true && house.show("plain")?["nesting"] == false);
    house.leave()
}

/// An image with a file of this user.
fn system_of(owner: u64) -> Result<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox")?;
    let init = b"#!/bin/sh\nexec busybox sleep 1000000\n";
    let tar = Tar::new().dir("./", 0o755).file("bin/busybox", 0o755, &busybox);
    let tar = tar.symlink("bin/sh", "busybox").file("sbin/init", 0o755, init);
    Ok(tar.owned(b'0', ("home/ann", ""), (0o600, owner), b"hers").end())
}

/// Imports an image `many` with a file of user 150,000, having been refused one of a user that no VPS can have.
fn import_many(house: &mut House) -> Result<()> {
    let archive = harness::tempdir().join("rootfs.tar");
    let import = format!("image import {} --name many", archive.display());
    std::fs::write(&archive, system_of(903_700_503)?)?;
    let missing = "owner of `home/ann`: `903700503` does not exist in any VPS";
    house.refused(&import, missing)?;
    std::fs::write(&archive, system_of(150_000)?)?;
    let said = house.ok(&import)?;
    ensure!(said.contains("VPSs of it need --ids 196608"), "{said}");
    house.settle_in();
    Ok(())
}

/// An image with files of users that a VPS does not have is refused, with the number that is enough.
fn an_image_needs_as_many_ids_as_it_has_owners() -> Result<()> {
    let mut house = House::quick()?;
    import_many(&mut house)?;
    house.ok("create plain --image quick --start")?;
    let enough = "create a VPS with --ids 196608";
    for (line, why) in [
        ("create web --image many", enough),
        ("rebuild plain --image many --force", enough),
        ("rescue plain --image many --force", enough),
        ("create web --image many --ids 131072", "`131072` are too few"),
        (
            "create web --image many --ids 150000",
            "no multiple of 65536; the next is 196608",
        ),
        (
            "create web --image many --ids 9000000",
            "must be from 65536 to 4194304",
        ),
    ] {
        house.refused(line, why)?;
    }
    ensure!(house.status("plain")? == "running" && house.show("plain")?["ids"] == 65_536);
    house.leave()
}

/// They are there, copies have as many, and nobody has those of two.
fn as_many_ids_as_are_asked_for() -> Result<()> {
    let mut house = House::quick()?;
    import_many(&mut house)?;
    house.ok("create plain --image quick --start")?;
    house.ok("create web --image many --ids 196608 --start")?;
    house.sh(
        "web",
        "test $(stat -c %u:%g /home/ann) = 150000:150000 && rm /home/ann",
    )?;
    house.sh(
        "web",
        "echo bob:x:196607:196607::/:/bin/sh >> /etc/passwd; busybox su bob -c 'echo his > /tmp/bobs'",
    )?;
    house.ok("stop web --timeout 1")?;
    let kept = harness::tempdir().join("web.condo");
    house.ok("clone web twin")?;
    house.ok(&format!("export web --output {}", kept.display()))?;
    house.ok("delete web")?;
    house.ok(&format!("import {} --name web", kept.display()))?;
    let mut ranges = Vec::new();
    for (name, ids) in [("web", 196_608), ("twin", 196_608), ("plain", 65_536)] {
        if ids != 65_536 {
            house.ok(&format!("start {name}"))?;
            ensure!(house.sh(name, "stat -c %u /tmp/bobs")? == "196607", "{name}");
        }
        ensure!(house.show(name)?["ids"] == ids, "{name}");
        let map = house.sh(name, "cat /proc/self/uid_map")?;
        let map: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(map[0] == 0 && map[2] == ids, "{name}: {map:?}");
        ranges.push((map[1], map[1] + ids));
    }
    ranges.sort_unstable();
    ensure!(ranges.windows(2).all(|two| two[0].1 <= two[1].0), "{ranges:?}");
    house.leave()
}

/// What is passed on is what its operator named, and nothing that gives the host away.
fn devices_are_looked_at() -> Result<()> {
    let house = House::new()?;
    for (device, why) in [
        ("/dev/mem", "cannot be passed on"),
        ("/dev/tty", "cannot be passed on"),
        ("/dev/loop-control", "cannot be passed on"),
        ("/dev/stdin", "is a link"),
        ("/dev/nothing", "cannot be looked at"),
        ("/etc/passwd", "nor a path below /dev"),
        ("/dev/../etc/passwd", "nor a path below /dev"),
        ("/dev/shm", "is a place that every VPS has"),
        ("gpu", "neither fuse, kvm or tun"),
    ] {
        // A kernel without it has nothing to refuse.
        if !why.contains("passed on") || std::path::Path::new(device).exists() {
            house.refused(&format!("create web --image busybox --device {device}"), why)?;
        }
    }
    ensure!(house.list()?.is_empty());
    house.running("web", "--device tun,/dev/fuse")?;
    for device in ["/dev/net/tun", "/dev/fuse"] {
        house.sh("web", &format!("exec 3<> {device}"))?;
    }
    let shown = house.show("web")?["devices"].clone();
    ensure!(
        shown == serde_json::json!(["/dev/fuse", "/dev/net/tun"]),
        "{shown}"
    );
    house.leave()
}

/// Docker, containerd and Podman put an overlay on what they store, which an overlay cannot carry.
fn engines_have_a_place_for_layers() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for place in ["/var/lib/docker", "/var/lib/containerd", "/var/lib/containers"] {
        let script = format!(
            "cd {place} && mkdir lower upper work all && echo old > lower/file && chown 1000 lower/file &&
             mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay all &&
             rm all/file && echo new > all/new && umount all && stat -c %u:%g . upper/new lower/file"
        );
        let seen = house.sh("web", &script)?;
        ensure!(seen == "0:0\n0:0\n1000:0", "{place}: {seen}");
    }
    // It stays, and goes with the VPS.
    house.ok("restart web --timeout 20")?;
    house.up("web")?;
    ensure!(house.sh("web", "cat /var/lib/docker/upper/new")? == "new");
    // A start that fails leaves it alone.
    house.sh("web", "rm /sbin/init")?;
    house.ok("stop web --timeout 20")?;
    let start = house.output("start web")?;
    ensure!(!start.status.success(), "it starts without an init");
    let kept = house.root.join("lib/vps/web/disk/plain/docker/upper/new");
    ensure!(
        std::fs::read_to_string(&kept)? == "new\n",
        "{} is gone",
        kept.display()
    );
    house.leave()
}

/// Kernel parameters that kubelet and kube-proxy set or look at, and whether a VPS may: the rest is for kubelet's gate
/// `KubeletInUserNamespace` to pass over.
const PARAMETERS: &[(&str, bool)] = &[
    ("vm/overcommit_memory", false),
    ("vm/panic_on_oom", false),
    ("kernel/panic", false),
    ("kernel/panic_on_oops", false),
    ("kernel/keys/root_maxkeys", false),
    ("kernel/keys/root_maxbytes", false),
    ("net/netfilter/nf_conntrack_max", false),
    ("net/netfilter/nf_conntrack_tcp_timeout_established", true),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", true),
    ("net/ipv4/ip_forward", true),
    ("net/ipv4/conf/all/route_localnet", true),
    ("net/bridge/bridge-nf-call-iptables", true),
];

/// The table in docs/src/vps/inside.md.
fn kubelet_finds_what_the_book_says() -> Result<()> {
    let house = House::new()?;
    house.running("node", "--nesting")?;
    for (parameter, ours) in PARAMETERS {
        let file = format!("/proc/sys/{parameter}");
        // Some are there with a module of the host's only.
        if !std::path::Path::new(&file).exists() {
            continue;
        }
        house.sh("node", &format!("cat {file}"))?;
        let set = house.try_sh(
            "node",
            &format!("cat {file} > /tmp/value && cat /tmp/value > {file}"),
        )?;
        ensure!(set.status.success() == *ours, "{parameter}: {set:?}");
    }
    for script in [
        // The kernel's log is the host's, swap is not seen without a limit, modules are the host's.
        "! test -e /dev/kmsg",
        "test $(wc -l < /proc/swaps) = 1",
        "! test -e /lib/modules",
        // Volumes of pods: mounts that reach its containers.
        "grep -q ' / / .* shared:' /proc/self/mountinfo",
        "mkdir -p /var/lib/kubelet && mount --bind /var/lib/kubelet /var/lib/kubelet && busybox mount --make-rshared /var/lib/kubelet",
        // Pods' scores, but none that would spare them when the host has no memory left.
        "echo 1000 > /proc/self/oom_score_adj && ! echo -999 > /proc/self/oom_score_adj",
    ] {
        house.sh("node", script)?;
    }
    if harness::has("cgroup2") {
        let delegated = house.sh("node", "cat /sys/fs/cgroup/cgroup.controllers")?;
        for controller in ["cpu", "memory", "pids"] {
            ensure!(delegated.split(' ').any(|one| one == controller), "{delegated}");
        }
        let divide = "cd /sys/fs/cgroup && mkdir leaf kubepods && for pid in $(cat cgroup.procs); do echo $pid > leaf/cgroup.procs || true; done 2>/dev/null
            echo '+cpu +memory +pids' > cgroup.subtree_control && echo 33554432 > kubepods/memory.max && cat kubepods/memory.max";
        let limit = house.sh("node", divide)?;
        ensure!(limit == "33554432", "{limit}");
    }
    house.leave()
}

/// What a root needs that makes containers.
const ROOTS: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
];

/// A bundle for inside, the root of which is that user of where it runs.
fn level(args: &[&str], first: u32, size: u32) -> Result<Bundle> {
    let mut bundle = Bundle::new(args)?;
    let map = json!([{"containerID": 0, "hostID": first, "size": size}]);
    let process = &mut bundle.config["process"];
    process["capabilities"] = json!({"bounding": ROOTS, "effective": ROOTS, "permitted": ROOTS});
    process["noNewPrivileges"] = false.into();
    let linux = &mut bundle.config["linux"];
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    linux["maskedPaths"] = json!([]);
    linux["readonlyPaths"] = json!([]);
    // The runtime's own choice, below what is delegated there.
    linux["cgroupsPath"] = json!(null);
    bundle.push("/linux/namespaces", json!({"type": "user"}))?;
    Ok(bundle)
}

/// A container in a container in a VPS, each with users of its own; a VPS in a VPS is refused with the reason.
fn the_runtime_runs_two_levels_deep() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--nesting")?;
    let inner = level(
        &["sh", "-c", "echo two $(cat /proc/self/uid_map)"],
        65_536,
        65_536,
    )?;
    let outer = level(&["sh", "/start"], 65_536, 131_072)?;
    let root = outer.rootfs();
    let runtime = harness::condo_runtime();
    std::fs::copy(&runtime, root.join("bin/condo-runtime"))?;
    harness::run(Command::new("cp").arg("-a").arg(&inner.dir).arg(root.join("two")))?;
    let run = |bundle: &str| {
        format!(
            "chown -R 65536:65536 {bundle}/rootfs && condo-runtime --root /run/states run --bundle {bundle} c"
        )
    };
    std::fs::write(
        root.join("start"),
        format!("echo one $(cat /proc/self/uid_map) && {}", run("/two")),
    )?;
    house.ok(&format!("cp {} web:/root/one", outer.dir.display()))?;
    house.ok(&format!("cp {} web:/bin/condo-runtime", runtime.display()))?;
    let said = house.sh("web", &run("/root/one"))?;
    ensure!(said == "one 0 65536 131072\ntwo 0 65536 65536", "{said}");
    house.leave()
}

/// VPSs inside a VPS, and one inside of one of those: apart, with ids, addresses and limits of their own, by the right of no other root
/// than that VPS's.
fn a_vps_has_vpss_of_its_own() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--nesting")?;
    settle_condo_in(&house, "web")?;
    let sh = |script: &str| house.sh("web", script);
    sh(
        "condo image build busybox && condo create a --image busybox --start && condo create b --image busybox --start",
    )?;
    sh(&until_up("a"))?;
    sh(&until_up("b"))?;
    ensure!(sh("condo exec a -- cat /proc/self/uid_map | xargs")? == "0 65536 65536");
    ensure!(sh("condo exec b -- cat /proc/self/uid_map | xargs")? == "0 131072 65536");
    addresses_are_their_own(&house)?;
    limits_are_their_own(&house)?;
    copies_are_their_own(&house)?;
    sh("condo delete --force --all && condo create a --image busybox --ids 131072 --nesting --start")?;
    sh(&until_up("a"))?;
    sh("condo cp /bin/condo a:/bin/condo && condo cp /bin/condo-monitor a:/bin/condo-monitor")?;
    let third = "condo image build busybox && condo create x --image busybox --start && condo exec x -- cat /proc/self/uid_map";
    ensure!(sh(&format!("condo exec a -- sh -c '{third}' | tail -n 1 | xargs"))? == "0 65536 65536");
    sh("condo delete --force a")?;
    let left = "ls /run/condo-ids /sys/class/net; find /sys/fs/cgroup -name '*condo*' ! -name .condo; ls /var/lib/condo/vps";
    let left = sh(&format!("{{ {left}; }} | xargs"))?;
    ensure!(
        left == "/run/condo-ids: /sys/class/net: eth0 lo",
        "left behind: {left}"
    );
    house.leave()
}

fn until_up(name: &str) -> String {
    format!("until condo exec {name} -- test -d /run/lock; do sleep 0.1; done")
}

/// What a VPS needs to be a host of some.
fn settle_condo_in(house: &House, name: &str) -> Result<()> {
    let condo = harness::condo();
    for program in [&condo, &condo.with_file_name("condo-monitor")] {
        let file = program.file_name().context("a program")?.to_string_lossy();
        house.ok(&format!("cp {} {name}:/bin/{file}", program.display()))?;
    }
    Ok(())
}

fn addresses_are_their_own(house: &House) -> Result<()> {
    let sh = |script: &str| house.sh("web", script);
    let address = |name: &str, family: &str| -> Result<String> {
        let view: serde_json::Value = serde_json::from_str(&sh(&format!("condo show --json {name}"))?)?;
        let address = view["addresses"][0][family].as_str();
        Ok(address.context("no address")?.to_owned())
    };
    let ping = |from: &str, to: &str| {
        let family = if to.contains(':') { "-6" } else { "-4" };
        let pings = format!("condo exec {from} -- ping {family} -c1 -W2 {to}");
        Ok::<_, anyhow::Error>(house.try_sh("web", &pings)?.status.success())
    };
    let (b4, b6) = (address("b", "ipv4")?, address("b", "ipv6")?);
    for to in [&b4, &b6] {
        ensure!(!ping("a", to)?, "neighbours reach each other at {to}");
    }
    ensure!(
        ping("a", &sh("ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'")?)?,
        "no way out"
    );
    sh("condo delete --force a && condo create a --image busybox --allow b --start")?;
    sh(&until_up("a"))?;
    for to in [&b4, &b6] {
        ensure!(ping("a", to)?, "{to} is not reached");
    }
    sh("condo exec a -- ip addr add 10.255.255.7/32 dev eth0")?;
    let forged = house.try_sh(
        "web",
        &format!("condo exec a -- ping -I 10.255.255.7 -c1 -W1 {b4}"),
    )?;
    ensure!(!forged.status.success(), "a forged packet arrived");
    sh("condo exec a -- ip link set eth0 address 02:00:00:00:00:07")?;
    ensure!(!ping("a", &b4)?, "a forged frame arrived");
    sh(
        "condo publish b 8080:80 && condo exec b -- sh -c 'mkdir /w; echo hello > /w/index.html; httpd -p 80 -h /w'",
    )?;
    let page = format!("http://{}:8080/", house.address("web")?);
    let mut fetch = Command::new("busybox");
    ensure!(harness::run(fetch.args(["wget", "-qO-", &page]))?.trim() == "hello");
    Ok(())
}

fn limits_are_their_own(house: &House) -> Result<()> {
    let sh = |script: &str| house.sh("web", script);
    let refused = |line: &str, why: &str| -> Result<()> {
        let output = house.try_sh("web", line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(why), "{line}: {said}");
        Ok(())
    };
    refused(
        "condo create c --image busybox --disk 64M",
        "the disk of that one",
    )?;
    refused("condo export b --output /tmp/b", "a copy of its image")?;
    if !harness::has("cgroup2") {
        return refused("condo resize b --memory 64M", "`memory` cgroup controller");
    }
    sh("condo resize b --memory 64M --pids 50 --cpus 0.5")?;
    // By its file. The system call is answered for the VPS that it is in: a process has one who answers.
    let total = sh("condo exec b -- grep MemTotal /proc/meminfo | tr -dc 0-9")?;
    ensure!(total == "65536", "{total}");
    let hog = house.try_sh(
        "web",
        "condo exec b -- dd if=/dev/zero of=/dev/null bs=100M count=1",
    )?;
    ensure!(!hog.status.success(), "more than its memory was had");
    Ok(())
}

fn copies_are_their_own(house: &House) -> Result<()> {
    let sh = |script: &str| house.sh("web", script);
    sh("condo exec b -- sh -c 'echo kept > /kept; chown 5:7 /kept' && condo snapshot create b before")?;
    sh("condo exec b -- rm /kept && condo stop --timeout 0 b && condo snapshot restore b before")?;
    sh("condo clone b c && condo start b && condo start c")?;
    for name in ["b", "c"] {
        let kept = sh(&format!("condo exec {name} -- stat -c %u:%g /kept"))?;
        ensure!(kept == "5:7", "{name}: {kept}");
    }
    let maps =
        sh("for name in a b c; do condo exec $name -- cat /proc/self/uid_map; done | sort -u | wc -l")?;
    ensure!(maps == "3", "{maps} ranges for three VPSs");
    Ok(())
}

/// A VPS has as many ids as it was given, and by default none to give away.
fn vpss_inside_need_ids() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    settle_condo_in(&house, "web")?;
    let refused = house.try_sh(
        "web",
        "condo image build busybox && condo create x --image busybox",
    )?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && why.contains("no user ids beyond its own"),
        "{refused:?}"
    );
    house.leave()
}
