//! The world at its worst: commands that meet, disks that are full or read-only, cgroups that others use.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{Container, ensure_eq, until};
use crate::harness;

tests![
    two_deletes_at_once: 120,
    delete_during_start: 120,
    kill_and_delete_during_create: 120,
    a_full_disk: 300,
    a_read_only_state_directory: 120,
    a_cgroup_with_strangers_in_it in guest,
    a_cgroup_with_children_of_its_own in guest,
];

/// A small file system of the test's own, which goes when this is dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(size: &str) -> Result<Self> {
        let dir = harness::tempdir();
        let data = format!("size={size},mode=755");
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(&*data))?;
        Ok(Self(dir))
    }

    /// Leaves so many pages free.
    fn fill_but(&self, pages: u64) -> Result<()> {
        let _ = fs::remove_file(self.0.join("ballast"));
        let stat = nix::sys::statvfs::statvfs(&self.0)?;
        let bytes = (stat.blocks_available().saturating_sub(pages)) * stat.block_size();
        fs::write(self.0.join("ballast"), vec![0; usize::try_from(bytes)?])?;
        Ok(())
    }

    fn read_only(&self, yes: bool) -> Result<()> {
        let flags = MsFlags::MS_REMOUNT | if yes { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let none = None::<&str>;
        // A process that is about to become its program may still have a file open.
        until("nobody writes", || {
            Ok(mount(none, &self.0, none, flags, none).is_ok())
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Starts commands one right after the other and waits for all: what each complained of, if it failed.
fn at_once(c: &Container, commands: &[&[&str]]) -> Result<Vec<Option<String>>> {
    std::thread::scope(|scope| {
        let started: Vec<_> = commands.iter().map(|args| scope.spawn(|| c.call(args))).collect();
        let ended = started.into_iter().map(|thread| thread.join().expect("a thread"));
        ended
            .map(|ran| ran.map(|ran| (!ran.status.success()).then_some(ran.err)))
            .collect()
    })
}

fn two_deletes_at_once() -> Result<()> {
    known_difference!("runc", "the second may find half of it");
    let c = Container::idle()?;
    for _ in 0..harness::rounds(10) {
        c.up()?;
        let done = at_once(&c, &[&["delete", "--force", "@"], &["delete", "--force", "@"]])?;
        ensure_eq!(done, [None, None]);
        c.nothing_left()?;
    }
    for _ in 0..harness::rounds(10) {
        c.up()?;
        c.call(&["kill", "@", "KILL"])?.ok()?;
        c.stopped()?;
        // Without force, what is gone does not exist.
        let done = at_once(&c, &[&["delete", "@"], &["delete", "@"]])?;
        ensure!(done.contains(&None), "{done:?}");
        c.nothing_left()?;
    }
    Ok(())
}

fn delete_during_start() -> Result<()> {
    known_difference!("runc", "has no lock");
    let c = Container::idle()?;
    for round in 0..harness::rounds(20) {
        c.create()?;
        let mut commands: [&[&str]; 2] = [&["start", "@"], &["delete", "--force", "@"]];
        if round % 2 == 0 {
            commands.reverse();
        }
        let done = at_once(&c, &commands)?;
        ensure!(done[usize::from(round % 2 != 0)].is_none(), "{done:?}");
        c.nothing_left()?;
    }
    Ok(())
}

fn kill_and_delete_during_create() -> Result<()> {
    known_difference!("runc", "has no lock");
    let c = Container::idle()?;
    for _ in 0..harness::rounds(10) {
        at_once(
            &c,
            &[
                &["create", "--bundle", "%", "@"],
                &["kill", "@", "KILL"],
                &["delete", "--force", "@"],
                &["state", "@"],
            ],
        )?;
        // Whoever came first: this is the last word.
        c.cleared()?;
    }
    Ok(())
}

fn a_full_disk() -> Result<()> {
    known_difference!("runc", "leaves an empty state directory");
    let disk = Disk::new("256k")?;
    let mut c = Container::idle()?;
    let empty = std::mem::replace(&mut c.root, disk.0.join("state"));
    fs::create_dir(&c.root)?;
    let mut made = 0;
    let mut refused = 0;
    for pages in 0..8 {
        disk.fill_but(pages)?;
        let pid_file = disk.0.join("pid");
        let args = [
            "create",
            "--bundle",
            "%",
            "--pid-file",
            &pid_file.to_string_lossy(),
            "@",
        ];
        let ran = c.call(&args)?;
        if ran.status.success() {
            made += 1;
            // To clear needs no room, even where there is none left at all.
            disk.fill_but(0)?;
            c.cleared()?;
            fs::remove_file(&pid_file)?;
        } else {
            refused += 1;
            ensure!(
                ran.err.contains("No space left") || ran.err.contains("no space left"),
                "{ran:?}"
            );
            ensure!(ran.err.trim().lines().count() == 1, "{ran:?}");
            ensure!(!pid_file.exists(), "a pid file of nobody is left");
            c.nothing_left()?;
        }
    }
    ensure!(made > 0 && refused > 0, "{made} made, {refused} refused");
    c.root = empty;
    Ok(())
}

fn a_read_only_state_directory() -> Result<()> {
    known_difference!("runc", "removes the cgroup first and cannot be asked again");
    let disk = Disk::new("1m")?;
    let mut c = Container::idle()?;
    let empty = std::mem::replace(&mut c.root, disk.0.join("state"));
    fs::create_dir(&c.root)?;
    disk.read_only(true)?;
    let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
    ensure!(fault.to_lowercase().contains("read-only file system"), "{fault}");
    c.nothing_left()?;
    disk.read_only(false)?;
    c.up()?;
    disk.read_only(true)?;
    // What only reads still works; what cannot be done says so, and nothing is lost.
    ensure_eq!(c.status()?, "running");
    c.exec(&["@", "true"])?.ok()?;
    c.call(&["kill", "@", "KILL"])?.ok()?;
    c.stopped()?;
    let fault = c.call(&["delete", "@"])?.fault()?;
    ensure!(fault.to_lowercase().contains("read-only file system"), "{fault}");
    ensure_eq!(c.status()?, "stopped");
    disk.read_only(false)?;
    c.call(&["delete", "@"])?.ok()?;
    c.nothing_left()?;
    c.root = empty;
    Ok(())
}

fn enter(dir: &Path, pid: u32) -> Result<()> {
    Ok(fs::write(dir.join("cgroup.procs"), pid.to_string())?)
}

fn a_cgroup_with_strangers_in_it() -> Result<()> {
    known_difference!("runc", "leaves the cgroup");
    let c = Container::idle()?;
    c.up()?;
    let mut stranger = std::process::Command::new("/bin/sleep").arg("1000").spawn()?;
    for dir in c.cgroups() {
        enter(&dir, stranger.id())?;
    }
    // What is in a container's cgroup is the container's: it ends with it.
    c.cleared()?;
    ensure!(!stranger.wait()?.success());
    Ok(())
}

fn a_cgroup_with_children_of_its_own() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/linux/resources/pids", json!({"limit": 20}))?;
    c.up()?;
    let mut below = Vec::new();
    for dir in c.cgroups() {
        let inner = dir.join("inner");
        fs::create_dir(&inner)?;
        fs::create_dir(inner.join("innermost"))?;
        below.push(inner);
    }
    ensure!(!below.is_empty());
    c.cleared()
}
