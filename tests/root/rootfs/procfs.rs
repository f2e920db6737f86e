//! Nothing stands in for procfs, and nothing but a bind of a few files covers it.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};

use super::bench::{Bench, outside};
use super::inside::read;

tests![
    links_into_procfs_are_refused,
    symlinked_proc_and_sys_are_refused,
    files_of_procfs_can_be_replaced,
    a_fake_proc_cannot_be_bound,
];

fn links_into_procfs_are_refused() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.base();
    symlink("/proc", bench.rootfs.join("alias"))?;
    bench.mount("/alias/sys", "tmpfs", "tmpfs", &[]);
    bench.refused("mount `/alias/sys`: ", "`/alias/sys` leads into procfs")?;
    let mut bench = Bench::new()?;
    bench.base().mount("/proc/self/attr", "tmpfs", "tmpfs", &[]);
    bench.refused("mounts[3].destination: `/proc/self/attr`", "is inside `/proc`")
}

fn symlinked_proc_and_sys_are_refused() -> Result<()> {
    needs!(root);
    for (name, fstype) in [("proc", "proc"), ("sys", "sysfs")] {
        let mut bench = Bench::new()?;
        fs::remove_dir(bench.rootfs.join(name))?;
        symlink("etc", bench.rootfs.join(name))?;
        bench.mount(&format!("/{name}"), fstype, fstype, &[]);
        bench.refused(
            &format!("mount `/{name}`: "),
            "must be mounted on ordinary directory",
        )?;
    }
    Ok(())
}

fn files_of_procfs_can_be_replaced() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    fs::write(outside("uptime"), "1.00 1.00\n")?;
    bench
        .base()
        .mount("/proc/uptime", "bind", "/mnt/outside/uptime", &["bind", "ro"]);
    bench.run(|| {
        ensure!(read("/proc/uptime")? == "1.00 1.00\n");
        Ok(())
    })
}

fn a_fake_proc_cannot_be_bound() -> Result<()> {
    needs!(root);
    let mut bench = Bench::new()?;
    bench.mount("/proc", "bind", "/mnt/outside", &["bind"]);
    bench.refused("mount `/proc`: ", "should be procfs")?;
    let mut bench = Bench::new()?;
    bench.mount("/proc", "bind", "/proc", &["rbind"]);
    bench.run(|| {
        fs::metadata("/proc/self/status")
            .map(drop)
            .context("the host's procfs")
    })
}
