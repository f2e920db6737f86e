//! New, joined by path, shared with the host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq, until};
use crate::harness;

tests![
    among_the_callers_mounts_nothing_stays in guest,
    a_mount_namespace_is_joined_by_path in guest,
    without_a_cgroup_namespace_all_of_cgroup2_is_seen in guest,
    new_ones_are_not_the_hosts in guest,
    shared_ones_are_the_hosts,
    joined_ones_are_the_others in guest,
    a_pid_namespace_is_joined,
    a_user_namespace_is_joined,
    a_user_namespace_is_joined_with_the_others_it_owns in guest,
    a_time_namespace_has_its_offsets_and_is_joined in guest,
    a_time_namespace_in_a_user_namespace_too,
    a_user_namespace_maps_ids,
    the_maps_are_the_configs,
    a_user_namespace_owns_the_others,
    paths_of_the_wrong_kind_are_refused,
    the_runtime_comes_back_from_joined_ones,
    exec_joins_all in guest,
    the_loopback_is_up,
];

const FILES: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

/// The hierarchy as the host has it, to be written where the config says so.
fn without_a_cgroup_namespace_all_of_cgroup2_is_seen() -> Result<()> {
    needs!(root, cgroup2);
    let own = "/sys/fs/cgroup$(cut -d : -f 3 /proc/self/cgroup)";
    // Only what is no root has events.
    let look = format!(
        "test -d {own} && test -e {own}/cgroup.events && test ! -e /sys/fs/cgroup/cgroup.events && echo whole; \
         mkdir {own}/inner 2>/dev/null && rmdir {own}/inner && echo writable; true"
    );
    for (options, seen) in [(json!(["ro"]), "whole\n"), (json!(["rw"]), "whole\nwritable\n")] {
        let mut c = Container::sh(&look)?;
        c.namespace("cgroup", None)?;
        let mut mount = harness::usual_mount("/sys/fs/cgroup");
        mount["options"] = options;
        c.push("/mounts", mount)?;
        ensure_eq!(c.run()?.ok()?, seen);
        c.nothing_left()?;
    }
    Ok(())
}

fn of(pid: i32, file: &str) -> Result<PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{file}"))?)
}

fn own(file: &str) -> Result<PathBuf> {
    of(std::process::id().cast_signed(), file)
}

fn new_ones_are_not_the_hosts() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    for (_, file) in FILES {
        ensure!(of(c.pid()?, file)? != own(file)?, "{file}");
    }
    ensure_eq!(of(c.pid()?, "user")?, own("user")?);
    ensure_eq!(
        c.exec(&["@", "readlink", "/proc/self/ns/net"])?.ok()?.trim(),
        of(c.pid()?, "net")?.to_string_lossy()
    );
    Ok(())
}

fn shared_ones_are_the_hosts() -> Result<()> {
    let mut c = Container::idle()?;
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        c.namespace(kind, None)?;
    }
    c.bundle
        .config
        .as_object_mut()
        .context("no object")?
        .remove("hostname");
    // A bind instead of a new sysfs, and no message queues of the host.
    c.bundle.write()?;
    c.up()?;
    for (kind, file) in FILES {
        ensure!((of(c.pid()?, file)? == own(file)?) == (kind != "mount"), "{file}");
    }
    let said = c.exec(&["@", "hostname"])?.ok()?;
    ensure_eq!(
        said.trim(),
        fs::read_to_string("/proc/sys/kernel/hostname")?.trim()
    );
    c.delete()?;
    c.nothing_left()
}

fn joined_ones_are_the_others() -> Result<()> {
    let first = Container::idle()?;
    first.up()?;
    let pid = first.pid()?;
    let mut second = Container::idle()?;
    // That of cgroups does not hold the second's own.
    for (kind, file) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ] {
        second.namespace(kind, Some(Path::new(&format!("/proc/{pid}/ns/{file}"))))?;
    }
    second.set("/hostname", "second".into())?;
    second.up()?;
    for (kind, file) in FILES {
        let shared = matches!(kind, "network" | "ipc" | "uts" | "cgroup");
        ensure!((of(second.pid()?, file)? == of(pid, file)?) == shared, "{file}");
        ensure!(
            (second
                .exec(&["@", "readlink", &format!("/proc/self/ns/{file}")])?
                .ok()?
                .trim()
                == of(pid, file)?.to_string_lossy())
                == shared
        );
    }
    ensure_eq!(first.exec(&["@", "hostname"])?.ok()?, "second\n");
    Ok(())
}

