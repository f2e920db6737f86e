//! Commands that are killed: SIGKILL after system calls spread over each. Run again it finishes, and nothing of the VPS is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::disk::mounted;
use super::house::{House, eventually, said};
use crate::harness;
use crate::harness::trace::{self, Victim};

tests![
    a_killed_copy_of_a_vps_that_runs: 240,
    a_killed_copy_of_a_subvolume: 180,
    a_killed_import: 120,
    a_killed_restore: 180,
    a_killed_resize: 180,
    a_killed_rescue: 240,
    a_killed_deletion_of_a_snapshot: 120,
    a_killed_rebuild: 180,
    a_killed_rename: 120,
    a_killed_backup: 180,
];

/// Kills of one command.
const PARTS: usize = 5;

/// An init that stops at once.
const QUICK: &str = "trap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done";

/// A stopped VPS `web` with something of its own, and a snapshot `base` of that.
fn house() -> Result<House> {
    furnished(House::new()?, "")
}

/// The same in a subvolume of btrfs.
fn on_btrfs() -> Result<House> {
    let place = mounted(512, &["mkfs.btrfs", "-q"], "")?;
    furnished(
        House::at(place.join("condo"))?,
        "--disk 64M --memory 64M --cpus 2 --pids 50",
    )
}

fn furnished(mut house: House, options: &str) -> Result<House> {
    for image in ["quick", "other"] {
        house.import(image, QUICK)?;
    }
    house.ok(&format!("create web --image quick {options}"))?;
    mark(&house)?;
    house.ok("snapshot create web base")?;
    Ok(house)
}

fn mark(house: &House) -> Result<()> {
    let file = harness::tempdir().join("mine");
    std::fs::write(&file, "mine")?;
    house.ok(&format!("cp {} web:/mine", file.display())).map(drop)
}

fn mine(house: &House, name: &str) -> PathBuf {
    house.root.join("lib/vps").join(name).join("disk/upper/mine")
}

/// The tracer keeps the program's arguments, not its environment.
fn traced(house: &House, line: &str) -> Command {
    let mut command = Command::new(harness::condo());
    command
        .arg("--root")
        .arg(&house.root)
        .args(line.split_whitespace());
    command
}

/// Runs a command once to its end and then cut off at several places; `before` each, and `after` each when it has been run again.
fn cut(
    house: &House,
    line: &str,
    done_already: &str,
    before: impl Fn() -> Result<()>,
    after: impl Fn() -> Result<()>,
) -> Result<()> {
    before()?;
    // Not its children: a VPS that it starts is nobody's to trace.
    let all = trace::kill_after(&traced(house, line), Victim::Program, usize::MAX)?;
    ensure!(all.success, "`{line}` fails");
    after()?;
    for part in 1..=PARTS {
        before()?;
        // Elsewhere in each run.
        let step = all.calls / (PARTS + 1);
        let n = step * part + std::process::id() as usize % step.max(1);
        trace::kill_after(&traced(house, line), Victim::Program, n)?;
        let again = house.output(line)?;
        let done = !done_already.is_empty() && said(&again).contains(done_already);
        ensure!(
            again.status.success() || done,
            "`{line}` after {n} of {} calls: {}",
            all.calls,
            said(&again)
        );
        after().with_context(|| {
            format!(
                "`{line}` was killed after {n} of {} calls and run again",
                all.calls
            )
        })?;
    }
    Ok(())
}

/// Whoever copies freezes the VPS for a moment: it goes on whatever becomes of them.
fn goes_on(house: &House) -> Result<()> {
    eventually("it goes on", || Ok(house.status("web")? == "running"))?;
    house.sh("web", "busybox true").map(drop)
}

