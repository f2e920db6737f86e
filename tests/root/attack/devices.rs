//! Files of the host that a VPS could share with it: device nodes, what covers masked files, cgroups.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::vps::house::House;

tests![
    device_nodes_are_nobody_elses in guest,
    boot_parameters_of_the_host_are_hidden,
    no_other_hierarchy_takes_cgroups,
];

/// The inodes of a folder's device nodes.
fn inodes(dir: &Path) -> Result<BTreeSet<(u64, u64)>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        // Links lead elsewhere when the host follows them.
        if let Ok(m) = entry?.metadata()
            && m.file_type().is_char_device()
        {
            found.insert((m.dev(), m.ino()));
        }
    }
    Ok(found)
}

fn device_nodes_are_nobody_elses() -> Result<()> {
    let house = House::new()?;
    house.running("a", "")?;
    house.running("b", "")?;
    let mut others = inodes(Path::new("/dev"))?;
    let root = |name| Ok::<_, anyhow::Error>(PathBuf::from(format!("/proc/{}/root", house.init(name)?)));
    let (a, b) = (root("a")?, root("b")?);
    for root in [&a, &b] {
        let mut own = inodes(&root.join("dev"))?;
        ensure!(own.len() >= 6, "{own:?}");
        // Masked files are covered by a node.
        own.extend(inodes(&root.join("proc"))?);
        ensure!(
            own.is_disjoint(&others),
            "{} shares {:?}",
            root.display(),
            own.intersection(&others)
        );
        others.extend(own);
    }
    // A lock that a tenant takes is its own affair.
    let lock = |root: &Path| -> Result<_> {
        let null = std::fs::File::open(root.join("dev/null"))?;
        Ok(Flock::lock(null, FlockArg::LockExclusiveNonblock))
    };
    let held = lock(&a)?;
    ensure!(held.is_ok() && lock(&a)?.is_err(), "no lock");
    ensure!(
        lock(&b)?.is_ok() && lock(Path::new("/"))?.is_ok(),
        "others wait for the lock"
    );
    // They work, and belong to the VPS's root.
    let used = "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && stat -c %u:%g:%a /dev/null /dev/tty";
    ensure!(
        house.sh("b", used)? == "4\n0:0:666\n0:0:666",
        "{}",
        house.sh("b", used)?
    );
    house.leave()
}

fn boot_parameters_of_the_host_are_hidden() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    for file in ["cmdline", "bootconfig", "iomem", "ioports", "interrupts"] {
        let script = format!("[ ! -e /proc/{file} ] || cat /proc/{file}");
        let seen = house.sh("web", &script)?;
        ensure!(seen.is_empty(), "/proc/{file}: {seen}");
    }
    for dir in ["/sys/kernel/boot_params", "/sys/firmware"] {
        let seen = house.sh("web", &format!("[ ! -e {dir} ] || ls {dir}"))?;
        ensure!(seen.is_empty(), "{dir}: {seen}");
    }
    // Nor does an ordinary user get at the ones that nothing covers.
    let output = house.output("exec web --user 1000 -- cat /dev/.condo/proc/cmdline")?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    house.leave()
}

fn no_other_hierarchy_takes_cgroups() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    for line in own.lines() {
        let controllers = line.split(':').nth(1).context("no hierarchy")?;
        if controllers.is_empty() {
            continue;
        }
        let option = if controllers.starts_with("name=") {
            format!("none,{controllers}")
        } else {
            controllers.to_owned()
        };
        let script = format!("mount -t cgroup -o {option} none /mnt && mkdir /mnt/more");
        let output = house.try_sh("web", &script)?;
        ensure!(!output.status.success(), "{option} takes cgroups without a bound");
        house.sh("web", "! mountpoint -q /mnt || umount /mnt")?;
    }
    // Its own is bounded.
    let script = "cd /sys/fs/cgroup && n=0; while mkdir more-$n 2>/dev/null; do n=$((n + 1)); [ $n -lt 5000 ] || break; done; echo $n";
    let made: u32 = house.sh("web", script)?.parse()?;
    ensure!((500..=1024).contains(&made), "{made} cgroups");
    house.leave()
}
