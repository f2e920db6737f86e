//! What VPSs share whatever keeps their disks.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::house::House;
use crate::harness;
use crate::runtime::until;

tests![
    one_page_cache_serves_all_vpss_of_an_image in guest: 120,
    limits_hit_the_disk_below_a_partition,
    limits_hit_a_mapped_device in guest,
    weights_divide_a_busy_disk,
];

/// What several VPSs read of their image is in memory once, whichever back ends they have.
fn one_page_cache_serves_all_vpss_of_an_image() -> Result<()> {
    const SIZE: usize = 32 << 20;
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    let mut house = House::new()?;
    let init = "#!/bin/sh\ntrap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done\n";
    let files = [
        ("sbin/init".to_owned(), init.as_bytes().to_vec()),
        ("big".to_owned(), vec![7; SIZE]),
    ];
    house.import_files("large", &files, "--stop-signal TERM")?;
    let names = ["a", "b", "c", "d"];
    for (name, options) in names.iter().zip(["", "", "--disk 64M", "--disk 64M"]) {
        house.ok(&format!("create {name} --image large --start {options}"))?;
    }
    let file = std::fs::File::open(house.root.join("lib/images/large/rootfs/big"))?;
    rustix::fs::fsync(&file)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let before = cached(&house)?;
    for name in names {
        house.sh(name, "busybox dd if=/big of=/dev/null bs=1M 2>/dev/null")?;
    }
    let read = cached(&house)? - before;
    let size = SIZE as i64;
    ensure!(
        (size / 2..size * 3 / 2).contains(&read),
        "{read} bytes of page cache for {} VPSs that read {size}",
        names.len()
    );
    house.leave()
}

/// The page cache that is counted for all VPSs together.
fn cached(house: &House) -> Result<i64> {
    let stats: Vec<serde_json::Value> = serde_json::from_str(&house.ok("stats --json")?)?;
    Ok(stats.iter().filter_map(|vps| vps["cache"].as_i64()).sum())
}

/// A loop device that is gone with its last user.
struct Loop(String);

