//! Snapshots, clones: a VPS's disk in time and space.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::house::House;

tests![
    a_snapshot_brings_everything_back: 120,
    a_snapshot_costs_what_has_changed,
    snapshots_rotate,
    copies_refuse,
    a_clone_is_a_machine_of_its_own: 120,
];

/// What a tenant can have: links of both kinds, a pipe, a socket, holes, attributes, a capability, odd modes and times, something of
/// the image removed, a directory of the image replaced and one renamed.
pub(super) const FURNISH: &str = "
    set -e
    mkdir -p /srv/deep/er; cd /srv
    echo one > file; ln file deep/same; ln -s /nowhere link; mkfifo pipe; chmod 4711 file
    touch -d '2001-02-03 04:05:06' deep/er; chown 1000:2000 deep
    dd if=/dev/zero of=hole bs=1 count=1 seek=100000000 2>/dev/null
    rm /etc/group; rm -r /var/www; mkdir /var/www; mv /var/spool /var/moved
    sync";

/// What of it can be told from inside.
pub(super) const INVENTORY: &str = "
    cd /srv; stat -c '%n %a %u:%g %s %Y %h %F' file deep deep/same deep/er link pipe hole
    readlink link; cat file; du -k hole | cut -f1; ls /var/www /var/moved; ls /etc/group /var/spool 2>&1; true";

fn snapshots(house: &House, name: &str) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(
        &house.ok(&format!("snapshot list {name} --json"))?,
    )?)
}

fn layer(house: &House, vps: &str, snapshot: &str) -> PathBuf {
    house
        .root
        .join("lib/vps")
        .join(vps)
        .join("snapshots")
        .join(snapshot)
        .join("layer/upper")
}

fn a_snapshot_brings_everything_back() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.sh("web", FURNISH)?;
    let before = house.sh("web", INVENTORY)?;
    let said = house.ok("snapshot create web first")?;
    ensure!(
        said.contains("first taken") && said.contains("frozen for"),
        "{said}"
    );
    ensure!(house.status("web")? == "running");
    let address = house.address("web")?;
    house.sh("web", "echo two > /srv/file; rm /srv/link; echo new > /srv/new; echo x > /etc/group; mkdir /var/spool; sync")?;
    let diff = house.ok("snapshot diff web first")?;
    for line in [
        "C /srv/file",
        "C /srv/deep/same",
        "R /srv/link",
        "A /srv/new",
        "A /etc/group",
        "A /var/spool",
    ] {
        ensure!(diff.lines().any(|l| l == line), "no `{line}`:\n{diff}");
    }
    ensure!(
        !diff.contains("/srv/hole") && !diff.contains("/srv/pipe"),
        "{diff}"
    );
    house.refused("snapshot restore web first", "stop it first")?;
    house.ok("snapshot restore web first --force")?;
    house.up("web")?;
    let after = house.sh("web", INVENTORY)?;
    ensure!(before == after, "\n{before}\n---\n{after}");
    ensure!(house.address("web")? == address);
    let left = house.ok("snapshot diff web first")?;
    ensure!(!left.contains("/srv/"), "{left}");
    house.ok("snapshot create web second")?;
    let between: Value = serde_json::from_str(&house.ok("snapshot diff web first second --json")?)?;
    let paths: Vec<_> = between
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|c| c["path"].as_str())
        .collect();
    ensure!(!paths.iter().any(|path| path.starts_with("/srv")), "{paths:?}");
    ensure!(snapshots(&house, "web")?.len() == 2);
    house.ok("snapshot delete web first second")?;
    ensure!(!house.root.join("lib/vps/web/snapshots").exists());
    house.leave()
}

/// Unchanged files are shared with the snapshot before, also after a restore.
fn a_snapshot_costs_what_has_changed() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    house.sh(
        "web",
        "dd if=/dev/urandom of=/root/big bs=1M count=8 2>/dev/null; sync; sleep 0.3",
    )?;
    house.ok("snapshot create web a")?;
    house.sh("web", "echo small > /root/small; sync")?;
    house.ok("snapshot create web b")?;
    let inode = |snapshot: &str| -> Result<u64> {
        Ok(layer(&house, "web", snapshot).join("root/big").metadata()?.ino())
    };
    ensure!(inode("a")? == inode("b")?, "copied again");
    let list = snapshots(&house, "web")?;
    ensure!(
        list[1]["bytes"].as_u64().context("no size")? < 1 << 20,
        "{list:?}"
    );
    ensure!(list[0]["frozen_ms"].as_f64().is_some());
    let living = house.root.join("lib/vps/web/disk/upper/root/big");
    let (ino, ctime) = {
        let m = living.metadata()?;
        (m.ino(), (m.ctime(), m.ctime_nsec()))
    };
    house.ok("stop web")?;
    house.ok("snapshot restore web a")?;
    let m = living.metadata()?;
    ensure!(
        (m.ino(), (m.ctime(), m.ctime_nsec())) == (ino, ctime),
        "brought back although unchanged"
    );
    ensure!(!house.root.join("lib/vps/web/disk/upper/root/small").exists());
    house.ok("snapshot delete web a")?;
    ensure!(std::fs::read(living)? == std::fs::read(layer(&house, "web", "b").join("root/big"))?);
    ensure!(snapshots(&house, "web")?[0]["name"] == "b");
    house.leave()
}

