//! What a VPS says of itself: its processors, memory, clocks and load are its own, as far as the kernel lets them be.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::house::{House, alive, eventually};

tests![
    clocks_begin_with_the_vps in guest,
    processors_are_as_many_as_there_is_time_for in guest,
    figures_are_those_of_the_limits in guest: 60,
    figures_outlive_who_tells_them: 60,
    sysinfo_is_its_own in guest: 60,
    sysinfo_outlives_who_keeps_its_connections: 60,
    no_call_waits_for_a_process_that_was_killed: 60,
];

/// Seconds since the VPS's init was started, as the host counts them.
fn age(house: &House, name: &str) -> Result<u64> {
    house.show(name)?["uptime"].as_u64().context("no uptime")
}

fn clocks_begin_with_the_vps() -> Result<()> {
    let house = House::new()?;
    house.running("web", "")?;
    let before = age(&house, "web")?;
    let script = "cut -d. -f1 /proc/uptime; sed -n 's/btime //p' /proc/stat; date +%s; uptime";
    let seen = house.sh("web", script)?;
    let after = age(&house, "web")?;
    let lines: Vec<&str> = seen.lines().collect();
    let [uptime, booted, now, told] = lines[..] else {
        anyhow::bail!("{seen}");
    };
    let (uptime, booted, now): (u64, u64, u64) = (uptime.parse()?, booted.parse()?, now.parse()?);
    ensure!(
        (before..=after + 2).contains(&uptime),
        "{before} {uptime} {after}"
    );
    ensure!((now - booted).abs_diff(uptime) <= 2, "{seen}");
    // By sysinfo(2).
    ensure!(
        told.contains("up 0 min") || told.contains("up 1 min") || uptime > 60,
        "{told}"
    );
    // A program that is started later lives by the same clocks.
    let same = "test $(readlink /proc/1/ns/time) = $(readlink /proc/self/ns/time)";
    house.sh("web", same)?;
    house.leave()
}

fn processors_are_as_many_as_there_is_time_for() -> Result<()> {
    needs!(controller: cpuset);
    let house = House::new()?;
    let host = std::thread::available_parallelism()?.get();
    house.running("web", "--cpus 0.5")?;
    house.running("all", &format!("--cpus 0.5 --cpuset 0-{}", host - 1))?;
    ensure!(house.sh("web", "nproc")? == "1");
    ensure!(house.sh("all", "nproc")? == host.to_string());
    house.leave()
}

/// What a program inside reads in a line of `/proc/meminfo`, in KiB.
fn meminfo(house: &House, name: &str, field: &str) -> Result<u64> {
    Ok(house
        .sh(
            name,
            &format!("sed -n 's/^{field}: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"),
        )?
        .parse()?)
}

fn figures_are_those_of_the_limits() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M --cpus 1")?;
    ensure!(meminfo(&house, "web", "MemTotal")? == 64 << 10);
    // What a program takes is missing, and comes back.
    let free = meminfo(&house, "web", "MemFree")?;
    house.sh(
        "web",
        "dd if=/dev/zero of=/dev/shm/ballast bs=1M count=16 2>/dev/null",
    )?;
    let (less, shared) = (
        meminfo(&house, "web", "MemFree")?,
        meminfo(&house, "web", "Shmem")?,
    );
    ensure!(
        less + (15 << 10) < free && shared >= 16 << 10,
        "{free} {less} {shared}"
    );
    house.sh("web", "rm /dev/shm/ballast")?;
    ensure!(meminfo(&house, "web", "MemFree")? > less + (15 << 10));
    // By sendfile(2), by read(2) in small pieces, and again on an open file.
    for script in [
        "cat /proc/meminfo | grep -c MemTotal:",
        "dd if=/proc/meminfo bs=7 2>/dev/null | grep -c MemTotal:",
        "exec 3< /proc/meminfo; head -n 1 <&3 | grep -c MemTotal:",
    ] {
        ensure!(house.sh("web", script)? == "1", "{script}");
    }
    // One processor, by every name.
    for script in [
        "grep -c ^processor /proc/cpuinfo",
        "grep -c '^cpu[0-9]' /proc/stat",
        "tr , '\\n' < /sys/devices/system/cpu/online | grep -c '^[0-9]*$'",
    ] {
        ensure!(house.sh("web", script)? == "1", "{script}");
    }
    processor_time_is_its_own(&house)?;
    // Nobody writes to them, and nobody but its own root owns them.
    let denied = house.try_sh("web", "echo 1 > /proc/meminfo")?;
    ensure!(!denied.status.success());
    ensure!(house.sh("web", "stat -c %u:%a /proc/meminfo")? == "0:444");
    // Limits that change are seen at once.
    house.ok("resize web --memory 48M")?;
    let mut total = 0;
    for _ in 0..3 {
        total = meminfo(&house, "web", "MemTotal")?;
    }
    ensure!(total == 48 << 10, "{total}");
    house.leave()
}

