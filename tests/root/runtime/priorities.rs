//! What the kernel gives a container's processes: scheduler, input and output priority, processors, personality, memory nodes.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Container, ensure_eq};
use crate::harness;

tests![
    a_process_of_a_file_has_the_container_s_score_where_it_names_none,
    a_process_of_a_file_has_the_container_s_niceness_where_it_names_none,
    personality_names_the_machine,
    scheduler_of_init_and_exec,
    scheduler_with_deadlines,
    scheduler_in_real_time,
    real_time_is_the_cgroup_s_to_give,
    scheduler_in_a_user_namespace,
    hooks_run_before_the_scheduler,
    io_priority_of_init_and_exec,
    affinity_of_exec_only,
    affinity_that_cannot_be,
    memory_policy_of_init_and_exec,
    memory_policy_that_cannot_be,
];

/// Policy, nice and real-time priority of a process.
fn scheduling(pid: i32) -> Result<(i64, i64, i64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // proc_pid_stat(5) counts from 1, and two fields are cut off: nice 19, rt_priority 40, policy 41.
    let field = |n: usize| -> Result<i64> { Ok(fields[n - 3].parse()?) };
    Ok((field(41)?, field(19)?, field(40)?))
}

/// A container that does nothing for long, scheduled like this.
fn scheduled(scheduler: Value) -> Result<Container> {
    let mut c = Container::idle()?;
    c.set("/process/scheduler", scheduler)?;
    Ok(c)
}

fn a_process_of_a_file_has_the_container_s_score_where_it_names_none() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/process/oomScoreAdj", 400.into())?;
    c.up()?;
    ensure_eq!(exec_of_a_file(&c, &["cat", "/proc/self/oom_score_adj"])?, "400\n");
    Ok(())
}

fn a_process_of_a_file_has_the_container_s_niceness_where_it_names_none() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::idle()?;
    c.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 5}))?;
    c.up()?;
    ensure_eq!(
        exec_of_a_file(&c, &["sh", "-c", "cut -d' ' -f19 /proc/$$/stat"])?,
        "5\n"
    );
    Ok(())
}

/// What a process prints whose file names little more than its arguments.
fn exec_of_a_file(c: &Container, args: &[&str]) -> Result<String> {
    let file = harness::tempdir().join("process.json");
    let process = json!({"args": args, "cwd": "/", "env": ["PATH=/bin"]});
    fs::write(&file, process.to_string())?;
    c.exec(&["--process", file.to_str().context("a path")?, "@"])?
        .ok()
}

fn personality_names_the_machine() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::sh("uname -m; exec sleep 100000")?;
    c.set("/linux/personality", json!({"domain": "LINUX32"}))?;
    c.up()?;
    super::until("it speaks", || Ok(!c.printed().is_empty()))?;
    let machine = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    ensure_eq!(c.printed().trim(), machine);
    ensure_eq!(c.exec(&["@", "uname", "-m"])?.ok()?.trim(), machine);
    let mut c = Container::new(&["uname", "-m"])?;
    c.set("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}))?;
    ensure_eq!(c.run()?.ok()?.trim(), std::env::consts::ARCH);
    Ok(())
}

fn scheduler_of_init_and_exec() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let c = scheduled(json!({"policy": "SCHED_BATCH", "nice": 7}))?;
    c.up()?;
    ensure_eq!(scheduling(c.pid()?)?, (3, 7, 0));
    let stat = c.exec(&["@", "cut", "-d ", "-f19,41", "/proc/self/stat"])?.ok()?;
    ensure_eq!(stat.trim(), "7 3");
    let mut own = c.bundle.config["process"].clone();
    own["args"] = json!(["cut", "-d ", "-f19,41", "/proc/self/stat"]);
    own["scheduler"] = json!({"policy": "SCHED_IDLE"});
    let file = harness::tempdir().join("process.json");
    fs::write(&file, own.to_string())?;
    let file = file.to_string_lossy().into_owned();
    ensure_eq!(c.exec(&["--process", &file, "@"])?.ok()?.trim(), "0 5");
    Ok(())
}

