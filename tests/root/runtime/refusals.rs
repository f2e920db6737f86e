//! Bad input: one clear line that names the field, and nothing left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Container;
use crate::harness;

tests![
    a_config_that_is_no_json,
    a_config_that_is_not_there,
    a_missing_rootfs,
    a_rootfs_that_is_a_link_or_a_file,
    fields_with_wrong_values,
    sysctls_of_the_host,
    sysctls_of_the_host_by_a_path,
    fields_that_need_what_this_machine_has_not,
    a_missing_mount_source,
    mounts_and_hooks_of_nonsense,
    global_flags_that_are_not_supported,
];

/// A container whose config has `value` at `pointer`.
fn with(pointer: &str, value: Value) -> Result<Container> {
    let mut c = Container::new(&["true"])?;
    c.set(pointer, value)?;
    Ok(c)
}

fn a_config_that_is_no_json() -> Result<()> {
    let c = Container::new(&["true"])?;
    for text in [
        "",
        "{",
        "{\"ociVersion\": 7}",
        "{\"ociVersion\": \"1.0.2\", \"process\": []}",
        "\u{0}",
    ] {
        fs::write(c.bundle.dir.join("config.json"), text)?;
        let words: &[&str] = if harness::is_ours() { &["config.json"] } else { &[] };
        c.refused(words)?;
    }
    Ok(())
}

fn a_config_that_is_not_there() -> Result<()> {
    let c = Container::new(&["true"])?;
    fs::remove_file(c.bundle.dir.join("config.json"))?;
    c.refused(&["JSON specification file", "config.json"])?;
    let fault = c.call(&["create", "--bundle", "/no/such/bundle", "@"])?.fault()?;
    ensure!(fault.contains("/no/such/bundle"), "{fault}");
    c.nothing_left()
}

fn a_missing_rootfs() -> Result<()> {
    let c = with("/root/path", "nothing".into())?;
    c.refused(&["nothing"])?;
    let mut c = Container::new(&["true"])?;
    c.bundle
        .config
        .as_object_mut()
        .context("no object")?
        .remove("root");
    c.bundle.write()?;
    c.refused(&["root"])
}

fn a_rootfs_that_is_a_link_or_a_file() -> Result<()> {
    needs!(ours);
    let c = with("/root/path", "link".into())?;
    symlink("rootfs", c.bundle.dir.join("link"))?;
    c.refused(&["root.path", "must not be a symbolic link"])?;
    let c = with("/root/path", "config.json".into())?;
    c.refused(&["root.path", "must be a directory"])
}

fn fields_with_wrong_values() -> Result<()> {
    needs!(ours);
    for (pointer, value, words) in wrong_values() {
        let c = with(pointer, value)?;
        c.refused(&[words]).with_context(|| pointer.to_owned())?;
    }
    Ok(())
}

/// Where, what, and how the complaint begins.
#[allow(clippy::too_many_lines, reason = "a table")]
fn wrong_values() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion: `2.0.0`"),
        ("/process/args", json!([]), "process.args"),
        (
            "/process/cwd",
            json!("relative"),
            "process.cwd: `relative` must be an absolute path",
        ),
        ("/process/env", json!(["A=\u{0}"]), "process.env[0]"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]),
            "process.rlimits[0].soft",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 9, "hard": 8}]),
            "RLIMIT_NOPE",
        ),
        ("/process/oomScoreAdj", json!(2000), "process.oomScoreAdj"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": 100}),
            "process.scheduler.priority: `100`",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_NOPE"}),
            "SCHED_NOPE",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: `8`",
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "1-0"}),
            "process.execCPUAffinity.final: `1-0`",
        ),
        (
            "/linux/netDevices",
            json!({"a": {"name": "x/y"}}),
            "linux.netDevices.a.name: `x/y`",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND"}),
            "linux.memoryPolicy.nodes",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "linux.namespaces[1]",
        ),
        ("/linux/namespaces", json!([{"type": "nope"}]), "nope"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "linux.uidMappings",
        ),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("a.slice:b:c"), "linux.cgroupsPath"),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "linux.timeOffsets",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/resources/memory",
            json!({"limit": 1_000_000, "swap": 1}),
            "linux.resources.memory.swap",
        ),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        (
            "/hooks",
            json!({"prestart": [{"path": "sh"}]}),
            "hooks.prestart[0].path",
        ),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "options": ["size=nonsense"]}]),
            "/x",
        ),
    ]
}

fn sysctls_of_the_host() -> Result<()> {
    for key in [
        "kernel.core_pattern",
        "vm.overcommit_memory",
        "kernel.shm_rmid_forced.x",
        "net.ipv4/../../kernel.x",
    ] {
        let c = with("/linux/sysctl", json!({key: "1"}))?;
        let words: &[&str] = if harness::is_ours() {
            &["linux.sysctl"]
        } else {
            &[]
        };
        c.refused(words)?;
    }
    // In a namespace that is shared with the host it would change the host.
    let mut c = with("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))?;
    c.namespace("network", None)?;
    c.refused(&["net"])
}

fn fields_that_need_what_this_machine_has_not() -> Result<()> {
    needs!(ours);
    for (pointer, value, field) in [
        (
            "/linux/intelRdt",
            json!({"l3CacheSchema": "L3:0=f"}),
            "linux.intelRdt",
        ),
        (
            "/linux/mountLabel",
            json!("system_u:object_r:x_t:s0"),
            "linux.mountLabel",
        ),
        (
            "/process/apparmorProfile",
            json!("some-profile"),
            "process.apparmorProfile",
        ),
    ] {
        let c = with(pointer, value)?;
        if field == "process.apparmorProfile" && harness::has("apparmor") {
            continue;
        }
        c.refused(&[field])?;
    }
    Ok(())
}

fn a_missing_mount_source() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.push(
        "/mounts",
        json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
    )?;
    c.refused(&["/no/such/source"])
}

fn mounts_and_hooks_of_nonsense() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.push(
        "/mounts",
        json!({"destination": "/x", "type": "nosuchfs", "source": "none"}),
    )?;
    c.refused(&["/x"])?;
    let c = with("/hooks/createRuntime", json!([{"path": "/no/such/hook"}]))?;
    c.refused(&["/no/such/hook"])?;
    let c = with("/hooks/createContainer", json!([{"path": "/no/such/hook"}]))?;
    c.refused(&["/no/such/hook"])
}

fn global_flags_that_are_not_supported() -> Result<()> {
    needs!(ours);
    let c = Container::new(&["true"])?;
    let fault = c
        .call(&["--rootless=perhaps", "run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(fault.contains("--rootless"), "{fault}");
    c.nothing_left()?;
    for args in [
        &["no-such-command"][..],
        &["create"],
        &["kill"],
        &["create", "--no-such-flag", "@"],
        &["list", "--format", "xml"],
    ] {
        c.call(args)?.fault()?;
    }
    Ok(())
}

/// A namespace that is joined may be the host's own.
fn sysctls_of_the_host_by_a_path() -> Result<()> {
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.shm_rmid_forced"),
        ("uts", "kernel.domainname"),
    ] {
        let file = if kind == "network" { "net" } else { kind };
        let mut c = with("/linux/sysctl", json!({key: "1"}))?;
        c.set("/hostname", Value::Null)?;
        c.namespace(kind, Some(Path::new(&format!("/proc/self/ns/{file}"))))?;
        if kind == "network" || harness::is_ours() {
            c.refused(if harness::is_ours() {
                &["linux.sysctl", "would change the host"]
            } else {
                &["sysctl"]
            })?;
        }
    }
    Ok(())
}