fn a_pid_namespace_is_joined() -> Result<()> {
    known_difference!("runc", "leaves the cgroup of one that was killed");
    let first = Container::idle()?;
    first.up()?;
    let mut second = Container::sh("ps -o pid,args; exec sleep 100000")?;
    second.namespace("pid", Some(Path::new(&format!("/proc/{}/ns/pid", first.pid()?))))?;
    second.up()?;
    ensure_eq!(of(second.pid()?, "pid")?, of(first.pid()?, "pid")?);
    until("it lists", || Ok(second.printed().contains("ps -o")))?;
    ensure!(
        second.printed().lines().any(|l| l.trim() == "1 sleep 100000"),
        "{}",
        second.printed()
    );
    let seen = first.exec(&["@", "ps", "-o", "args"])?.ok()?;
    ensure_eq!(seen.lines().filter(|l| *l == "sleep 100000").count(), 2);
    second.delete()?;
    ensure_eq!(first.status()?, "running");
    Ok(())
}

fn a_user_namespace_is_joined() -> Result<()> {
    needs!(userns);
    let mut first = Container::idle()?;
    first.with_user_namespace()?;
    first.up()?;
    let mut second = Container::sh("cat /proc/self/uid_map; id -u; exec sleep 100000")?;
    let pid = first.pid()?;
    second.namespace("user", Some(Path::new(&format!("/proc/{pid}/ns/user"))))?;
    if !harness::is_ours() {
        // runc wants the maps of a namespace that has its own.
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        second
            .set("/linux/uidMappings", map.clone())?
            .set("/linux/gidMappings", map)?;
    }
    second.up()?;
    until("it says so", || Ok(second.printed().lines().count() == 2))?;
    ensure_eq!(
        second.printed().split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536", "0"]
    );
    ensure_eq!(of(second.pid()?, "user")?, of(pid, "user")?);
    ensure_eq!(second.exec(&["@", "id", "-u"])?.ok()?, "0\n");
    // Its parent is whoever called create, so that a shim can wait for it.
    let status = fs::read_to_string(format!("/proc/{}/status", second.pid()?))?;
    ensure!(
        status.contains(&format!("PPid:\t{}\n", std::process::id())),
        "{status}"
    );
    Ok(())
}

/// A process in the pid namespace of another has a number there that means nothing outside.
fn a_user_namespace_is_joined_with_the_others_it_owns() -> Result<()> {
    needs!(userns);
    known_difference!(
        "runc",
        "wants the maps of a user namespace that has its own before 1.2"
    );
    let mut first = Container::idle()?;
    first.with_user_namespace()?;
    first.up()?;
    let pid = first.pid()?;
    let mut second = Container::idle()?;
    let kinds = ["user", "pid", "ipc", "uts", "network", "cgroup"];
    let file = |kind: &str| {
        if kind == "network" {
            "net".to_owned()
        } else {
            kind.to_owned()
        }
    };
    for kind in kinds {
        let path = format!("/proc/{pid}/ns/{}", file(kind));
        second.namespace(kind, Some(Path::new(&path)))?;
    }
    second.up()?;
    for kind in kinds.map(file) {
        ensure_eq!(of(second.pid()?, &kind)?, of(pid, &kind)?);
    }
    let all = second.exec(&["@", "ps"])?.ok()?;
    ensure_eq!(all.matches("sleep 100000").count(), 2);
    second.delete()
}

fn a_time_namespace_has_its_offsets_and_is_joined() -> Result<()> {
    known_difference!("runc", "before 1.2 has no time namespaces");
    has_its_offsets_and_is_joined(Container::idle()?)
}

fn a_time_namespace_in_a_user_namespace_too() -> Result<()> {
    needs!(userns);
    known_difference!("runc", "before 1.2 has no time namespaces");
    let mut c = Container::idle()?;
    c.with_user_namespace()?;
    has_its_offsets_and_is_joined(c)
}

fn has_its_offsets_and_is_joined(mut c: Container) -> Result<()> {
    let uptime = |text: &str| text.split('.').next().unwrap_or_default().parse::<u64>();
    let host = uptime(&fs::read_to_string("/proc/uptime")?)?;
    c.push("/linux/namespaces", json!({"type": "time"}))?.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 678}}),
    )?;
    c.up()?;
    let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", c.pid()?))?;
    ensure_eq!(
        offsets.split_whitespace().collect::<Vec<_>>(),
        ["monotonic", "5", "678", "boottime", "1000000", "0"]
    );
    let inside = uptime(&c.exec(&["@", "cat", "/proc/uptime"])?.ok()?)?;
    ensure!(inside >= host + 1_000_000, "{inside} {host}");
    ensure!(of(c.pid()?, "time")? != own("time")?);
    let mut second = Container::new(&["cat", "/proc/uptime"])?;
    second.namespace("time", Some(Path::new(&format!("/proc/{}/ns/time", c.pid()?))))?;
    ensure!(uptime(&second.run()?.ok()?)? >= host + 1_000_000);
    Ok(())
}

