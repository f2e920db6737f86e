//! `--systemd-cgroup`: containers as transient scopes. Needs systemd as PID 1 (`TIER=systemd make test-vm T=systemd`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, end, ensure_eq, lives, until};
use crate::harness;

tests![
    systemd_makes_a_scope_with_its_properties: 120,
    systemd_limits_hold_and_survive_a_reload: 120,
    systemd_updates_properties_and_files: 120,
    systemd_weight_ends_idleness: 120,
    systemd_limits_of_controllers_that_it_has_not: 120,
    systemd_frozen_cgroup_is_refused_and_stays: 120,
    systemd_scope_takes_in_exec_and_pauses: 120,
    systemd_one_process_is_enough: 120,
    systemd_two_containers_share_a_slice: 120,
    systemd_scope_without_a_cgroup_namespace: 120,
    systemd_annotations_are_properties: 120,
    systemd_refuses_and_leaves_nothing: 120,
    systemd_name_in_use: 120,
    systemd_failed_unit_of_the_name_is_replaced: 120,
    systemd_failed_unit_stays_until_delete: 120,
    systemd_kills_in_the_middle_are_cleared: 300,
    systemd_bus_out_of_reach,
    systemd_is_missed_by_name,
];

/// A container whose scope is `<slice>:condo:<id>`.
fn scoped(slice: &str, args: &[&str]) -> Result<Container> {
    let mut c = Container::new(args)?;
    // The harness knows what is ours by this beginning.
    let path = format!("{slice}:condo-test:{}", c.id);
    c.set("/linux/cgroupsPath", json!(path))?;
    Ok(c)
}

fn idle() -> Result<Container> {
    scoped("system.slice", &["sleep", "100000"])
}

fn unit(c: &Container) -> String {
    format!("condo-test-{}.scope", c.id)
}

fn dir(c: &Container) -> PathBuf {
    Path::new("/sys/fs/cgroup/system.slice").join(unit(c))
}

fn create(c: &Container) -> Result<()> {
    c.create_with(c.command(&["--systemd-cgroup", "create", "--bundle", "%", "@"]))
}

fn up(c: &Container) -> Result<()> {
    create(c)?;
    c.start()
}

/// What systemd says of one property.
fn property(unit: &str, name: &str) -> Result<String> {
    let mut command = Command::new("systemctl");
    let text = harness::run(command.args(["show", "--value", "--property", name, unit]))?;
    Ok(text.trim().to_owned())
}

