//! VPSs of one image are not the same machine.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};

use super::house::{House, eventually};
use crate::harness;
use crate::image::Tar;

tests![copies_of_a_system_are_machines_of_their_own];

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A system that has run elsewhere before: its id, its keys, a fake dropbear, and an init that tells how it was started.
fn system() -> Result<Vec<u8>> {
    let mut tar = Tar::new().dir("./", 0o755);
    for dir in [
        "bin",
        "dev",
        "etc",
        "etc/ssh",
        "etc/dropbear",
        "proc",
        "root",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr/bin",
    ] {
        tar = tar.dir(&format!("{dir}/"), 0o755);
    }
    for (path, text) in [
        ("etc/machine-id", ID),
        ("var/lib/dbus/machine-id", ID),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/ssh/sshd_config", "Port 22\n"),
        ("etc/ssh/ssh_host_ed25519_key", "the image's"),
        ("etc/ssh/ssh_host_ed25519_key.pub", "the image's"),
        ("etc/ssh/ssh_host_dsa_key", "the image's"),
        ("etc/ssh/ssh_host_rsa_key", "the image's"),
        ("etc/dropbear/dropbear_rsa_host_key", "the image's"),
    ] {
        tar = tar.file(path, 0o600, text.as_bytes());
    }
    let dropbearkey =
        "#!/bin/sh\n[ \"$1 $2 $3\" = '-t rsa -f' ] && busybox cat /proc/sys/kernel/random/uuid > \"$4\"\n";
    let init = "#!/bin/sh\necho \"init is $$ with $# and $SHLVL\"\nwhile :; do busybox sleep 60; done\n";
    let tar = tar
        .file("bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)
        .entry(b'2', "bin/sh", "busybox", b"")
        .file("usr/bin/dropbearkey", 0o755, dropbearkey.as_bytes())
        .file("sbin/init", 0o755, init.as_bytes());
    let keygen = harness::with_libraries(&["/usr/bin/ssh-keygen"])?;
    Ok(tar.executables(&keygen).end())
}

fn copies_of_a_system_are_machines_of_their_own() -> Result<()> {
    let mut house = House::new()?;
    harness::need("program:ssh-keygen");
    let archive = harness::tempdir().join("system.tar");
    std::fs::write(&archive, system()?)?;
    let archive = archive.display();
    house.ok(&format!(
        "image import {archive} --name system --init /sbin/init --stop-signal KILL"
    ))?;
    house.settle_in();
    let files = [
        "machine-id",
        "ssh/ssh_host_ed25519_key",
        "ssh/ssh_host_ed25519_key.pub",
        "dropbear/dropbear_rsa_host_key",
    ];
    let mut seen = BTreeSet::new();
    for name in ["a", "b"] {
        house.ok(&format!("create {name} --image system --start"))?;
        eventually("its init begins", || {
            Ok(house
                .ok(&format!("logs {name}"))?
                .contains("init is 1 with 0 and"))
        })?;
        for file in files {
            let text = house.sh(name, &format!("busybox cat /etc/{file}"))?;
            ensure!(
                !text.is_empty() && !text.contains("image") && text != ID,
                "{name}: {file}: {text}"
            );
            ensure!(seen.insert(text), "{name}: {file} is the other's");
        }
        let check = "cd /etc/ssh && ssh-keygen -y -f ssh_host_ed25519_key | busybox cut -d' ' -f1,2 > /tmp/a && busybox cut -d' ' -f1,2 \
                     ssh_host_ed25519_key.pub | busybox cmp - /tmp/a; busybox ls /etc/ssh; \
                     busybox stat -c %a ssh_host_ed25519_key; busybox cmp /etc/machine-id /var/lib/dbus/machine-id";
        let said = house.sh(name, &format!("PATH=/usr/bin:/bin; {check}"))?;
        ensure!(
            !said.contains("differ") && !said.contains("dsa") && said.contains("sshd_config"),
            "{said}"
        );
        ensure!(said.contains("\n600"), "{said}");
    }
    // What takes long comes when the system is up.
    let rsa = "busybox cat /etc/ssh/ssh_host_rsa_key";
    ensure!(!house.try_sh("a", rsa)?.status.success());
    eventually("there is a key for RSA as well", || {
        Ok(house.try_sh("a", &format!("{rsa}.pub"))?.status.success())
    })?;
    ensure!(house.sh("a", rsa)?.contains("BEGIN OPENSSH PRIVATE KEY"));
    // From now on they are its tenant's, whatever becomes of them.
    let key = house.sh(
        "a",
        "busybox cat /etc/ssh/ssh_host_ed25519_key; busybox rm /etc/dropbear/*key",
    )?;
    house.ok("stop a")?;
    house.ok("start a")?;
    house.ok("stop a")?;
    house.ok("start a")?;
    ensure!(house.sh("a", "busybox cat /etc/ssh/ssh_host_ed25519_key")? == key);
    let id = house.sh("a", "busybox cat /etc/machine-id")?;
    ensure!(seen.contains(&id), "another machine id at another start");
    let image = house.root.join("lib/images/system/rootfs/etc/machine-id");
    ensure!(
        std::fs::read_to_string(Path::new(&image))? == ID,
        "the image is changed"
    );
    house.leave()
}