fn snapshots_rotate() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    house.ok("create db --image busybox")?;
    house.ok("snapshot create web kept")?;
    for name in ["a", "b", "c"] {
        house.ok(&format!("snapshot create web {name} --keep 2"))?;
    }
    let names = |vps: &str| -> Result<Vec<String>> {
        Ok(snapshots(&house, vps)?
            .iter()
            .filter_map(|s| s["name"].as_str().map(Into::into))
            .collect())
    };
    let mut left = names("web")?;
    left.sort();
    ensure!(left == ["b", "c", "kept"], "{left:?}");
    house.ok("snapshot create --all --keep 1")?;
    // The one of a moment ago counts.
    ensure!(house.ok("snapshot create --due")?.is_empty());
    house.refused("set web --schedule often", "--schedule")?;
    house.ok("create late --image busybox --schedule hourly,2")?;
    ensure!(house.show("late")?["schedule"] == "hourly,2");
    ensure!(house.ok("snapshot create --due")?.starts_with("late: snapshot "));
    house.ok("set late --schedule none")?;
    house.ok("delete late")?;
    ensure!(
        names("web")?.len() == 2 && names("db")?.len() == 1,
        "{:?}",
        names("web")?
    );
    let show: Value = serde_json::from_str(&house.ok("snapshot show web kept --json")?)?;
    ensure!(
        show["frozen_ms"] == Value::Null && show["config"]["image"] == "busybox",
        "{show}"
    );
    // A layer stands on its image, also that of a snapshot.
    house.refused("image remove busybox", "in use")?;
    house.leave()
}

fn copies_refuse() -> Result<()> {
    let house = House::new()?;
    house.ok("create web --image busybox")?;
    house.ok("snapshot create web one")?;
    house.refused("snapshot create web one", "already exists")?;
    house.refused("snapshot create web ../x", "SNAPSHOT")?;
    house.refused("snapshot create nobody one", "does not exist")?;
    house.refused("snapshot list nobody", "does not exist")?;
    house.refused("snapshot restore web none", "snapshot `none` does not exist")?;
    house.refused("snapshot delete web none", "does not exist")?;
    house.refused("snapshot diff web one none", "does not exist")?;
    house.refused("snapshot create web two --keep 0", "--keep")?;
    house.refused("clone web web", "already exists")?;
    house.refused("clone nobody new", "does not exist")?;
    house.refused("clone web new --snapshot none", "does not exist")?;
    ensure!(house.list()?.len() == 1, "something was left");
    ensure!(!house.root.join("lib/vps/nobody").exists());
    house.leave()
}

fn a_clone_is_a_machine_of_its_own() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.sh("web", FURNISH)?;
    house.sh(
        "web",
        "echo 0123456789abcdef0123456789abcdef > /etc/machine-id; sync",
    )?;
    let inventory = house.sh("web", INVENTORY)?;
    house.ok("snapshot create web then")?;
    house.sh("web", "echo later > /srv/later; sync")?;
    house.ok("clone web now")?;
    house.ok("clone web old --snapshot then")?;
    house.ok("start now old")?;
    for (name, later) in [("now", "yes"), ("old", "no")] {
        house.up(name)?;
        ensure!(house.sh(name, INVENTORY)? == inventory, "{name}");
        let has = house.sh(name, "test -e /srv/later && echo yes || echo no")?;
        ensure!(has == later, "{name}: {has}");
        ensure!(house.sh(name, "cat /etc/hostname")? == name);
        ensure!(house.sh(name, "cat /etc/machine-id")? != "0123456789abcdef0123456789abcdef");
        ensure!(house.address(name)? != house.address("web")?);
        ensure!(house.show(name)?["limits"]["memory"] == 64 << 20);
    }
    ensure!(only_directories(&house.root.join("lib/vps/web/snapshots"))? == ["then"]);
    house.leave()
}

fn only_directories(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
