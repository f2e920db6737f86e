//! The five sets, no-new-privs, and what a user change does to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq};
use crate::harness;

tests![
    all_five_sets,
    a_user_keeps_ambient_capabilities_only,
    what_is_permitted_and_effective_counts_until_the_program_runs,
    none_at_all,
    no_new_privs_is_as_asked,
    what_cannot_be_granted_is_no_failure,
    exec_adds_capabilities,
    what_exec_adds_is_ambient_where_it_is_inheritable,
    a_process_of_a_file_has_the_container_s_where_it_names_none,
    ambient_without_inheritable_is_a_warning,
];

const SHOW: &str = "grep -E '^Cap' /proc/self/status";

/// `(inheritable, permitted, effective, bounding, ambient)`
fn sets(text: &str) -> Result<[u64; 5]> {
    let values: Result<Vec<u64>, _> = text
        .lines()
        .filter_map(|l| l.split_whitespace().nth(1))
        .map(|v| u64::from_str_radix(v, 16))
        .collect();
    Ok(<[u64; 5]>::try_from(values?).unwrap_or_default())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

fn a_process_of_a_file_has_the_container_s_where_it_names_none() -> Result<()> {
    let mut c = Container::idle()?;
    for set in ["bounding", "permitted", "effective"] {
        c.set(&format!("/process/capabilities/{set}"), json!(["CAP_KILL"]))?;
    }
    for set in ["inheritable", "ambient"] {
        c.set(&format!("/process/capabilities/{set}"), json!([]))?;
    }
    c.up()?;
    let file = harness::tempdir().join("process.json");
    let path = file.to_str().context("a path")?;
    for (named, all) in [("", KILL), (r#""capabilities": {}, "#, 0)] {
        let process =
            format!(r#"{{{named}"args": ["sh", "-c", "{SHOW}"], "cwd": "/", "env": ["PATH=/bin"]}}"#);
        fs::write(&file, process)?;
        let seen = sets(&c.exec(&["--process", path, "@"])?.ok()?)?;
        ensure_eq!((named, seen), (named, [0, all, all, all, 0]));
    }
    Ok(())
}

fn all_five_sets() -> Result<()> {
    let mut c = Container::sh(SHOW)?;
    // Not root, for whom the kernel raises what is in the bounding set at every exec.
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?.set("/process/capabilities", json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_KILL"],
    }))?;
    // At exec: permitted = ambient, effective = ambient, see capabilities(7).
    let seen = sets(&c.run()?.ok()?)?;
    ensure_eq!(seen, [CHOWN | KILL, KILL, KILL, CHOWN | KILL | NET_RAW, KILL]);
    Ok(())
}

fn a_user_keeps_ambient_capabilities_only() -> Result<()> {
    let mut c = Container::sh(SHOW)?;
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"],
        }),
    )?;
    ensure_eq!(sets(&c.run()?.ok()?)?, [0, 0, 0, CHOWN, 0]);
    Ok(())
}

/// `execve(2)` makes these two sets anew; what was in them decides whether the program may be run at all.
fn what_is_permitted_and_effective_counts_until_the_program_runs() -> Result<()> {
    let mut c = Container::new(&["/bin/private/echo", "ran"])?;
    let dir = c.bundle.rootfs().join("bin/private");
    fs::create_dir(&dir)?;
    fs::copy("/bin/busybox", dir.join("echo"))?;
    fs::set_permissions(dir.join("echo"), fs::Permissions::from_mode(0o700))?;
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?;
    let all = json!(["CAP_DAC_OVERRIDE"]);
    for (permitted, effective, may) in [(true, true, true), (true, false, false), (false, true, false)] {
        let list = |has| if has { all.clone() } else { json!([]) };
        c.set(
            "/process/capabilities",
            json!({"bounding": all, "permitted": list(permitted), "effective": list(effective)}),
        )?;
        let ran = c.run()?;
        ensure!(ran.status.success() == may, "{permitted} {effective}: {ran:?}");
        ensure_eq!(ran.out, if may { "ran\n" } else { "" });
    }
    Ok(())
}