fn processor_time_is_its_own(house: &House) -> Result<()> {
    house.sh("web", "timeout 1 sh -c 'while :; do :; done' || true; exit 0")?;
    let seen = house.sh(
        "web",
        "head -n 1 /proc/stat; cat /proc/uptime /proc/loadavg; wc -l < /proc/swaps",
    )?;
    let lines: Vec<&str> = seen.lines().collect();
    let ticks =
        |at: usize| -> Result<u64> { Ok(lines[0].split_whitespace().nth(at).context("short")?.parse()?) };
    let used = ticks(1)? + ticks(3)?;
    let up: f64 = lines[1].split(' ').next().context("short")?.parse()?;
    #[allow(clippy::cast_precision_loss)]
    let all = (used + ticks(4)?) as f64 / 100.0;
    ensure!(used > 0 && all < up + 1.0, "{seen}");
    ensure!(
        lines[2].split(' ').count() == 5 && lines[3].trim() == "1",
        "{seen}"
    );
    Ok(())
}

/// Kills one of condo's processes.
fn end(pid: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    eventually("it is dead", || Ok(!alive(pid)))
}

/// A monitor that was killed takes nothing along: the next command puts others in its place.
fn figures_outlive_who_tells_them() -> Result<()> {
    let house = House::new()?;
    house.running("web", "--memory 64M")?;
    house.kill_monitor("web")?;
    for _ in 0..2 {
        ensure!(meminfo(&house, "web", "MemTotal")? == 64 << 10);
        // So does who has taken its place.
        end(teller(&house)?)?;
    }
    let covers = house.sh("web", "grep -c ' /proc/meminfo ' /proc/self/mountinfo")?;
    ensure!(covers == "1", "{covers} covers");
    // One who unmounts it sees what was beneath.
    house.sh(
        "web",
        "umount /proc/meminfo && ! grep -q ' 65536 kB' /proc/meminfo",
    )?;
    house.ok("stop web --timeout 20")?;
    house.ok("delete web")?;
    house.nothing_left()?;
    house.leave()
}

/// What a program is told by sysinfo(2) in KiB: busybox's `free` has its first column from there.
const TOTAL: &str = "busybox free | busybox awk '/^Mem/ { print $2 }'";

/// An image whose init writes down what it is told, again and again, after it has done something.
fn asking(house: &mut House, first: &str) -> Result<()> {
    let again = "while :; do busybox free > /told.new; busybox uptime >> /told.new; busybox mv /told.new /told; busybox sleep 0.1; done";
    house.import("asking", &format!("{first}; {again}"))
}

/// Where that is, for whoever runs no command of condo's.
fn told(house: &House) -> Result<PathBuf> {
    Ok(format!("/proc/{}/root/told", house.init("web")?).into())
}

/// Waits until it is told of so much memory, from now on.
fn told_by_init(told: &Path, total: &str) -> Result<()> {
    // What was written before does not count.
    let _ = std::fs::remove_file(told);
    eventually(&format!("init is told of {total}"), || {
        let text = std::fs::read_to_string(told).unwrap_or_default();
        // busybox puts no space before a large number.
        let is_it = |line: &str| {
            line.strip_prefix("Mem:")
                .is_some_and(|rest| rest.trim_start().starts_with(total))
        };
        Ok(text.contains("load average: ") && text.lines().any(is_it))
    })
}

