//! What is read as other runtimes read it: JSON that is not as the specification's types want it, and names that are no text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Container, ensure_eq};
use crate::harness;

tests![
    null_and_twice_and_absent,
    a_process_without_a_user_is_roots,
    calls_without_names_and_halves_of_characters,
    what_follows_the_first_object_is_not_looked_at,
    a_bundle_whose_path_is_no_text,
    escaped_colons_of_layers_are_names,
];

fn null_and_twice_and_absent() -> Result<()> {
    known_difference!("runc", "panics at an update of `null` before 1.2");
    let mut c = Container::new(&["sleep", "100000"])?;
    c.set("/annotations", json!({"a": null, "b": "c"}))?
        .set("/hooks", json!(null))?
        .set("/linux/resources/pids", json!({}))?
        .set("/linux/resources/memory", json!({"limit": null}))?
        .push(
            "/linux/resources/devices",
            json!({"access": "rwm", "type": "b", "major": 7, "minor": 0}),
        )?;
    let path = c.bundle.dir.join("config.json");
    // The last one counts.
    let config = fs::read_to_string(&path)?;
    let config = config.replacen('{', "{\"hostname\": \"first\", ", 1);
    fs::write(&path, config)?;
    c.up()?;
    ensure_eq!(c.exec(&["@", "hostname"])?.ok()?, "test\n");
    let state = c.state()?;
    ensure_eq!(state["annotations"], json!({"a": "", "b": "c"}));
    let limit = harness::tempdir().join("limits");
    fs::write(&limit, r#"{"pids": {"limit": null}, "memory": null}"#)?;
    c.call(&["update", "--resources", limit.to_str().context("a path")?, "@"])?
        .ok()?;
    c.cleared()
}

fn calls_without_names_and_halves_of_characters() -> Result<()> {
    let mut c = Container::sh("env | grep ^A=; mkdir /new || echo filtered")?;
    c.push("/process/env", "A=HALVES".into())?.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": null, "action": "SCMP_ACT_KILL"},
            {"action": "SCMP_ACT_KILL"},
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
        ]}),
    )?;
    let path = c.bundle.dir.join("config.json");
    let config = fs::read_to_string(&path)?.replace("HALVES", r"\ud800|\udc00|\ud83d\ude00|\\ud800");
    fs::write(&path, config)?;
    let seen = "A=\u{fffd}|\u{fffd}|\u{1f600}|\\ud800\nfiltered\n";
    ensure_eq!(c.run()?.ok()?, seen);
    Ok(())
}

fn a_process_without_a_user_is_roots() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?;
    c.up()?;
    let file = harness::tempdir().join("process.json");
    for user in [
        "",
        r#""user": null, "#,
        r#""user": {"gid": 7}, "#,
        r#""user": {"uid": 5}, "user": {"uid": 0}, "#,
    ] {
        let process = format!(r#"{{{user}"args": ["id", "-u"], "cwd": "/", "env": ["PATH=/bin"]}}"#);
        fs::write(&file, process)?;
        let options = ["--process", file.to_str().context("a path")?, "@"];
        ensure_eq!((user, c.exec(&options)?.ok()?), (user, "0\n".into()));
    }
    Ok(())
}

fn what_follows_the_first_object_is_not_looked_at() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/linux/resources/pids", json!({"limit": 50}))?;
    let append =
        |path: &Path, text: &str| -> Result<()> { Ok(fs::write(path, fs::read_to_string(path)? + text)?) };
    append(&c.bundle.dir.join("config.json"), " {\"process\": null} and more")?;
    c.up()?;
    let dir = harness::tempdir();
    let (process, limits) = (dir.join("process"), dir.join("limits"));
    fs::write(
        &process,
        r#"{"args": ["echo", "here"], "cwd": "/", "env": ["PATH=/bin"]}}"#,
    )?;
    ensure_eq!(
        c.exec(&["--process", process.to_str().context("a path")?, "@"])?
            .ok()?,
        "here\n"
    );
    fs::write(&limits, r#"{"pids": {"limit": 60}} {"pids": {"limit": 70}}"#)?;
    c.call(&["update", "--resources", limits.to_str().context("a path")?, "@"])?
        .ok()?;
    // One that names no limit changes none.
    c.call(&["update", "@"])?.ok()?;
    fs::write(&limits, "[]")?;
    c.call(&["update", "--resources", limits.to_str().context("a path")?, "@"])?
        .fault()?;
    c.cleared()
}

fn a_bundle_whose_path_is_no_text() -> Result<()> {
    known_difference!("runc", "sends the path as JSON, which has no such bytes");
    let mut c = Container::idle()?;
    c.set("/hooks/poststop", json!([{"path": "/bin/true"}]))?;
    let odd = harness::tempdir().join(OsStr::from_bytes(b"b\xff\xfe"));
    fs::rename(&c.bundle.dir, &odd)?;
    let mut create = c.command(&["create", "--bundle"]);
    create.arg(&odd).arg(&c.id);
    c.create_with(create)?;
    c.start()?;
    let seen = c.state()?["bundle"].as_str().unwrap_or_default().to_owned();
    ensure!(seen.ends_with("/b\u{fffd}\u{fffd}"), "{seen}");
    ensure!(c.call(&["list"])?.ok()?.contains(&c.id), "list");
    ensure_eq!(c.exec(&["@", "echo", "inside"])?.ok()?, "inside\n");
    c.delete()?;
    fs::rename(&odd, &c.bundle.dir)?;
    c.nothing_left()
}

/// Also where the list is longer than one value may be, and its layers are handed over one by one.
fn escaped_colons_of_layers_are_names() -> Result<()> {
    let dir = harness::tempdir();
    let work = dir.join("work");
    fs::create_dir(&work)?;
    for long in [false, true] {
        let mut layers = Vec::new();
        for n in 0..if long { 9 } else { 2 } {
            let layer = dir.join(format!(
                "{long}-{n}:layer{}",
                if long { "x".repeat(30) } else { String::new() }
            ));
            fs::create_dir(&layer)?;
            fs::write(layer.join(n.to_string()), "")?;
            layers.push(layer.to_str().context("a path")?.replace(':', "\\:"));
        }
        let count = layers.len();
        let list = format!("lowerdir={}", layers.join(":"));
        ensure_eq!(list.len() > 255 + "lowerdir=".len(), long);
        let mut c = Container::sh("ls /layers | wc -l")?;
        c.push(
            "/mounts",
            json!({"destination": "/layers", "type": "overlay", "source": "overlay", "options": [list]}),
        )?;
        ensure_eq!(c.run()?.ok()?, format!("{count}\n"));
    }
    Ok(())
}