fn a_killed_copy_of_a_vps_that_runs() -> Result<()> {
    let house = house()?;
    house.ok("start web")?;
    cut_copies(&house)?;
    let dir = harness::tempdir();
    let archive = dir.join("web.condo").display().to_string();
    let export = || -> Result<()> {
        goes_on(&house)?;
        house.ok(&format!("import {archive} --name in"))?;
        is_whole(&mine(&house, "in"))?;
        house.ok("delete in")?;
        ensure!(std::fs::read_dir(&dir)?.count() == 1, "something is unfinished");
        Ok(std::fs::remove_file(&archive)?)
    };
    cut(
        &house,
        &format!("export web -o {archive}"),
        "",
        || goes_on(&house),
        export,
    )?;
    only_base_is_left(&house)?;
    house.leave()
}

/// Copies that are made at once, and restores from them.
fn a_killed_copy_of_a_subvolume() -> Result<()> {
    let house = on_btrfs()?;
    house.ok("start web")?;
    cut_copies(&house)?;
    only_base_is_left(&house)?;
    house.ok("stop web")?;
    cut_restores(&house)?;
    ensure!(house.show("web")?["disk"]["size"] == 64 << 20);
    house.leave()
}

fn is_whole(file: &Path) -> Result<()> {
    ensure!(std::fs::read_to_string(file)? == "mine", "{}", file.display());
    Ok(())
}

/// Snapshots and clones of a VPS that runs.
fn cut_copies(house: &House) -> Result<()> {
    let snapshot = || -> Result<()> {
        goes_on(house)?;
        is_whole(&house.root.join("lib/vps/web/snapshots/s/layer/upper/mine"))?;
        house.ok("snapshot delete web s").map(drop)
    };
    let unused = || goes_on(house);
    cut(house, "snapshot create web s", "already exists", unused, snapshot)?;
    let clone = || -> Result<()> {
        goes_on(house)?;
        is_whole(&mine(house, "copy"))?;
        house.ok("delete copy").map(drop)
    };
    cut(house, "clone web copy", "already exists", unused, clone)
}

fn only_base_is_left(house: &House) -> Result<()> {
    let left = std::fs::read_dir(house.root.join("lib/vps/web/snapshots"))?;
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left == ["base"], "{left:?}");
    Ok(())
}

fn a_killed_import() -> Result<()> {
    let house = house()?;
    let archive = harness::tempdir().join("web.condo");
    house.ok(&format!("export web -o {}", archive.display()))?;
    house.ok("delete --force web")?;
    // It brings its image as well.
    let before = || house.ok("image remove quick").map(drop);
    let after = || -> Result<()> {
        ensure!(house.list()?.len() == 1);
        is_whole(&mine(&house, "in"))?;
        house.ok("start in")?;
        house.ok("delete --force in").map(drop)
    };
    let line = format!("import {} --name in", archive.display());
    cut(&house, &line, "already exists", before, after)?;
    house.leave()
}

fn a_killed_restore() -> Result<()> {
    let house = house()?;
    cut_restores(&house)?;
    house.leave()
}

fn cut_restores(house: &House) -> Result<()> {
    let before = || -> Result<()> {
        house.ok("start web")?;
        let change =
            "echo changed > /mine; busybox mkdir -p /later/deep; echo x > /later/deep/file; busybox sync";
        house.sh("web", change).map(drop)
    };
    let after = || -> Result<()> {
        let mine = mine(house, "web");
        is_whole(&mine)?;
        ensure!(!mine.with_file_name("later").exists());
        goes_on(house)?;
        house.ok("stop web").map(drop)
    };
    cut(house, "snapshot restore web base --force", "", before, after)
}

/// On a file system where a disk grows and shrinks while its VPS runs.
fn a_killed_resize() -> Result<()> {
    let house = on_btrfs()?;
    house.ok("start web")?;
    let before = || {
        house
            .ok("resize web --cpus 2 --memory 64M --pids 50 --disk 64M")
            .map(drop)
    };
    let after = || -> Result<()> {
        let vps = house.show("web")?;
        ensure!(
            vps["limits"]["memory"] == 96 << 20 && vps["disk"]["size"] == 96 << 20,
            "{vps}"
        );
        let held = house.limits("web")?;
        ensure!(held.memory == 96 << 20 && held.pids == 100, "{held:?}");
        goes_on(&house)?;
        is_whole(&mine(&house, "web"))
    };
    let line = "resize web --cpus 1 --memory 96M --pids 100 --disk 96M";
    cut(&house, line, "", before, after)?;
    house.leave()
}

