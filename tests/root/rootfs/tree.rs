//! The tree as a whole: as root and in a user namespace, entered by either way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;

use super::bench::{Bench, CORNER, outside};
use super::devices::check_default_devices;
use super::inside::{is_readonly, mount_table, mounted, point, read, says_readonly};

tests![
    busybox_runs,
    the_default_mounts_work_in_a_userns in guest,
    init_of_a_rootless_caller_opens_the_sources_itself,
    sysfs_without_a_netns_is_the_hosts,
    chroot_works_where_pivot_root_does_not,
];

fn busybox_runs() -> Result<()> {
    needs!(root, busybox);
    let mut bench = Bench::new()?;
    bench.base();
    bench.run(|| {
        ensure!(std::env::current_dir()? == Path::new("/"));
        let script = "echo gone > /dev/null && test -d /proc/1 && test ! -e /mnt && ls -d / && echo $$ /proc/self/fd/*";
        let output = Command::new("/bin/busybox").args(["sh", "-c", script]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let points: Vec<_> = mount_table().lines().map(|line| point(line).to_owned()).collect();
        ensure!(points == ["/", "/proc", "/dev", "/dev/pts"], "{points:?}");
        Ok(())
    })
}

fn the_default_mounts_work_in_a_userns() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.netns = true;
    bench.cgroupns = true;
    bench
        .base()
        .usual("/dev/shm")
        .usual("/dev/mqueue")
        .usual("/sys")
        .usual("/sys/fs/cgroup");
    bench.run(|| {
        check_default_devices()?;
        ensure!(fs::metadata("/dev/shm")?.mode() & 0o7777 == 0o1777);
        ensure!(mounted("/sys")?.contains(" - sysfs ") && mounted("/sys")?.contains("ro,"));
        ensure!(is_readonly("/sys/fs/cgroup"));
        mounted("/dev/mqueue").map(drop)
    })
}

fn init_of_a_rootless_caller_opens_the_sources_itself() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.late = true;
    fs::write(outside("file"), "one")?;
    bench
        .base()
        .mount("/data", "bind", "/mnt/outside", &["rbind", "ro", "nosuid"])
        .usual("/sys");
    bench.spec["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/etc"]);
    bench.run(|| {
        check_default_devices()?;
        ensure!(read("/data/file")? == "one" && mounted("/data")?.contains("ro,nosuid"));
        Ok(())
    })
}

fn sysfs_without_a_netns_is_the_hosts() -> Result<()> {
    needs!(root);
    let mut bench = Bench::in_userns()?;
    bench.base().usual("/sys");
    bench.run(|| {
        ensure!(Path::new("/sys/kernel").is_dir());
        for line in mount_table()
            .lines()
            .filter(|line| point(line).starts_with("/sys"))
        {
            ensure!(says_readonly(line), "writable: {line}");
        }
        Ok(())
    })
}

fn chroot_works_where_pivot_root_does_not() -> Result<()> {
    needs!(root);
    for userns in [false, true] {
        let mut bench = Bench::with_userns(userns)?;
        bench.no_pivot = true;
        bench.base();
        bench.run(|| {
            ensure!(!Path::new(CORNER).exists() && Path::new("/bin/busybox").exists());
            check_default_devices()
        })?;
    }
    Ok(())
}