fn value(c: &Container, file: &str) -> Result<String> {
    let path = dir(c).join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// systemd has one property for both.
fn systemd_weight_ends_idleness() -> Result<()> {
    needs!(root, systemd);
    let c = idle()?;
    up(&c)?;
    let both = ["update", "--cpu-share", "200", "--cpu-idle", "1", "@"];
    let warned = c.call(&both)?.err;
    ensure!(warned.contains("unable to apply both"), "{warned}");
    ensure_eq!(value(&c, "cpu.idle")?, "1");
    c.call(&["update", "--cpu-share", "200", "@"])?.ok()?;
    ensure_eq!(value(&c, "cpu.idle")?, "0");
    ensure_eq!(property(&unit(&c), "CPUWeight")?, value(&c, "cpu.weight")?);
    let file = harness::tempdir().join("limits");
    for (limits, idle) in [
        (r#"{"unified": {"cpu.idle": "1", "cpu.weight": "8"}}"#, "1"),
        (r#"{"unified": {"cpu.weight": "8"}}"#, "0"),
    ] {
        fs::write(&file, limits)?;
        c.call(&["update", "-r", file.to_str().context("a path")?, "@"])?
            .ok()?;
        ensure_eq!(value(&c, "cpu.idle")?, idle);
    }
    c.cleared()
}

/// systemd enables what it knows, which hugetlb is not.
fn systemd_limits_of_controllers_that_it_has_not() -> Result<()> {
    needs!(root, systemd, cgroup2);
    let mut c = idle()?;
    let limit = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    c.set("/linux/resources/hugepageLimits", limit)?;
    up(&c)?;
    ensure_eq!(value(&c, "hugetlb.2MB.max")?, (4 << 20).to_string());
    c.cleared()
}

fn systemd_frozen_cgroup_is_refused_and_stays() -> Result<()> {
    needs!(root, systemd, cgroup2);
    let c = idle()?;
    fs::create_dir(dir(&c))?;
    fs::write(dir(&c).join("cgroup.freeze"), "1")?;
    for command in ["run", "create"] {
        let fault = c
            .call(&["--systemd-cgroup", command, "--bundle", "%", "@"])?
            .fault()?;
        ensure!(
            fault.contains("container's cgroup unexpectedly frozen"),
            "{command}: {fault}"
        );
        ensure_eq!(value(&c, "cgroup.freeze")?, "1");
    }
    ensure!(!c.root.join(&c.id).exists(), "the state is left");
    Ok(fs::remove_dir(dir(&c))?)
}

/// Nothing of it is left with systemd or in the tree.
fn nothing_left(c: &Container) -> Result<()> {
    ensure!(!c.root.join(&c.id).exists(), "the state is left");
    let unit = unit(c);
    until("the unit is collected", || {
        Ok(property(&unit, "LoadState")? == "not-found" && !dir(c).exists())
    })
}

fn systemd_makes_a_scope_with_its_properties() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 67_108_864, "reservation": 1_048_576}),
    )?
    .set(
        "/linux/resources/cpu",
        json!({"shares": 2048, "quota": 12_345, "period": 100_000, "cpus": "0"}),
    )?
    .set("/linux/resources/pids", json!({"limit": 77}))?
    .set("/linux/resources/unified", json!({"memory.high": "33554432"}))?;
    create(&c)?;
    let unit = unit(&c);
    for (name, expected) in [
        ("ActiveState", "active"),
        ("Transient", "yes"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("ControlGroup", &format!("/system.slice/{unit}")),
        ("Description", &format!("condo container {}", c.id)),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "1048576"),
        ("MemoryHigh", "33554432"),
        ("TasksMax", "77"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("AllowedCPUs", "0"),
        ("MemoryAccounting", "yes"),
    ] {
        ensure_eq!((name, property(&unit, name)?.as_str()), (name, expected));
    }
    // As systemd rounds: a reload changes nothing.
    ensure_eq!(value(&c, "cpu.max")?, "13000 100000");
    ensure_eq!(value(&c, "cgroup.procs")?, c.pid()?.to_string());
    // Nobody repeats the flag.
    ensure_eq!(c.status()?, "created");
    ensure!(c.call(&["list"])?.ok()?.contains(&c.id));
    c.start()?;
    let inside = c
        .exec(&["@", "cat", "/proc/self/cgroup", "/sys/fs/cgroup/cgroup.procs"])?
        .ok()?;
    ensure!(
        inside.starts_with("0::/\n"),
        "init was in its scope before its cgroup namespace: {inside}"
    );
    c.call(&["kill", "@", "KILL"])?.ok()?;
    c.stopped()?;
    c.call(&["delete", "@"])?.ok()?;
    nothing_left(&c)
}

