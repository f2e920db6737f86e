//! Called by root of a user namespace: a build inside of another container.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::super::{ensure_eq, to_the_end};
use super::User;

tests![
    a_container_in_a_user_namespace in guest,
    a_container_without_a_user_namespace_of_its_own,
    a_container_of_a_container_s_root,
];

/// The user's call inside of new namespaces.
fn inside(user: &User, unshare: &[&str], args: &[&str]) -> Command {
    let runtime = user.container.command(args);
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .arg(runtime.get_program())
        .args(runtime.get_args());
    user.lower(&command)
}

fn a_container_in_a_user_namespace() -> Result<()> {
    needs!(root, userns, ours, setpriv, unshare);
    let mut user = User::sh("id -u; cat /proc/self/uid_map | tr -s ' '; test -c /dev/null && echo devices")?;
    let own = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    user.set("/linux/uidMappings", own.clone())?
        .set("/linux/gidMappings", own)?;
    let said = to_the_end(inside(&user, &["-Ur"], &["run", "--bundle", "%", "@"]))?.ok()?;
    ensure_eq!(said, "0\n 0 0 1\ndevices\n");
    user.container.nothing_left()
}

fn a_container_without_a_user_namespace_of_its_own() -> Result<()> {
    needs!(root, userns, ours, setpriv, unshare);
    let mut user = User::sh(
        "id -u; test -c /dev/null && echo devices; ls /sys/kernel >/dev/null && echo sys; hostname",
    )?;
    let linux = user.container.bundle.config["linux"].as_object_mut();
    if let Some(linux) = linux {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    }
    let kinds = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    user.set("/linux/namespaces", json!(kinds))?;
    let said = to_the_end(inside(&user, &["-Ur"], &["run", "--bundle", "%", "@"]))?.ok()?;
    ensure_eq!(said, "0\ndevices\nsys\ncondo\n");
    user.container.nothing_left()
}

/// As in a container with a process tree, a file tree and a network of its own.
fn a_container_of_a_container_s_root() -> Result<()> {
    needs!(root, userns, ours, setpriv, unshare);
    let mut user = User::sh("id -u; echo $$; ip link show lo | grep -c UP")?;
    let own = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    user.set("/linux/uidMappings", own.clone())?
        .set("/linux/gidMappings", own)?;
    user.push("/linux/namespaces", json!({"type": "network"}))?;
    let outer = ["-Urmnp", "--fork", "--mount-proc", "--kill-child"];
    let said = to_the_end(inside(&user, &outer, &["run", "--bundle", "%", "@"]))?.ok()?;
    ensure_eq!(said, "0\n1\n1\n");
    user.container.nothing_left()
}
