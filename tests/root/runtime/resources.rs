//! The container's cgroup: it is in it from the start, its limits hold, and it is the container's alone. (What each limit
//! writes is tested in `cgroups`.)

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, cgroups, ensure_eq, until};
use crate::harness;

tests![
    init_is_in_its_cgroup_when_create_returns in guest,
    a_new_weight_ends_idleness in guest,
    a_vps_of_an_engine_has_processors_for_its_time: 60,
    a_pids_limit_holds in guest,
    keys_are_read_whatever_their_case,
    a_memory_limit_holds in guest,
    the_kill_that_ends_a_container_is_an_event in guest,
    limits_are_written in guest,
    devices_are_denied in guest,
    a_cgroup_in_use_is_refused in guest,
    a_frozen_cgroup_is_refused in guest,
    a_directory_without_a_mount_is_no_hierarchy,
    a_container_without_a_path_gets_one_that_goes_with_it in guest,
    a_limit_the_kernel_refuses_leaves_nothing in guest,
    a_delegated_cgroup_belongs_to_the_containers_root in guest,
    exec_follows_init_to_its_cgroup_below in guest,
    no_limit_of_memory_is_none_of_swap in guest,
    a_pids_limit_of_zero_is_one in guest,
    tun_is_allowed in guest,
];

/// The cgroup's directory of a v1 controller, or the one on v2.
fn dir(c: &Container, controller: &str) -> Result<PathBuf> {
    let all = c.cgroups();
    let of_v1 = |p: &&PathBuf| {
        p.components().any(|part| {
            part.as_os_str()
                .to_string_lossy()
                .split(',')
                .any(|n| n == controller)
        })
    };
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let found = if v2 { all.first() } else { all.iter().find(of_v1) };
    found.cloned().context("no cgroup")
}

fn init_is_in_its_cgroup_when_create_returns() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    for hierarchy in ["memory", "pids", "cpu"] {
        let procs = fs::read_to_string(dir(&c, hierarchy)?.join("cgroup.procs"))?;
        ensure_eq!(procs.trim(), c.pid()?.to_string());
    }
    ensure!(text.lines().any(|l| l.ends_with(&c.cgroup())), "{text}");
    Ok(())
}

fn a_new_weight_ends_idleness() -> Result<()> {
    known_difference!(
        "runc",
        "has the kernel refuse the weight, unless systemd makes the cgroup"
    );
    let c = Container::idle()?;
    c.up()?;
    let file = dir(&c, "cpu")?.join("cpu.idle");
    let idle = || fs::read_to_string(&file).with_context(|| file.display().to_string());
    c.call(&["update", "--cpu-idle", "1", "@"])?.ok()?;
    // What says nothing of either changes neither.
    c.call(&["update", "--pids-limit", "50", "@"])?.ok()?;
    ensure_eq!(idle()?, "1\n");
    c.call(&["update", "--cpu-share", "200", "@"])?.ok()?;
    ensure_eq!(idle()?, "0\n");
    Ok(())
}

/// As many as it has time for, unless the engine names them.
fn a_vps_of_an_engine_has_processors_for_its_time() -> Result<()> {
    needs!(root, ours, userns, linux_6_3);
    let all = std::thread::available_parallelism()?.get();
    let mut c = Container::idle()?;
    c.set("/annotations", json!({ "io.condo.vps": "true" }))?;
    c.set(
        "/linux/resources/cpu",
        json!({ "quota": 100_000, "period": 100_000 }),
    )?;
    c.up()?;
    let has = |count: usize| -> Result<()> {
        ensure_eq!(
            c.exec(&["@", "busybox", "nproc"])?.ok()?.trim(),
            count.to_string()
        );
        Ok(())
    };
    let update = |flags: &[&str]| c.call(&[&["update"], flags, &["@"]].concat())?.ok();
    let whole = (all * 100_000).to_string();
    has(1)?;
    update(&["--cpu-quota", &whole])?;
    has(all)?;
    update(&["--cpu-quota", "100000"])?;
    has(1)?;
    update(&["--cpu-quota", "-1"])?;
    has(all)?;
    update(&["--cpuset-cpus", "0"])?;
    update(&["--cpu-quota", &whole])?;
    has(1)?;
    c.delete()
}

fn a_pids_limit_holds() -> Result<()> {
    let mut c = Container::sh("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait")?;
    c.set("/linux/resources/pids", json!({"limit": 4}))?;
    let ran = c.run()?;
    ensure!(ran.err.contains("fork"), "{ran:?}");
    c.nothing_left()
}