impl Loop {
    fn new() -> Result<Self> {
        let file = harness::tempdir().join("disk");
        std::fs::File::create(&file)?.set_len(128 << 20)?;
        let mut losetup = Command::new("losetup");
        let device = harness::run(losetup.args(["--find", "--show", "--partscan"]).arg(&file))?;
        Ok(Self(device.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = harness::run(Command::new("losetup").args(["--detach", &self.0]));
    }
}

/// A limit belongs to the whole disk below a partition, and to the mapped device above what it is mapped to.
fn limits_hit_the_disk_below_a_partition() -> Result<()> {
    needs!(root, busybox, program:addpart);
    harness::need("program:mkfs.ext4");
    harness::private_mounts()?;
    let disk = Loop::new()?;
    harness::run(Command::new("addpart").args([&disk.0, "1", "2048", "250000"]))?;
    let house = on(&format!("{}p1", disk.0))?;
    let number = std::fs::metadata(&disk.0)?.rdev();
    drop(disk);
    is_throttled(house, number)
}

fn limits_hit_a_mapped_device() -> Result<()> {
    needs!(root, busybox, device_mapper);
    harness::need("program:mkfs.ext4");
    harness::private_mounts()?;
    let disk = Loop::new()?;
    let name = format!("condo-test-{}", std::process::id());
    let table = format!("0 250000 linear {} 2048", disk.0);
    harness::run(Command::new("dmsetup").args(["create", "--noudevsync", &name, "--table", &table]))?;
    // The name below /dev/mapper is udev's, where there is one; this one is the kernel's.
    let kernels = ["info", "--columns", "--noheadings", "-o", "blkdevname", &name];
    let kernels = harness::run(Command::new("dmsetup").args(kernels));
    let made = kernels.and_then(|name| {
        let mapped = format!("/dev/{}", name.trim());
        Ok((on(&mapped)?, std::fs::metadata(&mapped)?.rdev()))
    });
    harness::run(Command::new("dmsetup").args(["remove", "--deferred", &name]))?;
    drop(disk);
    let (house, number) = made?;
    is_throttled(house, number)
}

/// As much as may show who gets more, in bytes, and as much as has to.
const SOME: u64 = 8 << 20;
const MUCH: u64 = 96 << 20;

/// Two that write at once get of the disk's time what their weights say.
fn weights_divide_a_busy_disk() -> Result<()> {
    needs!(root, busybox);
    harness::need("program:mkfs.ext4");
    harness::private_mounts()?;
    let disk = Loop::new()?;
    // Not by way of the host's memory, which is faster than two processors can fill it: nobody would wait for the disk. (Not every file
    // system can; those of slow machines need not.)
    let _ = harness::run(Command::new("losetup").args(["--direct-io=on", &disk.0]));
    let name = disk.0.trim_start_matches("/dev/");
    let scheduler = format!("/sys/block/{name}/queue/scheduler");
    if !std::fs::read_to_string(&scheduler)?.contains("bfq") {
        harness::need("scheduler:bfq");
    }
    let number = std::fs::metadata(&disk.0)?.rdev();
    let house = on(&disk.0)?;
    std::fs::write(&scheduler, "none")?;
    house.refused("create web --image busybox --io-weight 500", "echo bfq >")?;
    std::fs::write(&scheduler, "bfq")?;
    // Else it gives programs that have just begun thirty times their weight.
    std::fs::write(format!("/sys/block/{name}/queue/iosched/low_latency"), "0")?;
    drop(disk);
    house.running("light", "--io-weight 10")?;
    house.running("heavy", "")?;
    house.ok("resize heavy --io-weight 1000")?;
    // Several each, so that somebody waits for the disk also while another waits for a processor.
    let write = "for n in 1 2 3 4; do while :; do dd if=/dev/zero of=/root/file$n bs=1M count=8 oflag=direct conv=notrunc 2>/dev/null; done & done; wait";
    let busy = ["light", "heavy"].map(|name| house.sh_spawn(name, write));
    let divided = divide(&house, number);
    house.ok("resize heavy --no-limit io-weight")?;
    house.ok("stop --all --timeout 0")?;
    for child in busy {
        child?.wait()?;
    }
    let [light, heavy] = divided?;
    ensure!(is_divided([light, heavy]), "{light} and {heavy} bytes");
    house.leave()
}

/// Whether the heavy one has got more.
fn is_divided([light, heavy]: [u64; 2]) -> bool {
    heavy > light * 3 / 2
}

/// What both write while the light one writes some. By that and not by time: a busy machine keeps its disk waiting for seconds, and then it
/// takes more to show.
fn divide(house: &House, device: u64) -> Result<[u64; 2]> {
    let now =
        || -> Result<[u64; 2]> { Ok([written(house, "light", device)?, written(house, "heavy", device)?]) };
    until("both write", || Ok(now()?.into_iter().all(|bytes| bytes >= SOME)))?;
    let begun = now()?;
    let mut since = [0, 0];
    until("the light one goes on", || {
        let [light, heavy] = now()?;
        since = [light - begun[0], heavy - begun[1]];
        Ok(since[0] >= MUCH || since[0] >= SOME && is_divided(since))
    })?;
    Ok(since)
}

fn written(house: &House, name: &str, device: u64) -> Result<u64> {
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let all = house.cgroup(name)?.stats()?.io;
    let found = all.iter().filter(|found| (found.major, found.minor) == device);
    Ok(found.map(|found| found.write_bytes).sum())
}

/// An instance on a file system that this device gets.
fn on(device: &str) -> Result<House> {
    let place = harness::tempdir();
    harness::run(Command::new("mkfs.ext4").args(["-q", device]))?;
    harness::run(Command::new("mount").arg(device).arg(&place))?;
    House::at(place.join("condo"))
}

fn is_throttled(house: House, device: u64) -> Result<()> {
    house.running("web", "--io-write 1M")?;
    let begun = Instant::now();
    house.sh(
        "web",
        "dd if=/dev/zero of=/root/file bs=64k count=48 oflag=direct 2>/dev/null",
    )?;
    let took = begun.elapsed();
    ensure!(
        took > Duration::from_millis(1500),
        "3 MiB at 1 MiB/s took {took:?}"
    );
    let bytes = written(&house, "web", device)?;
    ensure!(bytes >= 3 << 20, "{bytes} bytes are counted for the device");
    house.leave()
}
