//! Limits hold, and those that cannot are refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::house::{House, eventually, said};
use crate::harness;

tests![
    processor_time_is_held in guest,
    processors_are_held in guest,
    memory_runs_out_inside_only in guest,
    a_fork_bomb_stays_inside in guest,
    writes_are_throttled in guest: 120,
    limits_are_what_another_implementation_reads in guest,
    a_resize_holds_at_once_and_for_good in guest,
    a_resize_kills_nothing in guest,
    a_plan_is_kept_but_for_exceptions,
    a_disk_that_cannot_be_limited_is_refused in guest,
];

fn processor_time_is_held() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--cpus 0.5")?;
    let mut busy = house.sh_spawn("web", "while :; do :; done")?;
    let cgroup = house.cgroup("web")?;
    let used = || -> Result<u64> { Ok(cgroup.stats()?.cpu.context("no cpu statistics")?.usage) };
    std::thread::sleep(Duration::from_millis(300));
    let (begun, before) = (Instant::now(), used()?);
    std::thread::sleep(Duration::from_millis(1500));
    let cpu = cgroup.stats()?.cpu.context("no cpu statistics")?;
    let share = (cpu.usage - before) as f64 / begun.elapsed().as_micros() as f64;
    // On a busy machine it takes a while to get as far as the limit.
    eventually("it is held back", || {
        Ok(cgroup.stats()?.cpu.is_some_and(|cpu| cpu.throttled_periods > 0))
    })?;
    house.ok("stop web --timeout 1")?;
    busy.wait()?;
    ensure!(share > 0.02, "it did not run: {share}");
    ensure!(share < 0.8, "half a processor was allowed, {share} used");
    house.leave()
}

fn processors_are_held() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--cpuset 0")?;
    let allowed = house.sh(
        "web",
        "grep Cpus_allowed_list /proc/self/status /proc/1/status; nproc",
    )?;
    ensure!(
        allowed.lines().take(2).all(|l| l.ends_with(":\t0")) && allowed.ends_with("\n1"),
        "{allowed}"
    );
    house.leave()
}

fn memory_runs_out_inside_only() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 32M")?;
    house.running("db", "")?;
    let (web, db) = (house.init("web")?, house.init("db")?);
    let output = house.try_sh("web", "x=a; while :; do x=$x$x; done")?;
    ensure!(output.status.code() == Some(137), "{output:?}");
    ensure!(house.cgroup("web")?.oom_kills()? > 0);
    ensure!(
        house.init("web")? == web && house.init("db")? == db,
        "an init was hit"
    );
    ensure!(house.sh("web", "echo alive")? == "alive" && house.sh("db", "echo alive")? == "alive");
    ensure!(house.show("web")?["memory_used"].as_u64() <= Some(32 << 20));
    house.leave()
}

fn a_fork_bomb_stays_inside() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--pids 24")?;
    let output = house.try_sh("web", "for i in $(seq 60); do sleep 600 >/dev/null 2>&1 & done")?;
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("fork"),
        "{output:?}"
    );
    let pids = house.cgroup("web")?.stats()?.pids.context("no pids statistics")?;
    ensure!(
        pids.limit == Some(24) && (20..=24).contains(&pids.current),
        "{pids:?}"
    );
    // Full as it is, it says so to whoever wants in, and can be stopped. Its init's own moves make room now and then.
    eventually("it is full", || {
        let output = house.output("exec web -- true")?;
        Ok(!output.status.success()
            && said(&output).contains("(24): end some")
            && said(&output).contains("condo restart web"))
    })?;
    house.ok("stop web --timeout 2")?;
    ensure!(house.show("db").is_err() && house.status("web")? == "stopped");
    house.leave()
}