fn keys_are_read_whatever_their_case() -> Result<()> {
    let mut c = Container::sh("hostname; exec sleep 100000")?;
    c.set("/linux/resources/pids", json!({"limit": 99}))?;
    let file = c.bundle.dir.join("config.json");
    let mut text = fs::read_to_string(&file)?;
    for (right, given) in [
        ("args", "ARGS"),
        ("hostname", "HostName"),
        ("pids", "Pids"),
        ("limit", "Limit"),
    ] {
        text = text.replace(&format!("\"{right}\": "), &format!("\"{given}\" : "));
    }
    fs::write(&file, text)?;
    c.up()?;
    until("it prints", || Ok(c.printed() == "test\n"))?;
    let limit = dir(&c, "pids")?.join("pids.max");
    ensure_eq!(fs::read_to_string(&limit)?, "99\n");
    let (update, process) = (c.bundle.dir.join("update"), c.bundle.dir.join("process"));
    fs::write(&update, r#"{"PIDS":{"lImit":77}}"#)?;
    let path = update.to_str().context("a path")?;
    c.call(&["update", "--resources", path, "@"])?.ok()?;
    ensure_eq!(fs::read_to_string(&limit)?, "77\n");
    fs::write(
        &process,
        r#"{"User":{"UID":5,"GID":6},"Args":["/bin/id","-u"],"Cwd":"/"}"#,
    )?;
    let path = process.to_str().context("a path")?;
    ensure_eq!(c.exec(&["--process", path, "@"])?.ok()?, "5\n");
    Ok(())
}

fn a_memory_limit_holds() -> Result<()> {
    let mut c = Container::new(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"])?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 20_000_000, "swap": 20_000_000}),
    )?;
    ensure_eq!(c.run()?.code(), 137);
    c.nothing_left()
}

fn the_kill_that_ends_a_container_is_an_event() -> Result<()> {
    known_difference!("runc", "tells the first figures after an interval");
    let mut c = Container::sh(
        "trap 'exec dd if=/dev/zero of=/dev/null bs=200M count=1' USR1; while :; do sleep 0.01; done",
    )?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 20_000_000, "swap": 20_000_000}),
    )?;
    c.up()?;
    let told = harness::tempdir().join("events");
    let mut events = c
        .command(&["events", "--interval", "1h30m", "@"])
        .stdout(fs::File::create(&told)?)
        .spawn()?;
    let first = until("figures are told", || {
        Ok(fs::read_to_string(&told)?.ends_with('\n'))
    });
    let killed = first.and_then(|()| c.call(&["kill", "@", "USR1"])?.ok());
    let ended = killed.and_then(|_| {
        until("events ends with the container", || {
            Ok(events.try_wait()?.is_some())
        })
    });
    // Only where it did not end is there something to kill.
    let _ = events.kill();
    let status = events.wait()?;
    ended?;
    // The texts that runc's callers look for.
    let told = fs::read_to_string(&told)?;
    let lines: Vec<&str> = told.lines().collect();
    let figures = format!(r#"{{"type":"stats","id":"{}","data":{{"#, c.id);
    let kill = format!(r#"{{"type":"oom","id":"{}"}}"#, c.id);
    ensure!(status.success() && lines.len() == 2, "{status}: {told}");
    ensure!(lines[0].starts_with(&figures) && lines[1] == kill, "{told}");
    c.cleared()
}

fn limits_are_written() -> Result<()> {
    let mut c = Container::idle()?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 104_857_600, "swap": 115_343_360, "reservation": 52_428_800}),
    )?
    .set(
        "/linux/resources/cpu",
        json!({"quota": 40_000, "period": 50_000, "burst": 10_000}),
    )?
    .set("/linux/resources/pids", json!({"limit": 50}))?;
    c.create()?;
    let found = harness::reader::read(&c.cgroup())?;
    ensure_eq!((found.quota, found.period, found.pids), (40_000, 50_000, 50));
    ensure_eq!((found.memory, found.reservation), (104_857_600, 52_428_800));
    ensure_eq!(found.swap, if found.v2 { 10_485_760 } else { 115_343_360 });
    // runc 1.1 has no burst, and the other reader neither.
    if harness::is_ours() {
        let file = if found.v2 {
            "cpu.max.burst"
        } else {
            "cpu.cfs_burst_us"
        };
        ensure_eq!(fs::read_to_string(dir(&c, "cpu")?.join(file))?, "10000\n");
    }
    Ok(())
}

