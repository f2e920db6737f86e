//! Commands that are killed: SIGKILL after system calls spread over each. Run again it finishes, and nothing of the VPS is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::house::{House, said};
use crate::harness;
use crate::harness::trace::{self, Victim};

tests![
    a_killed_deletion_of_a_snapshot: 120,
    a_killed_rebuild: 180,
    a_killed_rename: 120,
    a_killed_backup: 180,
];

/// Kills of one command.
const PARTS: usize = 5;

/// A stopped VPS `web` with something of its own, and a snapshot `base` of that.
fn house() -> Result<House> {
    let mut house = House::quick()?;
    house.import(
        "other",
        "trap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done",
    )?;
    house.ok("create web --image quick")?;
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
    let all = trace::count(&traced(house, line))?;
    ensure!(all.success, "`{line}` fails");
    after()?;
    for part in 1..=PARTS {
        before()?;
        let n = all.calls * part / (PARTS + 1);
        trace::kill_after(&traced(house, line), Victim::Program, n)?;
        let again = house.output(line)?;
        ensure!(
            again.status.success() || said(&again).contains(done_already),
            "`{line}` after {n} calls: {}",
            said(&again)
        );
        after().with_context(|| format!("`{line}` was killed after {n} calls and run again"))?;
    }
    Ok(())
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
        house.ok("rebuild web --image quick")?;
        mark(&house)
    };
    let after = || -> Result<()> {
        ensure!(house.show("web")?["image"] == "other" && !mine(&house, "web").exists());
        house.ok("start web")?;
        house.ok("stop web").map(drop)
    };
    cut(&house, "rebuild web --image other", "nothing", before, after)?;
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