/// Whatever keeps the disk. On cgroup v1 the kernel writes pages back in its own name, so that only direct writes count.
fn writes_are_throttled() -> Result<()> {
    harness::need("program:mkfs.ext4");
    let house = House::new()?;
    let created = house.output("create web --image busybox --start --io-write 1M")?;
    if String::from_utf8_lossy(&created.stderr).contains("is in memory") {
        harness::need("temporary-files-on-a-disk");
    }
    ensure!(created.status.success(), "{created:?}");
    house.ok("create db --image busybox --start --io-write 1M --disk 64M")?;
    let ways: &[_] = match house.limits("web")?.v2 {
        true => &["oflag=direct", "conv=fsync"],
        false => &["oflag=direct"],
    };
    for name in ["web", "db"] {
        house.up(name)?;
        for how in ways {
            let begun = Instant::now();
            let write = format!("dd if=/dev/zero of=/root/file bs=64k count=48 {how} 2>/dev/null");
            house.sh(name, &write)?;
            let took = begun.elapsed();
            ensure!(
                took > Duration::from_millis(1500),
                "{name}, {how}: 3 MiB at 1 MiB/s took {took:?}"
            );
        }
        let io = house.cgroup(name)?.stats()?.io;
        ensure!(io.iter().any(|d| d.write_bytes >= 3 << 20), "{name}: {io:?}");
    }
    house.leave()
}

/// Those that hold where nobody can see it in passing: each by the option's number, in the kernel's unit.
fn limits_are_what_another_implementation_reads() -> Result<()> {
    let house = House::new()?;
    let limits = "--cpus 0.5 --cpu-weight 200 --cpuset 0 --memory 64M --pids 100 \
                  --io-read 8M --io-write 4M --iops-read 2000 --iops-write 1000";
    let created = house.output(&format!("create web --image busybox --start {limits}"))?;
    if String::from_utf8_lossy(&created.stderr).contains("is in memory") {
        harness::need("temporary-files-on-a-disk");
    }
    ensure!(created.status.success(), "{created:?}");
    let found = house.limits("web")?;
    let mib = |n: i64| n << 20;
    // Without --swap there is none: on v1 nothing beyond memory, on v2 nothing at all.
    let (weight, swap) = if found.v2 { (200, 0) } else { (2048, mib(64)) };
    let time = (found.quota, found.period, found.weight);
    ensure!(time == (50_000, 100_000, weight), "{found:?}");
    ensure!(found.cpus == [(0, 0)], "{found:?}");
    let room = (found.memory, found.swap, found.pids);
    ensure!(room == (mib(64), swap, 100), "{found:?}");
    if let Some(io) = &found.io {
        ensure!(io.read_bps == [8 << 20] && io.write_bps == [4 << 20], "{io:?}");
        ensure!(io.read_iops == [2000] && io.write_iops == [1000], "{io:?}");
    }
    house.leave()
}

fn a_resize_holds_at_once_and_for_good() -> Result<()> {
    let house = House::new()?;
    let created = house.output("create web --image busybox --start --memory 64M --cpus 1 --io-write 4M")?;
    if said(&created).contains("is in memory") {
        harness::need("temporary-files-on-a-disk");
    }
    ensure!(created.status.success(), "{created:?}");
    house.up("web")?;
    let init = house.init("web")?;
    house.ok("resize web --memory 128M --cpus 0.5 --cpu-weight 200 --cpuset 1 --pids 50 --io-read 8M --no-limit io-write")?;
    let holds = || -> Result<()> {
        let found = house.limits("web")?;
        let mib = |n: i64| n << 20;
        let (weight, swap) = if found.v2 { (200, 0) } else { (2048, mib(128)) };
        let room = (found.memory, found.swap, found.pids);
        ensure!(room == (mib(128), swap, 50), "{found:?}");
        let time = (found.quota, found.weight, &*found.cpus);
        ensure!(time == (50_000, weight, &[(1, 1)]), "{found:?}");
        if let Some(io) = &found.io {
            ensure!(io.read_bps == [8 << 20] && io.write_bps.is_empty(), "{io:?}");
        }
        Ok(())
    };
    holds()?;
    ensure!(house.init("web")? == init);
    // Also for a VPS that does not run: its next run has them.
    house.ok("stop web --timeout 1")?;
    house.ok("resize web --no-limit cpu-weight")?;
    house.ok("resize web --cpu-weight 200")?;
    house.ok("start web")?;
    holds()?;
    house.ok("resize web --no-limit memory,cpus,pids,cpuset --no-limit io-read")?;
    let found = house.limits("web")?;
    ensure!(found.memory > 1 << 40 || found.memory < 0, "{found:?}");
    ensure!(
        found.quota <= 0 && found.pids <= 0 && found.cpus != [(1, 1)],
        "{found:?}"
    );
    for (line, needle) in [
        ("resize web", "is given no new limit"),
        ("resize web --cpus 1000", "processors of this host"),
        ("resize web --no-limit memroy", "is no limit"),
        ("resize nosuch --cpus 1", "VPS `nosuch` does not exist"),
    ] {
        house.refused(line, needle)?;
    }
    house.leave()
}