fn devices_are_denied() -> Result<()> {
    let mut c = Container::sh("mknod /kmsg c 1 11 && (head -c 0 < /kmsg) 2>&1")?;
    let all = json!(["CAP_MKNOD", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    c.set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all}),
    )?;
    let ran = c.run()?;
    ensure!(
        !ran.status.success() && format!("{ran:?}").contains("not permitted"),
        "{ran:?}"
    );
    Ok(())
}

fn a_cgroup_in_use_is_refused() -> Result<()> {
    known_difference!("runc", "before 1.2 joins it");
    let first = Container::idle()?;
    first.up()?;
    let mut second = Container::new(&["true"])?;
    second.set("/linux/cgroupsPath", first.cgroup().into())?;
    let fault = second.run()?.fault()?;
    ensure!(
        fault.contains("linux.cgroupsPath") && fault.contains("is in use"),
        "{fault}"
    );
    ensure_eq!(first.status()?, "running");
    Ok(())
}

/// Cgroups of the test's own, above that of a container, that go with it.
struct Frozen(Vec<(PathBuf, &'static str, [&'static str; 2])>, String);

impl Frozen {
    /// Freezes `path`, by the means of v1 where they are there.
    fn new(path: &str) -> Result<Self> {
        let mut made = Self(Vec::new(), path.to_owned());
        for (root, file, values) in [
            ("/sys/fs/cgroup/freezer", "freezer.state", ["THAWED", "FROZEN"]),
            ("/sys/fs/cgroup", "cgroup.freeze", ["0", "1"]),
        ] {
            let dir = Path::new(root).join(path.trim_start_matches('/'));
            let v2 = Path::new(root).join("cgroup.controllers").exists();
            if v2 || root.ends_with("freezer") && Path::new(root).join("cgroup.procs").exists() {
                fs::create_dir_all(&dir)?;
                made.0.push((dir.clone(), file, values));
                fs::write(dir.join(file), values[1])?;
            }
        }
        Ok(made)
    }

    fn thaw(&self) -> Result<()> {
        let mut all = self.0.iter();
        Ok(all.try_for_each(|(dir, file, values)| fs::write(dir.join(file), values[0]))?)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.thaw();
        for dir in cgroups(&self.1) {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn a_frozen_cgroup_is_refused() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    let frozen = Frozen::new(&c.cgroup())?;
    c.set("/linux/cgroupsPath", c.cgroup().into())?;
    let refused = |c: &Container| -> Result<()> {
        let fault = c.run()?.fault()?;
        ensure!(
            fault.contains("container's cgroup unexpectedly frozen"),
            "{fault}"
        );
        ensure!(
            !harness::is_ours() || fault.contains("linux.cgroupsPath"),
            "{fault}"
        );
        Ok(())
    };
    refused(&c)?;
    // It is not ours to remove.
    ensure_eq!(frozen.0.iter().filter(|(dir, ..)| !dir.is_dir()).count(), 0);
    c.set("/linux/cgroupsPath", format!("{}/below", c.cgroup()).into())?;
    // runc looks at the cgroup before it is made.
    if !harness::is_ours() {
        return Ok(());
    }
    refused(&c)?;
    c.nothing_left()?;
    frozen.thaw()?;
    c.run()?.ok().map(drop)
}

fn a_directory_without_a_mount_is_no_hierarchy() -> Result<()> {
    needs!(hybrid);
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2("/sys/fs/cgroup/pids", MntFlags::MNT_DETACH)?;
    ensure!(Path::new("/sys/fs/cgroup/pids").is_dir());
    let mut c = Container::sh("grep :pids: /proc/self/cgroup; ls /sys/fs/cgroup")?;
    c.push("/mounts", harness::usual_mount("/sys/fs/cgroup"))?;
    let said = c.run()?.ok()?;
    ensure!(!said.contains(&c.id), "it is in a cgroup of pids: {said}");
    ensure!(said.contains("memory\n") && !said.contains("\npids\n"), "{said}");
    c.nothing_left()
}

fn a_container_without_a_path_gets_one_that_goes_with_it() -> Result<()> {
    // runc puts it below the cgroup of whoever runs the tests.
    needs!(ours);
    let mut c = Container::idle()?;
    c.bundle.config["linux"]
        .as_object_mut()
        .context("no object")?
        .remove("cgroupsPath");
    c.bundle.write()?;
    c.create()?;
    let default = format!("/{}", c.id);
    ensure!(!cgroups(&default).is_empty());
    c.delete()?;
    ensure!(cgroups(&default).is_empty());
    Ok(())
}

fn a_limit_the_kernel_refuses_leaves_nothing() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.set("/linux/resources/cpu", json!({"cpus": "0-100000"}))?;
    c.run()?.fault()?;
    c.nothing_left()?;
    let mut c = Container::new(&["true"])?;
    c.set("/linux/resources/unified", json!({"no.such.file": "1"}))?;
    let fault = c.run()?.fault()?;
    ensure!(
        !harness::is_ours() || fault.contains("no.such.file") || fault.contains("unified"),
        "{fault}"
    );
    c.nothing_left()
}

/// As systemd as PID 1 wants it, with a writable cgroup of its own and a user namespace; it runs, and has done what `script`
/// does with that cgroup.
fn delegated(script: &str) -> Result<Container> {
    let mut c = Container::sh(&format!(
        "cd /sys/fs/cgroup && {script} && echo moved; exec sleep 100000"
    ))?;
    c.with_user_namespace()?;
    for mount in c.bundle.config["mounts"].as_array_mut().context("no mounts")? {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        }
    }
    c.bundle.write()?;
    c.up()?;
    until("it moves", || {
        Ok(c.printed() == "moved\n" || !c.complained().is_empty())
    })?;
    ensure_eq!(c.complained(), "");
    Ok(c)
}

