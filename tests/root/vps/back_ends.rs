//! What VPSs share whatever keeps their disks.

use anyhow::{Result, ensure};

use super::house::House;
use crate::harness;

tests![one_page_cache_serves_all_vpss_of_an_image in guest: 120];

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
