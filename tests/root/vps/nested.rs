//! What programs inside of a VPS need that make containers, sandboxes and mounts of their own.

use anyhow::{Result, ensure};

use super::house::House;
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
    let archive = crate::harness::tempdir().join("rootfs.tar");
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
    let kept = crate::harness::tempdir().join("web.condo");
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