/// A v1 cgroup would first need a share of real time for SCHED_FIFO; deadlines need none.
fn scheduler_with_deadlines() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = scheduled(json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }))?;
    c.up()?;
    let (policy, ..) = scheduling(c.pid()?)?;
    ensure_eq!(policy, 6);
    let said = harness::run(Command::new("chrt").args(["--pid", &c.pid()?.to_string()]))?;
    super::says_all(&said, &["SCHED_RESET_ON_FORK", "1000000/50000000/100000000"])?;
    // Init runs hooks under its deadlines: its children have none, or it may have no children.
    c.delete()?;
    c.set("/hooks/startContainer", json!([{"path": "/bin/true"}]))?;
    c.up()?;
    c.delete()?;
    c.set("/process/scheduler/flags", json!([]))?;
    c.refused(&["process.scheduler.policy", "startContainer"])
}

fn scheduler_in_real_time() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = scheduled(json!({"policy": "SCHED_FIFO", "priority": 7}))?;
    if harness::has("realtime_groups") {
        c.set("/linux/resources/cpu", json!({"realtimeRuntime": 20_000}))?;
    }
    c.up()?;
    let (policy, _, priority) = scheduling(c.pid()?)?;
    ensure_eq!((policy, priority), (1, 7));
    Ok(())
}

fn real_time_is_the_cgroup_s_to_give() -> Result<()> {
    needs!(realtime_groups);
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = scheduled(json!({"policy": "SCHED_RR", "priority": 1}))?;
    c.refused(&["process.scheduler"])?;
    c.set(
        "/linux/resources/cpu",
        json!({"realtimeRuntime": 30_000, "realtimePeriod": 500_000}),
    )?;
    c.up()?;
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/cpu{}/cpu.{file}", c.cgroup()));
    ensure_eq!(
        (read("rt_runtime_us")?.trim(), read("rt_period_us")?.trim()),
        ("30000", "500000")
    );
    Ok(())
}

fn scheduler_in_a_user_namespace() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = scheduled(json!({"policy": "SCHED_OTHER", "nice": -5}))?;
    c.with_user_namespace()?;
    c.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_BE", "priority": 0}),
    )?;
    c.up()?;
    ensure_eq!(scheduling(c.pid()?)?, (0, -5, 0));
    ensure_eq!(io_priority(c.pid()?)?, 2 << 13);
    Ok(())
}

fn hooks_run_before_the_scheduler() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = scheduled(json!({"policy": "SCHED_OTHER", "nice": 9}))?;
    let out = harness::tempdir().join("nice");
    let hook = format!("cut -d' ' -f19 /proc/self/stat > {}", out.display());
    c.set(
        "/hooks/createRuntime",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", hook]}]),
    )?;
    let own = scheduling(std::process::id().cast_signed())?.1;
    c.up()?;
    ensure_eq!(fs::read_to_string(out)?.trim(), own.to_string());
    ensure_eq!(scheduling(c.pid()?)?.1, 9);
    Ok(())
}

/// As `ionice -p` reads it: the class, and the level.
fn io_priority(pid: i32) -> Result<i64> {
    let said = harness::run(Command::new("/bin/busybox").args(["ionice", "-p", &pid.to_string()]))?;
    let said = said.trim();
    let (class, level) = said.split_once(": prio ").unwrap_or((said, "0"));
    let class = match class {
        "realtime" => 1,
        "best-effort" => 2,
        "idle" => 3,
        _ => 0,
    };
    Ok(class << 13 | level.parse::<i64>()?)
}

fn io_priority_of_init_and_exec() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::idle()?;
    c.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_RT", "priority": 3}),
    )?;
    c.up()?;
    ensure_eq!(io_priority(c.pid()?)?, 1 << 13 | 3);
    let pid = c.exec_detached(&[], &["sleep", "100000"])?;
    let found = io_priority(pid);
    super::end(pid)?;
    ensure_eq!(found?, 1 << 13 | 3);
    Ok(())
}

