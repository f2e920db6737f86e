//! Fields of `linux.resources` for which it takes more than a cgroup to see that they hold: two that compete, a device, huge
//! pages, a hierarchy that few machines mount.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use condo::cgroups::Cgroup;
use condo::host::{CgroupLayout, Hierarchy};
use nix::mount::{MsFlags, mount, umount};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::{MIB, Tree, cpu_used, eventually, exit_status, file_of, fill, spawn, spin};
use crate::harness;

tests![
    shares_divide_a_processor in guest,
    an_idle_one_yields in guest,
    swappiness_is_its_own_without_cgroup2,
    without_the_killer_processes_wait: 120,
    a_weight_is_taken in guest,
    a_device_has_its_weight_by_scheduler in guest,
    a_device_has_its_weight_by_cost in guest,
    huge_pages_run_out in guest,
    packets_have_class_and_priority in guest,
];

/// Whether the second of two on one processor gets less than half of what the first does.
fn outweighs(first: &str, second: &str) -> Result<()> {
    let tree = Tree::new()?;
    let make = |name: &str, cpu: &str| -> Result<Cgroup> {
        let cgroup = Cgroup::create(&tree.layout, &format!("{}/{name}", tree.top))?;
        cgroup.apply(&tree.limits(&format!(r#"{{"cpu":{{"cpus":"0",{cpu}}}}}"#))?)?;
        Ok(cgroup)
    };
    let (first, second) = (make("first", first)?, make("second", second)?);
    spawn(&second, spin)?;
    eventually("the second runs", || Ok(cpu_used(&second)? > 10_000))?;
    spawn(&first, spin)?;
    let before = cpu_used(&second)?;
    eventually("the first runs", || Ok(cpu_used(&first)? > 500_000))?;
    let after = cpu_used(&second)?;
    let first = cpu_used(&first)?;
    ensure!(after - before < first / 2, "{first} beside {before} to {after}");
    Ok(())
}

fn shares_divide_a_processor() -> Result<()> {
    needs!(root);
    outweighs(r#""shares":10240"#, r#""shares":128"#)
}

fn an_idle_one_yields() -> Result<()> {
    needs!(root);
    outweighs(r#""idle":0"#, r#""idle":1"#)
}

fn swappiness_is_its_own_without_cgroup2() -> Result<()> {
    needs!(root, hybrid);
    let tree = Tree::on_v1()?;
    let cgroup = tree.limited(r#"{"memory":{"swappiness":17}}"#)?;
    ensure!(file_of(&cgroup, "memory.swappiness")? == "17");
    Ok(())
}

fn without_the_killer_processes_wait() -> Result<()> {
    needs!(root, hybrid);
    let tree = Tree::on_v1()?;
    let cgroup = tree.limited(r#"{"memory":{"limit":33554432,"swap":33554432,"disableOOMKiller":true}}"#)?;
    let child = spawn(&cgroup, || i32::from(fill(256 * MIB).is_empty()))?;
    eventually("memory runs out", || {
        Ok(file_of(&cgroup, "memory.oom_control")?.contains("under_oom 1"))
    })?;
    ensure!(cgroup.oom_kills()? == 0 && cgroup.pids()? == [child.as_raw()]);
    Ok(())
}

/// What the kernel says about weights, wherever it keeps them: BFQ's, and io.cost's.
fn weights(cgroup: &Cgroup, files: &[&str]) -> Vec<String> {
    files
        .iter()
        .filter_map(|file| file_of(cgroup, file).ok())
        .collect()
}

fn a_weight_is_taken() -> Result<()> {
    needs!(root);
    const FILES: &[&str] = &["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"];
    let tree = Tree::new()?;
    let cgroup = tree.create()?;
    if weights(&cgroup, FILES).is_empty() {
        drop(tree);
        harness::need("weights-of-devices");
    }
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"blockIO":{"weight":500}}"#)?;
    for found in weights(&cgroup, FILES) {
        let value = found.lines().next().unwrap_or_default();
        ensure!(["500", "default 500", "default 4950"].contains(&value), "{found}");
    }
    Ok(())
}

/// A disk of this test: a file behind a loop device.
struct Disk(PathBuf);

impl Disk {
    fn new() -> Result<Self> {
        harness::need("losetup");
        let file = harness::tempdir().join("disk");
        std::fs::File::create(&file)?.set_len(MIB as u64)?;
        let said = harness::run(Command::new("losetup").args(["--find", "--show"]).arg(&file))?;
        Ok(Self(said.trim().into()))
    }

    /// As cgroup files name it.
    fn number(&self) -> Result<(u64, u64)> {
        let device = std::fs::metadata(&self.0)?.rdev();
        Ok((nix::sys::stat::major(device), nix::sys::stat::minor(device)))
    }

    fn set_scheduler(&self, name: &str) -> Result<()> {
        let device = self.0.file_name().context("a device has a name")?;
        let file = Path::new("/sys/block").join(device).join("queue/scheduler");
        Ok(std::fs::write(file, name)?)
    }

    /// Gives it a weight of 300 in a cgroup, which one of the files must then have as this one.
    fn weigh(&self, files: &[&str], weight: u32) -> Result<()> {
        let (major, minor) = self.number()?;
        let tree = Tree::new()?;
        let cgroup = tree.limited(&format!(
            r#"{{"blockIO":{{"weightDevice":[{{"major":{major},"minor":{minor},"weight":300}}]}}}}"#
        ))?;
        let found = weights(&cgroup, files);
        let line = format!("{major}:{minor} {weight}");
        ensure!(
            found.iter().any(|text| text.lines().any(|l| l == line)),
            "no `{line}` in {found:?}"
        );
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.set_scheduler("none");
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn a_device_has_its_weight_by_scheduler() -> Result<()> {
    needs!(root);
    let disk = Disk::new()?;
    // The kernel loads its module when it is asked for it.
    if disk.set_scheduler("bfq").is_err() {
        drop(disk);
        harness::need("bfq");
        return Ok(());
    }
    disk.weigh(&["blkio.bfq.weight_device", "io.bfq.weight"], 300)
}

fn a_device_has_its_weight_by_cost() -> Result<()> {
    needs!(root, cgroup2);
    let disk = Disk::new()?;
    let (major, minor) = disk.number()?;
    let switch = |on: u8| {
        std::fs::write(
            "/sys/fs/cgroup/io.cost.qos",
            format!("{major}:{minor} enable={on}"),
        )
    };
    if switch(1).is_err() {
        drop(disk);
        harness::need("io.cost");
        return Ok(());
    }
    let weighed = disk.weigh(&["io.weight"], 2930);
    switch(0)?;
    weighed
}

/// Two huge pages more than the machine had.
struct HugePages(String);

impl HugePages {
    const FILE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn reserve() -> Result<Self> {
        let pages = Self(std::fs::read_to_string(Self::FILE)?);
        let wanted = (pages.0.trim().parse::<u32>()? + 2).to_string();
        std::fs::write(Self::FILE, &wanted)?;
        if std::fs::read_to_string(Self::FILE)?.trim() != wanted {
            drop(pages);
            harness::need("memory-for-huge-pages");
            anyhow::bail!("no huge pages");
        }
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::FILE, &self.0);
    }
}

fn huge_pages_run_out() -> Result<()> {
    needs!(root, cgroup2);
    let _pages = HugePages::reserve()?;
    let tree = Tree::new()?;
    let cgroup = tree.limited(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#)?;
    let page = 2 * MIB as u64;
    let child = spawn(&cgroup, || {
        let Ok(file) = memfd_create("huge", MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) else {
            return 98;
        };
        let take = |n| fallocate(&file, FallocateFlags::empty(), n * page, page).is_ok();
        i32::from(take(0)) + 2 * i32::from(take(1))
    })?;
    let taken = exit_status(child)?;
    ensure!(taken == 1, "one of two is allowed, not {taken:#b}");
    Ok(())
}

/// A hierarchy of v1, mounted in this test's own mount namespace.
struct OwnHierarchy {
    of: Hierarchy,
    /// The machine had it before.
    stays: bool,
}

impl OwnHierarchy {
    fn new(controllers: &str) -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let of = Hierarchy {
            controllers: controllers.split(',').map(Into::into).collect(),
            mount: harness::tempdir(),
        };
        let mut own = Self { of, stays: false };
        own.stays = !own.is_gone();
        if own.mount().is_err() {
            harness::need(controllers);
        }
        Ok(own)
    }

    fn mount(&self) -> nix::Result<()> {
        let options = self.of.mount_options();
        let kind = Some("cgroup");
        mount(
            kind,
            &self.of.mount,
            kind,
            MsFlags::empty(),
            Some(options.as_str()),
        )
    }

    /// Whether the kernel has no such hierarchy.
    fn is_gone(&self) -> bool {
        let all = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        !all.contains(&format!(":{}:", self.of.mount_options()))
    }
}

impl Drop for OwnHierarchy {
    /// The kernel keeps a hierarchy whose last mount goes while removed cgroups are still on their way out of it, for ever.
    fn drop(&mut self) {
        let _ = umount(&self.of.mount);
        let gone = eventually("the hierarchy goes", || {
            std::thread::sleep(Duration::from_millis(100));
            let gone = self.stays || self.is_gone();
            if !gone {
                self.mount()?;
                umount(&self.of.mount)?;
            }
            Ok(gone)
        });
        if let Err(e) = gone {
            eprintln!("left behind: {e}");
        }
    }
}

fn packets_have_class_and_priority() -> Result<()> {
    // A machine with v1 may have it for itself, and keep one that does not go: containerd then loses OOM events.
    needs!(root, cgroup2);
    let own = OwnHierarchy::new("net_cls,net_prio")?;
    let tree = Tree::on(CgroupLayout::Hybrid {
        v1: vec![own.of.clone()],
        unified: None,
    });
    // Interfaces are those of the machine's first network namespace, which has one at least.
    let network = r#"{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":5}]}}"#;
    let cgroup = tree.limited(network)?;
    ensure!(file_of(&cgroup, "net_cls.classid")? == "1048577");
    let priorities = file_of(&cgroup, "net_prio.ifpriomap")?;
    ensure!(priorities.lines().any(|l| l == "lo 5"), "{priorities}");
    Ok(())
}