fn a_user_namespace_maps_ids() -> Result<()> {
    needs!(userns);
    let mut c =
        Container::sh("cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /tmp/new; exec sleep 100000")?;
    c.with_user_namespace()?;
    std::os::unix::fs::chown(c.bundle.rootfs().join("tmp"), Some(100_000), Some(100_000))?;
    c.set(
        "/process/user",
        json!({"uid": 7, "gid": 8, "additionalGids": [9]}),
    )?;
    std::os::unix::fs::chown(c.bundle.rootfs().join("tmp"), Some(100_007), None)?;
    c.up()?;
    let new = c.bundle.rootfs().join("tmp/new");
    until("it makes its file", || Ok(new.exists()))?;
    ensure_eq!(
        c.printed().split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536", "0", "100000", "65536", "7"]
    );
    use std::os::unix::fs::MetadataExt;
    let made = fs::metadata(&new)?;
    ensure_eq!((made.uid(), made.gid()), (100_007, 100_008));
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid()?))?;
    ensure!(
        status.contains("Uid:\t100007\t100007\t100007\t100007\n"),
        "{status}"
    );
    ensure_eq!(c.exec(&["-u", "0:0", "@", "id", "-u"])?.ok()?, "0\n");
    let fault = c.exec(&["-u", "70000", "@", "true"])?.fault()?;
    ensure!(
        !harness::is_ours() || fault.contains("is not in `linux.uidMappings`"),
        "{fault}"
    );
    Ok(())
}

fn the_maps_are_the_configs() -> Result<()> {
    needs!(userns);
    let mut c = Container::sh("cat /proc/self/uid_map; echo; cat /proc/self/gid_map")?;
    let range = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    c.push("/linux/namespaces", json!({"type": "user"}))?
        .set(
            "/linux/uidMappings",
            json!([range(0, 100_000, 1000), range(5000, 300_000, 10)]),
        )?
        .set(
            "/linux/gidMappings",
            json!([range(0, 200_000, 2000), range(6000, 400_000, 20)]),
        )?;
    let said = c.run()?.ok()?;
    let lines: Vec<String> = said
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    ensure_eq!(
        lines,
        [
            "0 100000 1000",
            "5000 300000 10",
            "",
            "0 200000 2000",
            "6000 400000 20"
        ]
    );
    Ok(())
}

fn a_user_namespace_owns_the_others() -> Result<()> {
    needs!(userns);
    let mut c = Container::sh(
        "hostname other && hostname && ip link set lo down && echo down; mount -t tmpfs x /tmp && echo mounted
        stat -c %u:%g /dev/mqueue",
    )?;
    c.with_user_namespace()?;
    let all = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    c.set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all}),
    )?;
    let said = c.run()?.ok()?;
    // runc 1.1 leaves their group to nobody.
    let said = if harness::is_ours() {
        said
    } else {
        said.replace("0:65534", "0:0")
    };
    ensure_eq!(said, "other\ndown\nmounted\n0:0\n");
    Ok(())
}

fn paths_of_the_wrong_kind_are_refused() -> Result<()> {
    for (kind, path) in [
        ("network", "/proc/self/ns/uts"),
        ("ipc", "/etc/hostname"),
        ("uts", "/no/such/file"),
        ("pid", "/proc/self/ns/net"),
    ] {
        let mut c = Container::new(&["true"])?;
        c.namespace(kind, Some(Path::new(path)))?;
        let fault = c.run()?.fault()?;
        ensure!(!harness::is_ours() || fault.contains(path), "{fault}");
        c.nothing_left()?;
    }
    Ok(())
}

fn the_runtime_comes_back_from_joined_ones() -> Result<()> {
    // A hook of the runtime's namespaces runs after the clone.
    let first = Container::idle()?;
    first.up()?;
    let mut second = Container::new(&["true"])?;
    let file = harness::tempdir().join("seen");
    second.namespace(
        "network",
        Some(Path::new(&format!("/proc/{}/ns/net", first.pid()?))),
    )?;
    let script = format!("readlink /proc/self/ns/net > {}", file.display());
    second.set(
        "/hooks/createRuntime",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]),
    )?;
    second.run()?.ok()?;
    ensure_eq!(fs::read_to_string(file)?.trim(), own("net")?.to_string_lossy());
    Ok(())
}

