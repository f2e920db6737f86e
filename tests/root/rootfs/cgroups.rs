//! The container's own view of its cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use condo::host::Host;

use super::bench::Bench;
use super::inside::{is_readonly, mounted, read};

tests![
    v1_cgroups_with_a_namespace,
    v1_cgroups_without_a_namespace,
    unified_cgroups in guest,
    cgroup2_on_a_hybrid_host,
];

/// The container's cgroup, in every hierarchy this machine has.
pub struct Cgroups {
    pub name: String,
    mounts: Vec<PathBuf>,
}

impl Cgroups {
    pub fn new() -> Result<Self> {
        let name = format!("/condo-test-rootfs-{}", std::process::id());
        let mounts = match Host::probe()?.cgroups {
            condo::host::CgroupLayout::Unified(mount) => vec![mount],
            condo::host::CgroupLayout::Hybrid { v1, unified } => {
                v1.into_iter().map(|h| h.mount).chain(unified).collect()
            }
        };
        let cgroups = Self { name, mounts };
        for dir in cgroups.dirs() {
            fs::create_dir(&dir)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // Only a v1 cpuset starts empty and takes no process until it has these.
                if dir.join("tasks").exists() && dir.join(file).exists() {
                    fs::write(dir.join(file), fs::read(dir.with_file_name(file))?)?;
                }
            }
        }
        Ok(cgroups)
    }

    fn dirs(&self) -> Vec<PathBuf> {
        self.mounts
            .iter()
            .map(|m| m.join(self.name.trim_start_matches('/')))
            .collect()
    }

    pub fn join(&self) -> Result<()> {
        for dir in self.dirs() {
            fs::write(dir.join("cgroup.procs"), "0").with_context(|| format!("join {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in self.dirs() {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn check_v1(writable: bool) -> Result<()> {
    for name in ["memory", "pids", "unified", "systemd"] {
        let dir = format!("/sys/fs/cgroup/{name}");
        let me = read(&format!("{dir}/cgroup.procs"))?;
        ensure!(
            me.lines().any(|l| l == "1"),
            "{dir} is not the container's own: {me:?}"
        );
        ensure!(
            fs::create_dir(format!("{dir}/below")).is_ok() == writable,
            "{dir}"
        );
        if writable {
            fs::remove_dir(format!("{dir}/below"))?;
        }
    }
    ensure!(is_readonly("/sys/fs/cgroup") != writable);
    Ok(())
}

/// A container in a cgroup of its own, which it sees with `access`: `ro` or `rw`.
fn in_its_cgroup(cgroupns: bool, access: &str) -> Result<Bench> {
    let mut bench = Bench::new()?;
    bench.cgroup = Some(Cgroups::new()?);
    bench.cgroupns = cgroupns;
    bench.base().usual("/sys").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", access],
    );
    Ok(bench)
}

fn v1_cgroups_with_a_namespace() -> Result<()> {
    needs!(root, hybrid);
    for access in ["ro", "rw"] {
        in_its_cgroup(true, access)?.run(|| {
            ensure!(mounted("/sys/fs/cgroup/memory")?.contains(" - cgroup "));
            ensure!(mounted("/sys/fs/cgroup/unified")?.contains(" - cgroup2 "));
            check_v1(access == "rw")
        })?;
    }
    Ok(())
}

fn v1_cgroups_without_a_namespace() -> Result<()> {
    needs!(root, hybrid);
    in_its_cgroup(false, "ro")?.run(|| check_v1(false))
}

fn unified_cgroups() -> Result<()> {
    needs!(root, cgroup2);
    in_its_cgroup(true, "ro")?.run(|| {
        ensure!(read("/sys/fs/cgroup/cgroup.procs")?.lines().any(|l| l == "1"));
        ensure!(is_readonly("/sys/fs/cgroup"));
        Ok(())
    })?;
    // Without a namespace of its own it finds itself by the path that the kernel tells it.
    for access in ["ro", "rw", "relatime"] {
        in_its_cgroup(false, access)?.run(|| {
            let own = read("/proc/self/cgroup")?;
            let own = format!("/sys/fs/cgroup{}", own.trim().trim_start_matches("0::"));
            ensure!(
                read(&format!("{own}/cgroup.procs"))?.lines().any(|l| l == "1"),
                "{own}"
            );
            let line = mounted("/sys/fs/cgroup")?;
            let options = line.split(' ').nth(5).unwrap_or_default();
            ensure!(
                options.starts_with(if access == "rw" { "rw," } else { "ro," }),
                "{access}: {line}"
            );
            ensure!(line.contains(" / /sys/fs/cgroup "), "{line}");
            Ok(())
        })?;
    }
    Ok(())
}

fn cgroup2_on_a_hybrid_host() -> Result<()> {
    needs!(root, hybrid);
    let mut bench = Bench::in_userns()?;
    bench.cgroupns = true;
    bench.netns = true;
    bench.base().usual("/sys").mount(
        "/sys/fs/cgroup",
        "cgroup2",
        "cgroup",
        &["nosuid", "noexec", "nodev", "rw"],
    );
    bench.run(|| {
        ensure!(mounted("/sys/fs/cgroup")?.contains(" - cgroup2 "));
        ensure!(Path::new("/sys/fs/cgroup/cgroup.procs").exists());
        Ok(())
    })
}