/// For what init has started and for what comes in, whatever becomes of who answers.
fn sysinfo_is_its_own() -> Result<()> {
    let mut house = House::new()?;
    asking(&mut house, ":")?;
    house.ok("create web --image asking --memory 64M --start")?;
    ensure!(house.show("web")?["own_sysinfo"] == true);
    ensure!(house.sh("web", TOTAL)? == "65536");
    let told = told(&house)?;
    told_by_init(&told, "65536")?;
    house.ok("resize web --memory 48M")?;
    told_by_init(&told, "49152")?;
    ensure!(house.sh("web", "busybox uptime")?.contains("load average: "));
    house.kill_monitor("web")?;
    ensure!(house.sh("web", TOTAL)? == "49152");
    house.ok("resize web --memory 32M")?;
    told_by_init(&told, "32768")?;
    // On request all is as the kernel has it.
    house.ok("create other --image asking --memory 64M --host-sysinfo --start")?;
    ensure!(house.sh("other", TOTAL)? != "65536");
    house.ok("delete web --force")?;
    house.ok("delete other --force")?;
    house.nothing_left()?;
    house.leave()
}

/// The process that keeps the listeners of all VPSs of this house.
fn keeper(house: &House) -> Result<Option<i32>> {
    let runs = house.run_of("web");
    let runs = runs.parent().context("no parent")?.to_string_lossy().into_owned();
    let wanted = format!("condo-monitor\0keep\0{runs}\0");
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line == wanted.as_bytes() {
            return Ok(entry.file_name().to_string_lossy().parse().ok());
        }
    }
    Ok(None)
}

/// One process keeps the kernel's connections of all VPSs. Whichever of those that answer or keep is killed, calls neither fail nor hang.
fn sysinfo_outlives_who_keeps_its_connections() -> Result<()> {
    let mut house = House::new()?;
    // busybox's `free` wants the file as well; here the kernel's, which needs nobody who tells it.
    asking(&mut house, "busybox umount /proc/meminfo")?;
    for name in ["web", "other"] {
        house.ok(&format!("create {name} --image asking --memory 64M --start"))?;
    }
    let told = told(&house)?;
    let first = keeper(&house)?.context("there is no keeper")?;
    end(first)?;
    eventually("there is another keeper", || {
        Ok(keeper(&house)?.is_some_and(|other| other != first))
    })?;
    told_by_init(&told, "65536")?;
    // Nobody answers for a while: the kernel does.
    house.kill_monitor("web")?;
    let host = std::fs::read_to_string("/proc/meminfo")?;
    let host = host
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1));
    told_by_init(&told, host.context("no memory")?)?;
    ensure!(house.sh("web", TOTAL)? == "65536");
    told_by_init(&told, "65536")?;
    ensure!(house.sh("other", TOTAL)?.starts_with("65536"));
    // It ends with the last of them.
    for name in ["web", "other"] {
        house.ok(&format!("stop {name} --timeout 0"))?;
    }
    let last = keeper(&house)?;
    ensure!(last.is_none(), "{last:?} is left");
    for name in ["web", "other"] {
        house.ok(&format!("delete {name}"))?;
    }
    house.nothing_left()?;
    house.leave()
}

/// How many programs ask without a pause, and how often the process that answers them is killed: so often that a call is under way once.
const ASKING: usize = 4;
const KILLS: usize = 30;

/// The process that tells figures in the monitor's place.
fn teller(house: &House) -> Result<i32> {
    let teller = std::fs::read(house.run_of("web").join("figures.json"))?;
    let teller: serde_json::Value = serde_json::from_slice(&teller)?;
    Ok(i32::try_from(teller["pid"].as_i64().context("no pid")?)?)
}

/// A call that is being answered at the death of that process goes on as well: the kernel gives it to nobody else.
fn no_call_waits_for_a_process_that_was_killed() -> Result<()> {
    let mut house = House::new()?;
    let one = "(while :; do busybox uptime > /dev/null; : > /beat.$n; done) &";
    let all = format!("n=0; while [ $n -lt {ASKING} ]; do n=$((n + 1)); {one} done; wait");
    house.import("asking", &all)?;
    // Thousands of processes end each second. On a busy machine the kernel frees them late, and until then the VPS pays for them.
    house.ok("create web --image asking --memory 1G --start")?;
    let inside = PathBuf::from(format!("/proc/{}/root", house.init("web")?));
    let beats: Vec<_> = (1..=ASKING).map(|n| inside.join(format!("beat.{n}"))).collect();
    house.kill_monitor("web")?;
    for round in 0..KILLS {
        house.sh("web", "true")?;
        // It has begun to answer.
        beats.iter().for_each(|beat| drop(std::fs::remove_file(beat)));
        eventually(&format!("all ask in round {round}"), || {
            Ok(beats.iter().all(|beat| beat.exists()))
        })?;
        end(teller(&house)?)?;
    }
    house.ok("delete web --force")?;
    house.nothing_left()?;
    house.leave()
}
