//! Further ids from `/etc/subuid`, written by `newuidmap` and `newgidmap`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::super::ensure_eq;
use super::{UID, User};
use crate::harness;

tests![
    further_ids_are_the_user_s_own,
    the_program_runs_as_a_further_id,
    missing_tools_are_named_with_the_way_out,
    ids_of_others_are_refused_with_a_line_to_add,
];

/// Where the user's further ids begin.
const FIRST: u32 = 300_000;

/// Gives the user an entry in files that only this test sees, and a container with the further ids.
fn rich(script: &str) -> Result<User> {
    harness::private_mounts()?;
    let dir = harness::tempdir();
    let ids = format!("{UID}:{FIRST}:1000\n");
    let entry = |file: &str, line: String| -> Result<()> {
        let old = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        fs::write(dir.join(file), old + &line)?;
        let to = format!("/etc/{file}");
        Ok(mount(
            Some(&dir.join(file)),
            to.as_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?)
    };
    entry(
        "passwd",
        format!("condo-test:x:{UID}:{UID}::/nonexistent:/bin/sh\n"),
    )?;
    entry("subuid", ids.clone())?;
    entry("subgid", ids)?;
    let mut user = User::sh(script)?;
    map(&mut user, FIRST, 1000)?;
    Ok(user)
}

fn map(user: &mut User, first: u32, size: u32) -> Result<()> {
    let ids = json!([
        {"containerID": 0, "hostID": UID, "size": 1},
        {"containerID": 1, "hostID": first, "size": size},
    ]);
    user.set("/linux/uidMappings", ids.clone())?
        .set("/linux/gidMappings", ids)?;
    Ok(())
}

fn further_ids_are_the_user_s_own() -> Result<()> {
    needs!(root, userns, ours, setpriv, newuidmap, newgidmap);
    let mut user = rich(
        "touch /made && chown 5:6 /made && stat -c %u:%g /made; id -G; cat /proc/self/setgroups; exec sleep 100000",
    )?;
    user.set("/process/user/additionalGids", json!([7, 8]))?;
    let all = json!(["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]);
    for set in ["bounding", "effective", "permitted"] {
        user.set(&format!("/process/capabilities/{set}"), all.clone())?;
    }
    // With ids to choose from, the group of terminals can be had.
    user.set("/mounts/2", harness::usual_mount("/dev/pts"))?;
    user.up()?;
    super::super::until("it has printed", || {
        Ok(user.container.printed().contains("allow"))
    })?;
    ensure_eq!(user.container.printed(), "5:6\n0 7 8\nallow\n");
    let made = fs::metadata(user.container.bundle.rootfs().join("made"))?;
    ensure_eq!((made.uid(), made.gid()), (FIRST + 4, FIRST + 5));
    ensure_eq!(
        user.call(&["exec", "--user", "9:10", "-g", "11", "@", "id"])?
            .ok()?,
        "uid=9 gid=10 groups=7,8,11\n"
    );
    user.leave()
}

/// Whoever made the user namespace may end and enter what runs there as another.
fn the_program_runs_as_a_further_id() -> Result<()> {
    needs!(root, userns, ours, setpriv, newuidmap, newgidmap);
    let mut user = rich("exec sleep 100000")?;
    user.set("/process/user/uid", 1.into())?
        .set("/process/user/gid", 1.into())?;
    user.up()?;
    let init = user.container.pid()?;
    super::super::until("the program runs", || {
        Ok(fs::metadata(format!("/proc/{init}"))?.uid() == FIRST)
    })?;
    ensure_eq!(user.call(&["exec", "@", "id", "-u"])?.ok()?, "1\n");
    ensure_eq!(
        user.call(&["ps", "--format", "json", "@"])?.ok()?,
        format!("[{init}]")
    );
    user.call(&["kill", "@", "KILL"])?.ok()?;
    super::super::until("it stops", || Ok(user.status()? == "stopped"))?;
    user.leave()
}

fn missing_tools_are_named_with_the_way_out() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    map(&mut user, FIRST, 1000)?;
    user.path = "/nowhere".into();
    user.refused(&[
        "linux.uidMappings",
        "needs `newuidmap`, which is not in $PATH",
        "package uidmap",
        "`0 12345 1`",
    ])
}

fn ids_of_others_are_refused_with_a_line_to_add() -> Result<()> {
    needs!(root, userns, ours, setpriv, newuidmap, newgidmap);
    let mut user = rich("true")?;
    user.run()?.ok()?;
    map(&mut user, FIRST, 1001)?;
    user.refused(&[
        "linux.uidMappings",
        "not allowed",
        "/etc/subuid",
        "`12345:300000:1001`",
    ])?;
    map(&mut user, 0, 1)?;
    user.refused(&["linux.uidMappings", "`12345:0:1`"])?;
    // By hand neither: the kernel lets a user map itself alone.
    let own = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    user.set("/linux/uidMappings", own)?;
    user.refused(&["linux.uidMappings"])?;
    ensure!(user.container.nothing_left().is_ok());
    Ok(())
}
