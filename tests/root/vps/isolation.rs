//! What a VPS cannot see and cannot do.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::house::House;

tests![
    each_has_uids_of_its_own,
    neighbours_are_invisible,
    limits_cannot_be_changed_inside in guest,
    the_hosts_kernel_cannot_be_set,
    nothing_of_the_host_is_open,
    the_image_stays: 120,
    the_mount_table_of_the_host_stays,
];

fn uid(pid: i32) -> Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:"))
        .context("no Uid")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

fn each_has_uids_of_its_own() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    house.running("b", "")?;
    let (a, b) = (uid(house.init("a")?)?, uid(house.init("b")?)?);
    ensure!(
        a >= 1_000_000_000 && b >= 1_000_000_000 && a.abs_diff(b) >= 65_536,
        "{a} {b}"
    );
    for (name, base) in [("a", a), ("b", b)] {
        let map = house.sh(name, "cat /proc/self/uid_map /proc/self/gid_map")?;
        let wanted = ["0".to_owned(), base.to_string(), "65536".to_owned()];
        ensure!(
            map.lines().count() == 2 && map.lines().all(|l| l.split_whitespace().eq(wanted.iter())),
            "{map}"
        );
    }
    house.sh("a", "echo x > /root/file")?;
    ensure!(house.sh("a", "stat -c %u:%g /root/file /etc/passwd")? == "0:0\n0:0");
    house.leave()
}

fn neighbours_are_invisible() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    house.running("b", "")?;
    house.sh("a", "echo secret > /root/secret; echo shared > /tmp/secret; echo deep > /run/secret; sleep 98765 >/dev/null 2>&1 &")?;
    ensure!(house.sh("a", "ps")?.contains("98765"));
    ensure!(!house.sh("b", "ps; ls /root /tmp /run")?.contains("98765"));
    ensure!(
        house
            .sh("b", "find / -name secret 2>/dev/null || true")?
            .is_empty()
    );
    // init, the console's shell script and what we ask with: nobody else.
    let seen: usize = house.sh("b", "ls -d /proc/[0-9]* | wc -l")?.parse()?;
    ensure!(seen < 10, "{seen} processes are seen");
    ensure!(house.sh("b", "ip -o link | grep -c .")? == "2", "lo and eth0");
    house.leave()
}

fn limits_cannot_be_changed_inside() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M --pids 100 --cpus 0.5")?;
    let script = "cd /sys/fs/cgroup || exit 1
        for file in *.max *.high *.weight cpuset.* cgroup.freeze cgroup.max.*; do
            [ -e $file ] || continue
            value=$(cat $file) || continue
            if (echo max > $file || echo $value > $file) 2>/dev/null; then echo $file; fi
        done";
    ensure!(
        house.sh("web", script)?.is_empty(),
        "written: {}",
        house.sh("web", script)?
    );
    // The tree above its own, and the tree as a whole, are out of reach.
    for kind in ["cgroup -o memory", "cgroup -o pids", "cgroup -o cpu"] {
        let output = house.try_sh(
            "web",
            &format!("mount -t {kind} none /mnt && echo 1000 > /mnt/pids.max"),
        )?;
        ensure!(!output.status.success(), "{kind}: {output:?}");
    }
    let stats = house.cgroup("web")?.stats()?;
    ensure!(stats.pids.context("no pids")?.limit == Some(100));
    ensure!(stats.memory.context("no memory")?.limit == Some(64 << 20));
    house.leave()
}

fn the_hosts_kernel_cannot_be_set() -> Result<()> {
    let house = House::new()?;
    let core = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    house.running("web", "")?;
    for file in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/panic",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/file-max",
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj",
    ] {
        let value = if file.ends_with("adj") { "-1000" } else { "1" };
        let output = house.try_sh("web", &format!("echo {value} > {file}"))?;
        ensure!(!output.status.success(), "{file} was written");
    }
    for (what, script) in [
        ("a disk", "mknod /root/disk b 8 0"),
        ("memory", "cat /dev/mem /dev/kmem"),
        // busybox says that it failed, but its status does not.
        ("the clock", "! date -s 2001-01-01 2>&1 | grep \"can't set\""),
        ("the kernel's log", "dmesg -c"),
        ("modules", "modprobe dummy || insmod /nothing.ko"),
    ] {
        ensure!(
            !house.try_sh("web", script)?.status.success(),
            "{what} can be reached"
        );
    }
    ensure!(std::fs::read_to_string("/proc/sys/kernel/core_pattern")? == core);
    // Its own network is its own.
    ensure!(
        house.sh(
            "web",
            "echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward"
        )? == "1"
    );
    house.leave()
}

fn nothing_of_the_host_is_open() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for pid in [house.init("web")?] {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let target = std::fs::read_link(entry.path())?;
            ensure!(target.starts_with("/dev/"), "init has {} open", target.display());
        }
    }
    let own = house.sh("web", "ls -l /proc/self/fd | sed -n 's/.* -> //p'")?;
    for target in own.lines() {
        let fine = ["pipe:", "/dev/null", "/proc/"]
            .iter()
            .any(|p| target.starts_with(p));
        ensure!(fine, "an exec has `{target}` open");
    }
    house.leave()
}

/// Every file with what would show a write.
fn picture(dir: &Path) -> Result<BTreeMap<PathBuf, (u32, u64, i64, i64)>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let m = path.symlink_metadata()?;
            if m.is_dir() {
                dirs.push(path.clone());
            }
            all.insert(path, (m.mode(), m.size(), m.mtime(), m.ctime()));
        }
    }
    Ok(all)
}

fn the_image_stays() -> Result<()> {
    let house = House::new()?;
    let image = house.root.join("lib/images/busybox");
    let before = picture(&image)?;
    house.running("web", "")?;
    house.sh(
        "web",
        "echo x >> /etc/passwd; rm -r /etc/init.d; chmod 700 /bin; chown 33 /etc/profile; mv /home /house",
    )?;
    house.ok("stop web --timeout 20")?;
    house.running("db", "")?;
    ensure!(house.sh("db", "ls -d /home /etc/init.d")?.lines().count() == 2);
    ensure!(!house.sh("db", "cat /etc/passwd")?.contains("\nx"));
    house.ok("delete --force --all")?;
    ensure!(picture(&image)? == before);
    house.leave()
}

fn the_mount_table_of_the_host_stays() -> Result<()> {
    let table = || std::fs::read_to_string("/proc/self/mountinfo");
    let house = House::new()?;
    let before = table()?;
    house.running("web", "")?;
    ensure!(table()? == before, "mounts of the VPS show on the host");
    house.ok("delete --force web")?;
    ensure!(table()? == before);
    house.leave()
}
