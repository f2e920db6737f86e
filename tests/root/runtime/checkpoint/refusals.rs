//! What is refused, and leaves everything as it was.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{COUNT, Saved};
use crate::harness;
use crate::runtime::rootless::User;
use crate::runtime::{ensure_eq, to_the_end};

tests![
    without_criu_it_says_what_to_install,
    only_a_running_container_is_saved,
    restore_needs_its_images,
    an_id_in_use_is_refused in guest,
    flags_are_checked,
    a_container_without_a_cgroup_is_refused,
    a_caller_without_root_is_refused,
    a_checkpoint_that_does_not_fit_the_config_is_refused in guest: 300,
    damaged_images_leave_nothing in guest: 300,
];

fn without_criu_it_says_what_to_install() -> Result<()> {
    needs!(root, ours);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    let images = s.images.to_str().context("a path")?;
    let mut save = s.c.command(&["checkpoint", "--image-path", images, "@"]);
    save.env("PATH", "/nonexistent");
    let fault = to_the_end(save)?.fault()?;
    ensure!(
        fault.contains("criu") && fault.contains("install CRIU"),
        "{fault}"
    );
    ensure!(!s.images.exists(), "a directory for nothing");
    s.counts()?;
    s.end()?;
    fs::create_dir(&s.images)?;
    fs::write(s.images.join("descriptors.json"), "[]")?;
    let mut restore = s.returning(&[])?;
    restore.env("PATH", "/nonexistent");
    let fault = to_the_end(restore)?.fault()?;
    ensure!(fault.contains("install CRIU"), "{fault}");
    s.c.nothing_left()
}

fn only_a_running_container_is_saved() -> Result<()> {
    needs!(root);
    let s = Saved::new(COUNT)?;
    let fault = s.try_save(&[])?.fault()?;
    ensure!(fault.contains("does not exist"), "{fault}");
    s.c.create()?;
    let fault = s.try_save(&[])?.fault()?;
    ensure!(
        fault.contains("cannot be checkpointed in created state"),
        "{fault}"
    );
    s.c.call(&["kill", "@", "KILL"])?.ok()?;
    s.c.stopped()?;
    let fault = s.try_save(&[])?.fault()?;
    ensure!(
        fault.contains("cannot be checkpointed in stopped state"),
        "{fault}"
    );
    Ok(())
}

fn restore_needs_its_images() -> Result<()> {
    needs!(root, ours);
    let s = Saved::new(COUNT)?;
    let fault = to_the_end(s.returning(&[])?)?.fault()?;
    let images = s.images.to_str().context("a path")?;
    ensure!(
        fault.contains("checkpoint directory") && fault.contains(images) && fault.contains("does not exist"),
        "{fault}"
    );
    ensure!(!s.images.exists(), "made one");
    fs::create_dir(&s.images)?;
    let fault = to_the_end(s.returning(&[])?)?.fault()?;
    ensure!(fault.contains("descriptors.json"), "{fault}");
    for content in ["{", "{}", "[1]", "[[\"pipe:[1]\"]]"] {
        fs::write(s.images.join("descriptors.json"), content)?;
        let fault = to_the_end(s.returning(&[])?)?.fault()?;
        ensure!(fault.contains("descriptors.json"), "{content}: {fault}");
    }
    s.c.nothing_left()
}

fn an_id_in_use_is_refused() -> Result<()> {
    needs!(root, program: criu);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    fs::create_dir(&s.images)?;
    fs::write(s.images.join("descriptors.json"), "[]")?;
    let fault = to_the_end(s.returning(&[])?)?.fault()?;
    ensure!(fault.contains("already exists"), "{fault}");
    s.counts()?;
    s.end()
}

fn flags_are_checked() -> Result<()> {
    needs!(root, ours);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    for (flags, words) in [
        (
            &["--manage-cgroups-mode", "hard"][..],
            "--manage-cgroups-mode: `hard`",
        ),
        (&["--page-server", "nowhere"], "--page-server"),
        (&["--empty-ns", "user"], "--empty-ns: `user`"),
        (&["--status-fd", "77"], "--status-fd: `77` is not open"),
        // Its standard input is only there to be read.
        (&["--status-fd", "0"], "not open for writing"),
        (&["--lazy-pages"], "--page-server"),
    ] {
        let fault = s.try_save(flags)?.fault()?;
        ensure!(fault.contains(words), "{flags:?}: {fault}");
    }
    ensure_eq!(s.c.status()?, "running");
    s.end()?;
    for flags in [["--manage-cgroups-mode", "hard"], ["--empty-ns", "user"]] {
        let fault = to_the_end(s.returning(&flags)?)?.fault()?;
        ensure!(fault.contains(flags[0]), "{flags:?}: {fault}");
    }
    s.c.nothing_left()
}

fn a_container_without_a_cgroup_is_refused() -> Result<()> {
    needs!(root, ours);
    let s = Saved::new(COUNT)?;
    let manager = "--cgroup-manager=disabled";
    s.c.create_with(s.c.command(&[manager, "create", "--bundle", "%", "@"]))?;
    s.c.start()?;
    let fault = s.try_save(&[])?.fault()?;
    ensure!(fault.contains("without a cgroup"), "{fault}");
    s.counts()?;
    s.end()?;
    let restore = s.c.call(&[manager, "restore", "--bundle", "%", "@"])?;
    let fault = restore.fault()?;
    ensure!(fault.contains("without a cgroup"), "{fault}");
    s.c.nothing_left()
}

fn a_caller_without_root_is_refused() -> Result<()> {
    needs!(root, userns, ours, program: setpriv);
    let user = User::idle()?;
    user.up()?;
    for args in [&["checkpoint", "@"][..], &["restore", "--bundle", "%", "@"]] {
        let fault = user.call(args)?.fault()?;
        ensure!(fault.contains("call condo-runtime as root"), "{args:?}: {fault}");
    }
    ensure_eq!(user.status()?, "running");
    user.call(&["kill", "@", "KILL"])?.ok()?;
    user.container.stopped()?;
    user.call(&["delete", "@"])?.ok()?;
    user.container.nothing_left()
}

fn a_checkpoint_that_does_not_fit_the_config_is_refused() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    s.save(&[])?;
    let before = s.count()?;
    let capabilities = s.c.bundle.config["process"]["capabilities"].clone();
    s.c.set("/process/capabilities", json!({"bounding": ["CAP_KILL"]}))?;
    let fault = to_the_end(s.returning(&["--detach"])?)?.fault()?;
    ensure!(
        fault.contains("capabilities") && fault.contains("does not fit"),
        "{fault}"
    );
    s.c.nothing_left()?;
    ensure_eq!(s.count()?, before);
    s.c.set("/process/capabilities", capabilities)?;
    s.bring_back(&[])?;
    s.counts()?;
    s.end()
}

fn damaged_images_leave_nothing() -> Result<()> {
    needs!(root, criu);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    s.save(&[])?;
    let work = harness::tempdir().join("work");
    for image in ["pstree.img", "core-1.img"] {
        let whole = fs::read(s.images.join(image))?;
        fs::write(s.images.join(image), &whole[..whole.len() / 2])?;
        let flags = ["--detach", "--work-path", work.to_str().context("a path")?];
        let fault = to_the_end(s.returning(&flags)?)?.fault()?;
        ensure!(
            fault.contains("criu failed") && fault.contains("work/restore.log") && fault.lines().count() == 1,
            "{image}: {fault}"
        );
        s.c.nothing_left()?;
        fs::write(s.images.join(image), whole)?;
    }
    s.bring_back(&[])?;
    s.counts()?;
    s.end()
}
