//! Fault injection: `condo image import` and `pull` are killed after a system call, for many of those they make. The same command
//! completes what they left, and `prune` leaves nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use condo::image::Images;

use super::layers::{check_tree, view};
use super::registry::alone;
use super::saved;
use super::server::{Manners, Registry};
use crate::harness;
use crate::harness::trace::{Victim, kill_after};

tests![
    an_import_killed_anywhere_is_completed: 300,
    a_pull_killed_anywhere_is_completed: 300,
];

/// In how many places a command is cut.
const CUTS: usize = 12;

/// Kills the command after so many of its system calls, evenly from one on that differs from run to run.
fn killed_anywhere(root: &Path, arguments: &[&str]) -> Result<()> {
    let images = Images::new(root.join("lib/images"));
    let mut command = Command::new(harness::condo());
    command.arg("--root").arg(root).args(arguments);
    let calls = kill_after(&command, Victim::Program, usize::MAX)?.calls;
    completed(&images, &mut command)?;
    let step = calls / CUTS;
    let first = 1 + std::process::id() as usize % step.max(1);
    for n in (first..calls).step_by(step.max(1)) {
        kill_after(&command, Victim::Program, n)?;
        completed(&images, &mut command).with_context(|| format!("after call {n}"))?;
    }
    ensure!(step > 10, "only {calls} system calls were seen");
    Ok(())
}

/// What was begun is completed by the same command, and nothing stays once it is removed.
fn completed(images: &Images, command: &mut Command) -> Result<()> {
    if images.get("app").is_err() {
        harness::run(command)?;
    }
    check_tree(&view(&images.get("app")?)?.path)?;
    images.remove("app")?;
    images.prune()?;
    for dir in [
        images.dir().to_owned(),
        images.dir().join(".layers"),
        images.dir().join(".blobs"),
    ] {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let stays = name == "lock" || name == ".layers" || name == ".blobs";
            ensure!(stays, "left: {}", entry.path().display());
        }
    }
    Ok(())
}

fn an_import_killed_anywhere_is_completed() -> Result<()> {
    needs!(root);
    let dir = harness::tempdir();
    let archive = dir.join("app.tar");
    fs::write(&archive, saved::archive(&saved::three_layers()?.docker()?))?;
    let archive = archive.display().to_string();
    killed_anywhere(
        &dir.join("condo"),
        &["image", "import", &archive, "--name", "app"],
    )
}

fn a_pull_killed_anywhere_is_completed() -> Result<()> {
    needs!(root);
    let scratch = alone()?;
    let three = saved::three_layers()?;
    let registry = Registry::start(&[("team/app", &three, false)], Manners::default())?;
    let reference = format!("{}/team/app", registry.address);
    let arguments = ["image", "pull", &reference, "--name", "app", "--tls-verify=false"];
    killed_anywhere(&scratch.0.join("condo"), &arguments)
}