fn none_at_all() -> Result<()> {
    let mut c = Container::sh(SHOW)?;
    c.set("/process/capabilities", json!({}))?;
    ensure_eq!(sets(&c.run()?.ok()?)?, [0; 5]);
    Ok(())
}

fn no_new_privs_is_as_asked() -> Result<()> {
    for (asked, seen) in [(true, "1"), (false, "0")] {
        let mut c = Container::sh("grep NoNewPrivs /proc/self/status | cut -f 2")?;
        c.set("/process/noNewPrivileges", asked.into())?;
        ensure_eq!(c.run()?.ok()?.trim(), seen);
        // A seccomp filter must not force it.
        c.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}))?;
        ensure_eq!(c.run()?.ok()?.trim(), seen);
    }
    let c = Container::idle()?;
    c.up()?;
    Ok(())
}

fn what_cannot_be_granted_is_no_failure() -> Result<()> {
    let mut c = Container::sh(SHOW)?;
    let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    c.set("/process/capabilities", json!({
        "bounding": all, "permitted": all, "effective": all, "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_KILL"],
    }))?;
    known_difference!("runc", "fails where the caller lacks a capability");
    let seen = sets(&c.run()?.ok()?)?;
    let own = rustix::thread::capabilities(None)?.permitted.bits();
    ensure_eq!(seen, [CHOWN, own, own, own, 0]);
    Ok(())
}

fn exec_adds_capabilities() -> Result<()> {
    let mut c = Container::idle()?;
    c.set(
        "/process/capabilities",
        json!({"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]}),
    )?;
    c.up()?;
    ensure_eq!(
        sets(&c.exec(&["@", "sh", "-c", SHOW])?.ok()?)?,
        [0, CHOWN, CHOWN, CHOWN, 0]
    );
    let seen = sets(&c.exec(&["--cap", "CAP_KILL", "@", "sh", "-c", SHOW])?.ok()?)?;
    ensure!(seen[2] == CHOWN | KILL && seen[0] == 0, "{seen:x?}");
    let ran = c.exec(&["--cap", "CAP_NOPE", "@", "true"])?;
    ensure!(
        ran.code() == 0 && ran.err.contains("level=warning") && ran.err.contains("CAP_NOPE"),
        "{ran:?}"
    );
    Ok(())
}

fn what_exec_adds_is_ambient_where_it_is_inheritable() -> Result<()> {
    let mut c = Container::idle()?;
    let all = json!(["CAP_CHOWN", "CAP_KILL"]);
    c.set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "inheritable": ["CAP_KILL"]}),
    )?
    .set("/process/user", json!({"uid": 1000, "gid": 1000}))?;
    c.up()?;
    let options = ["--cap", "CAP_KILL", "@", "sh", "-c", SHOW];
    ensure_eq!(
        sets(&c.exec(&options)?.ok()?)?,
        [KILL, KILL, KILL, CHOWN | KILL, KILL]
    );
    Ok(())
}

fn ambient_without_inheritable_is_a_warning() -> Result<()> {
    let mut c = Container::sh(SHOW)?;
    let all = json!(["CAP_CHOWN", "CAP_KILL"]);
    c.set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all, "inheritable": ["CAP_KILL"], "ambient": all}),
    )?;
    known_difference!("runc", "before 1.3 says nothing");
    let ran = c.run()?;
    super::says_all(
        &ran.err,
        &["level=warning", "can't raise ambient capability CAP_CHOWN: "],
    )?;
    ensure!(!ran.err.contains("CAP_KILL"), "{}", ran.err);
    ensure_eq!(sets(&ran.ok()?)?[4], KILL);
    c.set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    let ran = c.exec(&["--user", "1000", "--cap", "CAP_CHOWN", "@", "sh", "-c", SHOW])?;
    ensure_eq!(sets(&ran.ok()?)?[4], KILL);
    Ok(())
}