fn a_delegated_cgroup_belongs_to_the_containers_root() -> Result<()> {
    needs!(cgroup2, userns);
    use std::os::unix::fs::MetadataExt;
    let c = delegated("mkdir below && echo 0 > below/cgroup.procs")?;
    let top = dir(&c, "")?;
    ensure_eq!(fs::metadata(&top)?.uid(), 100_000);
    ensure_eq!(fs::metadata(top.join("cgroup.procs"))?.uid(), 100_000);
    // Its own limits are not the container's to change.
    ensure_eq!(fs::metadata(top.join("memory.max"))?.uid(), 0);
    c.delete()?;
    c.nothing_left()
}

fn exec_follows_init_to_its_cgroup_below() -> Result<()> {
    needs!(cgroup2, userns);
    let c = delegated("mkdir init && echo 1 > init/cgroup.procs && echo +pids > cgroup.subtree_control")?;
    ensure_eq!(c.exec(&["@", "cat", "/proc/self/cgroup"])?.ok()?, "0::/init\n");
    c.delete()?;
    c.nothing_left()
}

fn no_limit_of_memory_is_none_of_swap() -> Result<()> {
    let mut c = Container::idle()?;
    c.set(
        "/linux/resources/memory",
        json!({"limit": 100 << 20, "swap": 200 << 20, "swappiness": u64::MAX}),
    )?;
    c.up()?;
    c.call(&["update", "--memory", "-1", "@"])?.ok()?;
    let (limit, swap) = if harness::has("cgroup2") {
        ("memory.max", "memory.swap.max")
    } else {
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    };
    for file in [limit, swap] {
        let value = fs::read_to_string(dir(&c, "memory")?.join(file))?;
        let bytes = value.trim().parse::<u64>();
        ensure!(
            value.trim() == "max" || bytes.is_ok_and(|b| b > 1 << 60),
            "{file}: {value}"
        );
    }
    // What was set once is not remembered: a limit of memory alone is one of memory alone.
    c.call(&["update", "--memory", "300M", "@"])?.ok()?;
    c.cleared()
}

fn a_pids_limit_of_zero_is_one() -> Result<()> {
    known_difference!("runc", "takes 0 for none before 1.4");
    let mut c = Container::sh("echo alone; /bin/true; echo never")?;
    c.set("/linux/resources/pids", json!({"limit": 0}))?;
    let ran = c.run()?;
    ensure!(ran.out == "alone\n" && ran.err.contains("fork"), "{ran:?}");
    c.nothing_left()
}

fn tun_is_allowed() -> Result<()> {
    needs!(root);
    let mut c = Container::sh("for d in tun other; do (: < /dev/$d) 2>/dev/null && echo $d; done; true")?;
    let device = |name: &str, minor: u32| json!({"path": format!("/dev/{name}"), "type": "c", "major": 10, "minor": minor});
    // A node of the same kind that no rule allows.
    c.set(
        "/linux/devices",
        json!([device("tun", 200), device("other", 234)]),
    )?;
    ensure_eq!(c.run()?.ok()?, "tun\n");
    Ok(())
}