/// The processors a process may use, by its own words.
const ALLOWED: &[&str] = &["grep", "Cpus_allowed_list", "/proc/self/status"];

fn affinity_of_exec_only() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::idle()?;
    c.set("/process/execCPUAffinity", json!({"initial": "", "final": "0"}))?;
    c.up()?;
    let allowed = |pid: i32| -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|l| l.starts_with("Cpus_allowed_list"));
        Ok(line.unwrap_or_default().to_owned())
    };
    ensure_eq!(allowed(c.pid()?)?, allowed(std::process::id().cast_signed())?);
    let said = c.exec(&[&["@"], ALLOWED].concat())?.ok()?;
    ensure_eq!(said.trim(), "Cpus_allowed_list:\t0");
    // What it begins with is the runtime's, before the cgroup: afterwards the last word is `final`'s.
    let mut own = c.bundle.config["process"].clone();
    own["args"] = json!(ALLOWED);
    own["execCPUAffinity"] = json!({"initial": "0", "final": "0-1"});
    let file = harness::tempdir().join("process.json");
    fs::write(&file, own.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let said = c.exec(&["--process", &file, "@"])?.ok()?;
    let last = if std::thread::available_parallelism()?.get() > 1 {
        "0-1"
    } else {
        "0"
    };
    ensure_eq!(said.trim(), format!("Cpus_allowed_list:\t{last}"));
    // Since 6.2 a cgroup lets a process keep of its own choice what it allows.
    if harness::has("linux_6_3") {
        own["execCPUAffinity"] = json!({"initial": "0"});
        fs::write(&file, own.to_string())?;
        let said = c.exec(&["--process", &file, "@"])?.ok()?;
        ensure_eq!(said.trim(), "Cpus_allowed_list:\t0");
    }
    Ok(())
}

fn affinity_that_cannot_be() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let c = Container::idle()?;
    c.up()?;
    for (affinity, words) in [
        (json!({"initial": "1000"}), "process.execCPUAffinity.initial"),
        (json!({"final": "1000"}), "process.execCPUAffinity.final"),
        (json!({"final": "1-0"}), "process.execCPUAffinity.final: `1-0`"),
    ] {
        let mut own = c.bundle.config["process"].clone();
        own["execCPUAffinity"] = affinity;
        let file = harness::tempdir().join("process.json");
        fs::write(&file, own.to_string())?;
        let file = file.to_string_lossy().into_owned();
        let fault = c.exec(&["--process", &file, "@"])?.fault()?;
        ensure!(fault.contains(words), "{fault}");
    }
    ensure_eq!(c.status()?, "running");
    Ok(())
}

fn memory_policy_of_init_and_exec() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::sh("cut -d' ' -f2 /proc/self/numa_maps | sort -u; exec sleep 100000")?;
    c.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    )?;
    c.up()?;
    super::until("it speaks", || Ok(!c.printed().is_empty()))?;
    ensure_eq!(c.printed().trim(), "bind=static:0");
    let said = c
        .exec(&["@", "cut", "-d ", "-f2", "/proc/self/numa_maps"])?
        .ok()?;
    ensure!(
        !said.is_empty() && said.lines().all(|l| l == "bind=static:0"),
        "{said}"
    );
    let mut c = Container::sh("cut -d' ' -f2 /proc/self/numa_maps | sort -u")?;
    c.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
    )?;
    ensure_eq!(c.run()?.ok()?.trim(), "interleave:0");
    Ok(())
}

fn memory_policy_that_cannot_be() -> Result<()> {
    known_difference!("runc", "1.1 is older than these fields");
    let mut c = Container::new(&["true"])?;
    // No machine of the tests has that many nodes.
    c.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_BIND", "nodes": "1000"}),
    )?;
    let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
    ensure!(fault.contains("linux.memoryPolicy"), "{fault}");
    c.nothing_left()
}