fn systemd_limits_hold_and_survive_a_reload() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set("/linux/resources/pids", json!({"limit": 9}))?
        .set(
            "/linux/resources/memory",
            json!({"limit": 33_554_432, "swap": 33_554_432}),
        )?
        .set(
            "/linux/resources/cpu",
            json!({"quota": 50_000, "period": 100_000, "shares": 512}),
        )?
        .set("/linux/resources/blockIO", json!({"weight": 500}))
        .map(drop)?;
    up(&c)?;
    let files = [
        "pids.max",
        "memory.max",
        "memory.swap.max",
        "cpu.max",
        "cpu.weight",
        "io.weight",
    ];
    let values = |c: &Container| -> Result<Vec<String>> { files.iter().map(|f| value(c, f)).collect() };
    let before = values(&c)?;
    ensure_eq!(
        before[..4],
        ["9", "33554432", "0", "50000 100000"].map(str::to_owned)
    );
    harness::run(Command::new("systemctl").arg("daemon-reload"))?;
    // A unit that starts beside it makes systemd go over the slice.
    let beside = format!("--unit={}", harness::unique());
    harness::run(Command::new("systemd-run").args(["--wait", "--quiet", &beside, "true"]))?;
    ensure_eq!(values(&c)?, before);
    // They hold, and so does the filter of devices, which systemd knows nothing of.
    let open = |device: &str| {
        let script = format!("mknod /tmp/node {device} && head -c 1 /tmp/node && rm /tmp/node");
        c.exec(&["--cap", "CAP_MKNOD", "@", "sh", "-c", &script])
    };
    open("c 1 5")?.ok()?;
    let disk = open("b 8 0")?;
    ensure!(disk.err.contains("not permitted"), "{disk:?}");
    let fork = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done";
    let refused = c.exec(&["@", "sh", "-c", fork])?;
    ensure!(refused.err.contains("fork"), "{refused:?}");
    let grow = c.exec(&["@", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"])?;
    ensure!(!grow.status.success(), "{grow:?}");
    c.delete()?;
    nothing_left(&c)
}

fn systemd_updates_properties_and_files() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set("/linux/resources/pids", json!({"limit": 9}))?;
    up(&c)?;
    c.call(&[
        "update",
        "--pids-limit",
        "12",
        "--memory",
        "64M",
        "--cpu-quota",
        "20000",
        "@",
    ])?
    .ok()?;
    let unit = unit(&c);
    harness::run(Command::new("systemctl").arg("daemon-reload"))?;
    for (name, expected) in [
        ("TasksMax", "12"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "200ms"),
    ] {
        ensure_eq!(property(&unit, name)?, expected);
    }
    for (file, expected) in [
        ("pids.max", "12"),
        ("memory.max", "67108864"),
        ("cpu.max", "20000 100000"),
    ] {
        ensure_eq!(value(&c, file)?, expected);
    }
    let both = c.call(&["update", "--cpu-share", "200", "--cpu-idle", "1", "@"])?;
    ensure!(both.err.contains("unable to apply both"), "{both:?}");
    ensure_eq!(value(&c, "cpu.idle")?, "1");
    c.delete()?;
    nothing_left(&c)
}

fn systemd_scope_takes_in_exec_and_pauses() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let c = idle()?;
    up(&c)?;
    let other = c.exec_detached(&[], &["sleep", "100000"])?;
    let cgroup = fs::read_to_string(format!("/proc/{other}/cgroup"))?;
    ensure_eq!(cgroup.trim(), format!("0::/system.slice/{}", unit(&c)));
    c.call(&["pause", "@"])?.ok()?;
    ensure_eq!(c.status()?, "paused");
    c.call(&["resume", "@"])?.ok()?;
    ensure!(c.call(&["events", "--stats", "@"])?.ok()?.contains("\"stats\""));
    ensure_eq!(
        c.call(&["ps", "--format", "json", "@"])?
            .ok()?
            .matches(',')
            .count(),
        1
    );
    c.call(&["kill", "--all", "@", "KILL"])?.ok()?;
    end(other)?;
    c.delete()?;
    nothing_left(&c)
}

fn systemd_one_process_is_enough() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set("/linux/resources/pids", json!({"limit": 1}))?;
    up(&c)?;
    ensure_eq!(value(&c, "pids.max")?, "1");
    ensure_eq!(property(&unit(&c), "TasksMax")?, "1");
    c.delete()?;
    nothing_left(&c)
}