fn a_plan_is_kept_but_for_exceptions() -> Result<()> {
    let house = House::new()?;
    let file = house.root.join("etc/plans.toml");
    std::fs::create_dir_all(file.parent().context("no parent")?)?;
    std::fs::write(
        &file,
        "[small]\ncpus = 0.5\nmemory = \"32M\"\n[large]\nmemory = \"64M\"\npids = 400\n",
    )?;
    house.ok("create web --image busybox --plan small --pids 300 --start")?;
    let limits = || -> Result<_> { Ok(house.show("web")?["limits"].clone()) };
    let small = limits()?;
    ensure!(
        small["cpus"] == 0.5 && small["memory"] == 32 << 20 && small["pids"] == 300,
        "{small}"
    );
    house.ok("resize web --plan large")?;
    let large = limits()?;
    ensure!(
        large["cpus"].is_null() && large["memory"] == 64 << 20 && large["pids"] == 300,
        "{large}"
    );
    let found = house.limits("web")?;
    ensure!(
        found.memory == 64 << 20 && found.quota <= 0 && found.pids == 300,
        "{found:?}"
    );
    ensure!(house.show("web")?["plan"] == "large");
    ensure!(
        house
            .ok("plan list")?
            .contains("large  -     64M     -     pids=400")
    );
    house.refused("resize web --plan huge", "plan `huge` does not exist")?;
    std::fs::write(&file, "[small]\nmemroy = 1\n")?;
    house.refused("plan list", "memroy")?;
    std::fs::remove_dir_all(house.root.join("etc"))?;
    house.leave()
}

/// 40 MiB of a tmpfs cannot be taken back: the host has no swap for the VPS.
fn a_resize_kills_nothing() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 96M")?;
    let init = house.init("web")?;
    house.sh(
        "web",
        "mount -t tmpfs none /mnt && dd if=/dev/zero of=/mnt/held bs=1M count=40 2>/dev/null",
    )?;
    let refused = house.refused(
        "resize web --memory 16M --cpus 0.5",
        "--memory: `16M` is less than the VPS uses",
    )?;
    let found = house.limits("web")?;
    ensure!(
        found.memory == 96 << 20 && found.quota <= 0,
        "{refused}: {found:?}"
    );
    ensure!(house.show("web")?["limits"]["memory"] == 96 << 20, "recorded");
    house.ok("resize web --memory 64M")?;
    ensure!(house.limits("web")?.memory == 64 << 20);
    ensure!(house.cgroup("web")?.oom_kills()? == 0 && house.init("web")? == init);
    ensure!(house.sh("web", "wc -c < /mnt/held")? == (40 << 20).to_string());
    house.leave()
}

fn a_disk_that_cannot_be_limited_is_refused() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    needs!(root);
    harness::private_mounts()?;
    let place = harness::tempdir();
    mount(
        Some("tmpfs"),
        &place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    let house = House::at(place.join("condo"))?;
    house.refused("create web --image busybox --io-write 1M", "is in memory")?;
    ensure!(house.list()?.is_empty());
    eventually("the commands have ended", || Ok(house.nothing_left().is_ok()))?;
    house.leave()
}