fn a_killed_rescue() -> Result<()> {
    let house = house()?;
    let stop = || house.ok("start web").map(drop);
    let rescued = || -> Result<()> {
        let vps = house.show("web")?;
        ensure!(vps["rescue"] == "other" && vps["status"] == "running", "{vps}");
        ensure!(house.sh("web", "busybox cat /mnt/mine")? == "mine");
        house.ok("rescue web --end")?;
        goes_on(&house)?;
        house.ok("stop web").map(drop)
    };
    cut(
        &house,
        "rescue web --image other --force",
        "in rescue already",
        stop,
        rescued,
    )?;
    let rescue = || house.ok("rescue web --image other").map(drop);
    let ended = || -> Result<()> {
        let vps = house.show("web")?;
        ensure!(vps["rescue"].is_null() && vps["status"] == "stopped", "{vps}");
        is_whole(&mine(&house, "web"))?;
        ensure!(!house.root.join("lib/vps/web/rescue").exists());
        Ok(())
    };
    cut(&house, "rescue web --end", "not in rescue", rescue, ended)?;
    house.leave()
}

fn a_killed_deletion_of_a_snapshot() -> Result<()> {
    let house = house()?;
    let before = || house.ok("snapshot create web s").map(drop);
    let after = || -> Result<()> {
        let snapshots = house.root.join("lib/vps/web/snapshots");
        let left: Vec<_> = std::fs::read_dir(snapshots)?
            .flatten()
            .map(|e| e.file_name())
            .collect();
        ensure!(left == ["base"], "{left:?}");
        Ok(())
    };
    // Killed at its end it is deleted, and what is left of it goes with the next command.
    cut(&house, "snapshot delete web s", "does not exist", before, after)?;
    house.ok("snapshot restore web base")?;
    ensure!(mine(&house, "web").exists());
    house.leave()
}

fn a_killed_rebuild() -> Result<()> {
    let house = house()?;
    let before = || {
        house.ok("rebuild web --image quick --start")?;
        mark(&house)
    };
    let after = || -> Result<()> {
        ensure!(house.show("web")?["image"] == "other" && !mine(&house, "web").exists());
        goes_on(&house)?;
        house.ok("stop web").map(drop)
    };
    cut(&house, "rebuild web --image other --force", "", before, after)?;
    house.leave()
}

fn a_killed_rename() -> Result<()> {
    let house = house()?;
    let address = house.address("web")?;
    let before = || match house.show("new") {
        Ok(_) => house.ok("rename new web").map(drop),
        Err(_) => Ok(()),
    };
    let after = || -> Result<()> {
        ensure!(house.list()?.len() == 1 && house.address("new")? == address);
        ensure!(mine(&house, "new").exists() && !house.root.join("lib/vps/web").exists());
        ensure!(house.ok("snapshot list new")?.contains("base"));
        house.ok("start new")?;
        house.ok("stop new").map(drop)
    };
    cut(&house, "rename web new", "does not exist", before, after)?;
    house.leave()
}

fn a_killed_backup() -> Result<()> {
    let house = house()?;
    let dir = harness::tempdir().join("backups");
    let before = || -> Result<()> {
        // Their names are as fine as seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        mark(&house)
    };
    let after = || -> Result<()> {
        let newest = newest(&dir.join("web"))?;
        house.ok(&format!("import {} --name back", newest.display()))?;
        ensure!(mine(&house, "back").exists(), "{}", newest.display());
        house.ok("delete back").map(drop)
    };
    let line = format!("backup {} web --keep-last 2", dir.display());
    cut(&house, &line, "already exists", before, after)?;
    let left = std::fs::read_dir(dir.join("web"))?
        .flatten()
        .map(|e| e.file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().contains("unfinished"))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    house.leave()
}

fn newest(dir: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "condo"));
    files.sort();
    files.pop().context("no backup")
}