fn systemd_two_containers_share_a_slice() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let slice = format!("condotest-{}.slice", std::process::id());
    let (a, b) = (
        scoped(&slice, &["sleep", "100000"])?,
        scoped(&slice, &["sleep", "100000"])?,
    );
    up(&a)?;
    up(&b)?;
    let above = Path::new("/sys/fs/cgroup/condotest.slice").join(&slice);
    for c in [&a, &b] {
        ensure_eq!(
            fs::read_to_string(above.join(unit(c)).join("cgroup.procs"))?.trim(),
            c.pid()?.to_string()
        );
    }
    a.delete()?;
    ensure!(lives(b.pid()?), "the other went as well");
    ensure_eq!(b.status()?, "running");
    b.delete()?;
    for c in [&a, &b] {
        nothing_left(c)?;
    }
    harness::run(Command::new("systemctl").args(["stop", &slice, "condotest.slice"]))?;
    Ok(())
}

/// A privileged pod: its own cgroup is all it sees, which must be there before its mounts are opened.
fn systemd_scope_without_a_cgroup_namespace() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = scoped(
        "",
        &[
            "sh",
            "-c",
            // The whole hierarchy is in sight.
            "read -r own < /proc/self/cgroup; cat /sys/fs/cgroup${own#0::}/cgroup.procs; echo $own",
        ],
    )?;
    c.namespace("cgroup", None)?;
    let out = c
        .call(&["--cgroup-manager", "systemd", "run", "--bundle", "%", "@"])?
        .ok()?;
    ensure!(
        out.contains("1\n") && out.contains(&format!("0::/system.slice/{}", unit(&c))),
        "{out}"
    );
    let mut user = idle()?;
    user.with_user_namespace()?;
    up(&user)?;
    ensure_eq!(value(&user, "cgroup.procs")?, user.pid()?.to_string());
    user.delete()?;
    nothing_left(&user)?;
    nothing_left(&c)
}

fn systemd_failed_unit_stays_until_delete() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set(
        "/annotations",
        json!({"org.systemd.property.RuntimeMaxSec": "8", "org.systemd.property.TimeoutStopSec": "1"}),
    )?;
    up(&c)?;
    c.stopped()?;
    let unit = unit(&c);
    until("the unit has failed", || {
        Ok(property(&unit, "ActiveState")? == "failed" && property(&unit, "Result")? == "timeout")
    })?;
    c.call(&["delete", "@"])?.ok()?;
    nothing_left(&c)
}

fn systemd_annotations_are_properties() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.Description": "'it\\'s mine'",
            "org.systemd.property.Before": "['a.service', 'b.service']",
        }),
    )?;
    create(&c)?;
    let unit = unit(&c);
    ensure_eq!(property(&unit, "TimeoutStopUSec")?, "7s");
    ensure_eq!(property(&unit, "Description")?, "it's mine");
    ensure!(property(&unit, "Before")?.contains("b.service"));
    c.delete()?;
    nothing_left(&c)?;
    for (name, text, word) in [
        ("CollectMode", "inactive", "in quotes"),
        ("NoSuchProperty", "5", "NoSuchProperty"),
        ("TasksMax", "'many'", "TasksMax"),
    ] {
        c.set(
            "/annotations",
            json!({format!("org.systemd.property.{name}"): text}),
        )?;
        let ran = c.call(&["--systemd-cgroup", "run", "--bundle", "%", "@"])?;
        let fault = ran.fault()?;
        ensure!(fault.contains(word), "{fault}");
        nothing_left(&c)?;
    }
    Ok(())
}

