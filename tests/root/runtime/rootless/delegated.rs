//! A cgroup that was delegated to the user, as systemd does for a login.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::{Ran, ensure_eq, says_all, to_the_end};
use super::{UID, User};
use crate::harness;

tests![
    limits_hold_in_a_delegated_cgroup in guest,
    a_cgroup_named_below_it in guest,
    a_named_cgroup_of_another_is_refused in guest,
    a_place_with_processes_is_not_divided in guest,
];

/// A cgroup tree of the user's, with a cgroup in it for the calls.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Result<Self> {
        let root = PathBuf::from("/sys/fs/cgroup");
        fs::write(root.join("cgroup.subtree_control"), "+memory +pids")?;
        let top = root.join(harness::unique());
        for dir in [&top, &top.join("session")] {
            fs::create_dir(dir)?;
            chown(dir, Some(UID), Some(UID))?;
            for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(dir.join(file), Some(UID), Some(UID))?;
            }
        }
        Ok(Self(top))
    }

    /// The user's call from one of its cgroups.
    fn call(&self, user: &User, from: &str, args: &[&str]) -> Result<Ran> {
        let called = user.command(args);
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > $0/cgroup.procs && exec \"$@\""])
            .arg(self.0.join(from));
        command.arg(called.get_program()).args(called.get_args());
        to_the_end(command)
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("session"));
        let _ = fs::remove_dir(&self.0);
    }
}

fn limits_hold_in_a_delegated_cgroup() -> Result<()> {
    needs!(root, cgroup2, userns, ours, setpriv);
    let tree = Tree::new()?;
    let mut user = User::sh("dd if=/dev/zero of=/dev/shm/much bs=1M count=60; echo $?; exec sleep 100000")?;
    user.set(
        "/linux/resources",
        json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 20}}),
    )?;
    let id = user.container.id.clone();
    tree.call(&user, "session", &["run", "--detach", "--bundle", "%", "@"])?
        .ok()?;
    let own = id;
    ensure_eq!(tree.names()?, [own.clone(), "session".into()]);
    let file =
        |name: &str| fs::read_to_string(tree.0.join(&own).join(name)).map(|text| text.trim().to_owned());
    ensure_eq!(file("memory.max")?, "33554432");
    ensure_eq!(file("pids.max")?, "20");
    super::super::until("the kernel has ended it", || {
        Ok(file("memory.events")?.contains("oom_kill 1"))
    })?;
    let events: Value = serde_json::from_str(&user.call(&["events", "--stats", "@"])?.ok()?)?;
    ensure_eq!(events["data"]["memory"]["usage"]["limit"], 33_554_432);
    user.call(&["update", "--memory", "40M", "@"])?.ok()?;
    ensure_eq!(file("memory.max")?, (40 << 20).to_string());
    user.call(&["pause", "@"])?.ok()?;
    ensure_eq!(user.status()?, "paused");
    user.call(&["resume", "@"])?.ok()?;
    let here = tree
        .call(&user, "session", &["exec", "@", "cat", "/proc/self/cgroup"])?
        .ok()?;
    ensure_eq!(here, "0::/\n");
    // From outside of the tree the kernel moves nobody into it.
    let fault = user.call(&["exec", "@", "true"])?.fault()?;
    ensure!(fault.contains("delegated"), "{fault}");
    user.call(&["kill", "--all", "@", "KILL"])?.ok()?;
    user.leave()?;
    ensure_eq!(tree.names()?, ["session"]);
    Ok(())
}

fn a_cgroup_named_below_it() -> Result<()> {
    needs!(root, cgroup2, userns, ours, setpriv);
    let tree = Tree::new()?;
    let mut user = User::sh(
        "cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x && rmdir /sys/fs/cgroup/x && echo own",
    )?;
    let path = format!(
        "/{}/a/b",
        tree.0.file_name().unwrap_or_default().to_string_lossy()
    );
    user.set("/linux/cgroupsPath", json!(path))?;
    user.set("/linux/resources", json!({"pids": {"limit": 20}}))?;
    // Writable: the container's root is the user whose cgroup it is.
    user.set("/mounts/6/options", json!(["nosuid", "noexec", "nodev"]))?;
    let said = tree
        .call(&user, "session", &["run", "--bundle", "%", "@"])?
        .ok()?;
    ensure_eq!(said, "20\nown\n");
    fs::remove_dir(tree.0.join("a"))?;
    ensure_eq!(tree.names()?, ["session"]);
    user.set("/linux/cgroupsPath", json!("/condo-not-yours"))?;
    let fault = tree
        .call(&user, "session", &["run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(
        fault.contains("linux.cgroupsPath: `/condo-not-yours`") && fault.contains("permission denied"),
        "{fault}"
    );
    Ok(())
}

/// Whoever names a cgroup looks for the container there. Without a name there is one without.
fn a_named_cgroup_of_another_is_refused() -> Result<()> {
    needs!(root, userns, setpriv);
    let mut user = User::new(&["true"])?;
    user.set("/linux/cgroupsPath", json!("/condo-not-yours/web"))?;
    for call in [&["run"][..], &["--rootless=true", "run"]] {
        let fault = user.call(&[call, &["--bundle", "%", "@"]].concat())?.fault()?;
        says_all(
            &fault,
            &["unable to apply cgroup configuration", "permission denied"],
        )?;
    }
    user.container.nothing_left()?;
    let linux = user.container.bundle.config["linux"].as_object_mut();
    linux.map(|linux| linux.remove("cgroupsPath"));
    user.container.bundle.write()?;
    user.run()?.ok()?;
    user.container.nothing_left()
}

/// The kernel gives no controllers to children of a cgroup that has processes: no limits there, but a container.
fn a_place_with_processes_is_not_divided() -> Result<()> {
    needs!(root, cgroup2, userns, ours, setpriv);
    let tree = Tree::new()?;
    let mut user = User::new(&["true"])?;
    let name = tree
        .0
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    user.set("/linux/cgroupsPath", json!(format!("/{name}/session/below")))?;
    tree.call(&user, "session", &["run", "--bundle", "%", "@"])?
        .ok()?;
    user.set("/linux/resources", json!({"pids": {"limit": 20}}))?;
    let fault = tree
        .call(&user, "session", &["run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(
        fault.contains("linux.resources.pids") && fault.contains("may not make the cgroup"),
        "{fault}"
    );
    ensure_eq!(tree.names()?, ["session"]);
    Ok(())
}