fn exec_joins_all() -> Result<()> {
    let mut c = Container::idle()?;
    c.with_user_namespace()?;
    c.up()?;
    for file in ["user", "pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let seen = c
            .exec(&["@", "readlink", &format!("/proc/self/ns/{file}")])?
            .ok()?;
        ensure_eq!(seen.trim(), of(c.pid()?, file)?.to_string_lossy());
    }
    Ok(())
}

fn the_loopback_is_up() -> Result<()> {
    let c = Container::new(&["ip", "addr", "show", "dev", "lo"])?;
    let said = c.run()?.ok()?;
    ensure!(
        said.contains("LOOPBACK,UP") && said.contains("127.0.0.1/8"),
        "{said}"
    );
    Ok(())
}

/// A mount namespace of the test's own, which is the host's to the runtime.
fn own_mounts() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    Ok(mount(
        none,
        "/",
        none,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        none,
    )?)
}

fn mount_points() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?)
}

const INSIDE: &str = "readlink /proc/self/ns/mnt; pwd; test -e /bin/busybox && test ! -e /work && echo inside; ls /dev/null /proc/self/stat";

fn among_the_callers_mounts_nothing_stays() -> Result<()> {
    own_mounts()?;
    let before = mount_points()?;
    let mut c = Container::sh(&format!("{INSIDE}; exec sleep 100000"))?;
    // What runc would not do there.
    c.namespace("mount", None)?
        .set("/linux/maskedPaths", json!([]))?
        .set("/linux/readonlyPaths", json!([]))?;
    c.up()?;
    let own = fs::read_link("/proc/self/ns/mnt")?;
    let seen = format!("{}\n/\ninside\n/dev/null\n/proc/self/stat\n", own.display());
    until("it prints", || Ok(c.printed().lines().count() == 5))?;
    ensure_eq!(c.printed(), seen);
    // runc leaves all mounts, and its exec is not inside.
    if !harness::is_ours() {
        return Ok(());
    }
    ensure_eq!(c.exec(&["@", "sh", "-c", INSIDE])?.ok()?, seen);
    c.delete()?;
    c.nothing_left()?;
    ensure_eq!(mount_points()?, before);
    // Neither after a failure, however late it comes.
    for args in [json!(["/no/such/program"]), json!(["true"])] {
        c.set("/process/args", args)?
            .set("/process/cwd", json!("/bin/busybox"))?;
        c.run()?.fault()?;
        c.nothing_left()?;
        ensure_eq!(mount_points()?, before);
    }
    c.with_user_namespace()?;
    c.refused(&["linux.namespaces", "`mount` must be a new one"])
}

fn a_mount_namespace_is_joined_by_path() -> Result<()> {
    own_mounts()?;
    let before = mount_points()?;
    let mut keep = std::process::Command::new("unshare");
    let mut keep = keep.args(["--mount", "sleep", "100000"]).spawn()?;
    let there = PathBuf::from(format!("/proc/{}/ns/mnt", keep.id()));
    let work = || -> Result<()> {
        until("it is there", || {
            Ok(fs::read_link(&there)? != fs::read_link("/proc/self/ns/mnt")?)
        })?;
        let mut c = Container::sh(&format!("{INSIDE}; exec sleep 100000"))?;
        c.namespace("mount", Some(&there))?;
        c.up()?;
        let seen = format!(
            "{}\n/\ninside\n/dev/null\n/proc/self/stat\n",
            fs::read_link(&there)?.display()
        );
        until("it prints", || Ok(c.printed().lines().count() == 5))?;
        ensure_eq!(c.printed(), seen);
        if harness::is_ours() {
            ensure_eq!(c.exec(&["@", "sh", "-c", INSIDE])?.ok()?, seen);
            // Whoever was there before has the root that it had.
            ensure!(Path::new(&format!("/proc/{}/root/proc/self", keep.id())).exists());
            ensure_eq!(
                fs::read_link(format!("/proc/{}/root", keep.id()))?,
                Path::new("/")
            );
        }
        c.delete()?;
        c.nothing_left()?;
        ensure_eq!(mount_points()?, before);
        Ok(())
    };
    let done = work();
    keep.kill()?;
    keep.wait()?;
    done
}