fn systemd_refuses_and_leaves_nothing() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let mut c = idle()?;
    c.set("/process/args", json!(["/no/such/program"]))?;
    let fault = c
        .call(&["--systemd-cgroup", "run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(fault.contains("no such file"), "{fault}");
    nothing_left(&c)?;
    for (path, words) in [
        ("/a/b", "slice:prefix:name"),
        ("a:b:c", "name of a slice"),
        ("system.slice:b:c.slice", "holds no processes"),
    ] {
        c.set("/linux/cgroupsPath", json!(path))?;
        let fault = c
            .call(&["--systemd-cgroup", "create", "--bundle", "%", "@"])?
            .fault()?;
        ensure!(
            fault.contains("linux.cgroupsPath") && fault.contains(words),
            "{fault}"
        );
    }
    c.nothing_left()
}

fn systemd_name_in_use() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let a = idle()?;
    up(&a)?;
    let mut b = idle()?;
    b.set(
        "/linux/cgroupsPath",
        a.bundle.config["linux"]["cgroupsPath"].clone(),
    )?;
    let fault = b
        .call(&["--systemd-cgroup", "run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(
        fault.contains("linux.cgroupsPath")
            && fault.contains(&unit(&a))
            && fault.contains("container's cgroup is not empty"),
        "{fault}"
    );
    ensure!(!b.root.join(&b.id).exists(), "the state is left");
    ensure!(lives(a.pid()?), "another's scope was touched");
    ensure_eq!(property(&unit(&a), "ActiveState")?, "active");
    a.delete()?;
    nothing_left(&a)
}

fn systemd_failed_unit_of_the_name_is_replaced() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let c = idle()?;
    let unit = unit(&c);
    // One that ran out of time is failed, and stays without CollectMode=.
    let flags = [
        "--scope",
        "--quiet",
        "--unit",
        &unit,
        "--property=RuntimeMaxSec=1",
    ];
    let _ = Command::new("systemd-run")
        .args(flags)
        .args(["sleep", "100"])
        .output()?;
    until(
        "it has failed",
        || Ok(property(&unit, "ActiveState")? == "failed"),
    )?;
    up(&c)?;
    ensure_eq!(property(&unit, "ActiveState")?, "active");
    c.delete()?;
    nothing_left(&c)
}

fn systemd_kills_in_the_middle_are_cleared() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let c = idle()?;
    let begin = std::time::Instant::now();
    create(&c)?;
    let whole = begin.elapsed();
    c.delete()?;
    let rounds = 12;
    for round in 0..rounds {
        let mut child = c
            .command(&["--systemd-cgroup", "create", "--bundle", "%", "@"])
            .spawn()?;
        std::thread::sleep(
            whole
                .mul_f64(f64::from(round) / f64::from(rounds))
                .max(Duration::from_millis(1)),
        );
        child.kill()?;
        child.wait()?;
        c.delete()?;
        nothing_left(&c)?;
    }
    Ok(())
}

fn systemd_bus_out_of_reach() -> Result<()> {
    needs!(root, ours, systemd, cgroup2);
    let c = idle()?;
    for (address, words) in [
        ("unix:path=/no/such/bus", "no such file"),
        ("tcp:host=x", "no address"),
    ] {
        let mut command = c.command(&["--systemd-cgroup", "create", "--bundle", "%", "@"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", address);
        let fault = super::to_the_end(command)?.fault()?;
        ensure!(
            fault.contains(words) && fault.contains("--cgroup-manager cgroupfs"),
            "{fault}"
        );
        nothing_left(&c)?;
    }
    Ok(())
}

/// The other way round: on every other host the refusal says why.
fn systemd_is_missed_by_name() -> Result<()> {
    needs!(root, ours);
    if harness::has("systemd") && harness::has("cgroup2") {
        return Ok(());
    }
    let c = idle()?;
    let fault = c
        .call(&["--systemd-cgroup", "create", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(
        fault.contains("systemd") && fault.contains("--cgroup-manager cgroupfs"),
        "{fault}"
    );
    ensure!(!c.root.join(&c.id).exists(), "the state is left");
    // Callers repeat the flag for every command.
    ensure!(
        c.call(&["--systemd-cgroup", "delete", "--force", "@"])?
            .status
            .success()
    );
    Ok(())
}
