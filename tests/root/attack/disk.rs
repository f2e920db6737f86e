//! A tenant who fills the disk on which its operator's records are, and goes on doing so.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::harness;
use crate::vps::house::{House, alive, eventually, said};

tests![a_full_tmpfs_locks_nobody_out: 120, a_full_ext4_locks_nobody_out: 120];

fn a_full_tmpfs_locks_nobody_out() -> Result<()> {
    needs!(root, linux_6_3);
    harness::private_mounts()?;
    let disk = harness::tempdir();
    mount(
        Some("none"),
        &disk,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=48m"),
    )?;
    is_under_control(&disk)
}

/// Without blocks that are root's alone, as on other file systems.
fn a_full_ext4_locks_nobody_out() -> Result<()> {
    needs!(root);
    harness::need("program:mkfs.ext4");
    harness::private_mounts()?;
    let (image, disk) = (harness::tempdir().join("disk"), harness::tempdir());
    std::fs::File::create(&image)?.set_len(64 << 20)?;
    harness::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-F"])
            .arg(&image),
    )?;
    harness::run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk))?;
    is_under_control(&disk)
}

/// Commands on a disk that is full and stays so.
fn is_under_control(disk: &Path) -> Result<()> {
    let house = House::at(disk.join("condo"))?;
    house.running("web", "")?;
    house.running("db", "")?;
    let fill = "for n in 1 2 3; do (while :; do cat /dev/zero >> /fill$n; echo x > /small.$n; done) & done 2> /dev/null";
    let mut fillers = ["web", "db"].map(|name| house.sh_spawn(name, &format!("{fill}; wait")));
    let free = || -> Result<u64> { Ok(nix::sys::statvfs::statvfs(disk)?.blocks_available()) };
    eventually("the disk is full", || Ok(free()? == 0))?;

    ensure!(house.list()?.len() == 2 && house.status("web")? == "running");
    ensure!(house.sh("web", "echo here")? == "here");
    ensure!(house.ok("logs web")?.contains("Press Enter"));
    // A block may come free for a moment; then there is a whole VPS, and else none.
    let made = house.output("create new --image busybox")?;
    ensure!(made.status.success() || said(&made).contains("space"), "{made:?}");
    ensure!(house.show("new").is_ok() == made.status.success());
    let init = house.init("web")?;
    house.ok("stop web --timeout 5")?;
    ensure!(!alive(init));
    let exit = house.ended("web")?;
    ensure!(
        ["exited", "killed"].map(Into::into).contains(&exit["reason"]),
        "{exit}"
    );
    eventually("the other one fills it again", || Ok(free()? == 0))?;
    let init = house.init("db")?;
    house.ok("delete --force db")?;
    ensure!(!alive(init) && house.show("db").is_err());
    house.ok("delete --force --all")?;
    for filler in &mut fillers {
        filler.as_mut().ok().context("a filler")?.wait()?;
    }
    // There is room again, and all is as before.
    house.running("web", "")?;
    house.leave()
}
