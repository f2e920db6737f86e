//! Who reaches the socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};

use super::reception::Reception;
use crate::harness;

tests![
    the_group_reaches_the_socket_and_nothing_beside_it: 60,
];

/// Numbers that are nobody's here.
const USER: u32 = 54_321;
const GROUP: u32 = 54_322;

fn the_group_reaches_the_socket_and_nothing_beside_it() -> Result<()> {
    needs!(root, program: lxc);
    harness::private_mounts()?;
    let groups = harness::tempdir().join("group");
    let known = std::fs::read_to_string("/etc/group")?;
    let others = known.lines().filter(|line| !line.starts_with("condo:"));
    let lines: String = others.map(|line| format!("{line}\n")).collect();
    std::fs::write(&groups, format!("{lines}condo:x:{GROUP}:\n"))?;
    mount(
        Some(&groups),
        Path::new("/etc/group"),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let all = Reception::new()?;
    all.house.ok("create web --image busybox")?;
    let home = harness::tempdir();
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777))?;
    let lxc = |gid: u32| {
        let mut lxc = all.lxc(&["list", "--format", "csv", "-c", "n"]);
        lxc.env("LXD_CONF", home.join(gid.to_string())).uid(USER).gid(gid);
        lxc
    };
    ensure!(harness::run(&mut lxc(GROUP))?.trim() == "web");
    let stranger = lxc(USER).output()?;
    let said = String::from_utf8_lossy(&stranger.stderr);
    ensure!(
        !stranger.status.success() && said.contains("permission denied"),
        "{said}"
    );
    // The group gets through the folder, and into nothing in it.
    let run = all.house.root.join("run");
    let look = |path: &Path| Command::new("ls").arg(path).uid(USER).gid(GROUP).output();
    ensure!(!look(&run)?.status.success(), "the folder can be listed");
    for entry in std::fs::read_dir(&run)? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        let expected = match entry.file_name().to_str() {
            Some("api.socket") => 0o660,
            _ if entry.metadata()?.is_dir() => 0o700,
            _ => 0o600,
        };
        ensure!(mode == expected, "{}: {mode:o}", entry.path().display());
    }
    all.leave()
}
