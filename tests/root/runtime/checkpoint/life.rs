//! A container's life goes on: what it is after a checkpoint and after a restore.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::memory::{KEEPER, held};
use super::{COUNT, Saved};
use crate::harness;
use crate::runtime::{ensure_eq, to_the_end, until};

tests![
    a_count_goes_on in guest: 300,
    it_can_be_left_running in guest: 300,
    only_what_changed_since_a_pre_dump_is_saved in guest: 300,
    in_the_foreground_it_ends_with_its_status in guest: 300,
    its_streams_are_those_of_the_restore in guest: 300,
    a_redirected_stream_is_its_own_again in guest: 300,
    a_paused_one_is_saved in guest: 300,
    limits_hold_again in guest: 300,
    a_user_namespace_comes_back in guest: 300,
    hooks_run_again in guest: 300,
    file_locks_are_held_again in guest: 300,
    a_second_time in guest: 400,
    a_scope_is_made_again_on_systemd: 400,
];

fn a_count_goes_on() -> Result<()> {
    needs!(root, criu, program: ip, program: nsenter);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    // The network is the caller's, whether it is said or not.
    let pid = s.c.pid()?.to_string();
    let add = ["-t", &pid, "-n", "ip", "link", "add", "extra", "type", "dummy"];
    harness::run(Command::new("nsenter").args(add))?;
    ensure_eq!(s.c.exec(&["@", "ls", "/sys/class/net"])?.ok()?, "extra\nlo\n");
    let pid_file = harness::tempdir().join("pid");
    s.there_and_back(
        &["--empty-ns", "network"],
        &[
            "--empty-ns",
            "network",
            "--pid-file",
            pid_file.to_str().context("a path")?,
            "-no-subreaper",
            "--no-pivot",
        ],
    )?;
    ensure_eq!(s.c.exec(&["@", "ls", "/sys/class/net"])?.ok()?, "lo\n");
    ensure_eq!(fs::read_to_string(&pid_file)?, s.c.pid()?.to_string());
    ensure_eq!(s.c.exec(&["@", "cat", "/proc/1/comm"])?.ok()?, "sh\n");
    ensure_eq!(s.c.exec(&["@", "hostname"])?.ok()?, "test\n");
    ensure!(
        s.c.exec(&["@", "ip", "address"])?.ok()?.contains("127.0.0.1/8"),
        "no loopback"
    );
    s.end()
}

fn it_can_be_left_running() -> Result<()> {
    needs!(root, criu);
    let s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    let pid = s.c.pid()?;
    s.save(&["--leave-running"])?;
    ensure_eq!((s.c.status()?.as_str(), s.c.pid()?), ("running", pid));
    s.counts()?;
    let later = s.count()?;
    s.c.delete()?;
    // Back to what it was at the checkpoint, with the files of today.
    s.bring_back(&[])?;
    until("it counts from before", || Ok(s.count()? < later))?;
    s.end()
}

fn only_what_changed_since_a_pre_dump_is_saved() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(KEEPER)?;
    let dir = harness::tempdir();
    s.c.up()?;
    s.counts()?;
    s.images = dir.join("first");
    let saved = s.try_save(&["--pre-dump"])?;
    ensure_eq!(saved.err, "");
    saved.ok()?;
    s.counts()?;
    s.images = dir.join("second");
    let refused = s
        .try_save(&["--parent-path", dir.join("first").to_str().context("a path")?])?
        .fault()?;
    ensure!(
        refused.contains("--parent-path") && refused.contains("relative"),
        "{refused}"
    );
    let refused = s.try_save(&["--parent-path", "../third"])?.fault()?;
    ensure!(refused.contains("no directory"), "{refused}");
    // Its children, programs of a moment, may be there or not, and before they are programs they have all of its memory.
    let of_init = |images: &Path| held(images, "pages-1.img");
    let (work, whole) = (dir.join("work"), of_init(&dir.join("first"))?);
    let work_path = work.to_str().context("a path")?;
    let flags = ["--auto-dedup", "--work-path", work_path];
    s.save(&[&["--parent-path", "../first"], &flags[..]].concat())?;
    let link = fs::read_link(s.images.join("parent"))?;
    ensure_eq!(link, Path::new("../first"));
    ensure!(
        work.join("dump.log").exists() && !s.images.join("dump.log").exists(),
        "the log"
    );
    // What is saved anew is dropped from the pre-dump, and the rest when it has been read.
    let (old, new, before) = (of_init(&dir.join("first"))?, of_init(&s.images)?, s.count()?);
    ensure!(old < whole && new < whole, "{whole} bytes, then {old} and {new}");
    s.bring_back(&flags)?;
    ensure!(work.join("restore.log").exists(), "no log");
    ensure_eq!(held(&s.images, "pages-")?, 0);
    s.counts()?;
    ensure!(s.count()? > before, "it began anew");
    s.end()
}

fn in_the_foreground_it_ends_with_its_status() -> Result<()> {
    needs!(root, criu);
    let s = Saved::new("echo up > /up; while ! test -e /go; do sleep 0.05; done; exit 7")?;
    s.c.up()?;
    until("it is up", || Ok(s.file("up").exists()))?;
    s.save(&[])?;
    // A stream that was a file can become another file only.
    let out = fs::File::create(harness::tempdir().join("out"))?;
    let err = out.try_clone()?;
    let mut restore = s.returning(&[])?.stdout(out).stderr(err).spawn()?;
    until("it runs", || {
        Ok(s.c.status().is_ok_and(|status| status == "running"))
    })?;
    fs::write(s.file("go"), "")?;
    ensure_eq!(restore.wait()?.code(), Some(7));
    s.c.nothing_left()
}

fn its_streams_are_those_of_the_restore() -> Result<()> {
    needs!(root, criu);
    let s = Saved::new("i=0; while :; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.05; done")?;
    let mut run = s.c.command(&["run", "--bundle", "%", "@"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(run.stdout.take().context("a pipe")?).lines();
    ensure_eq!(lines.next().context("a line")??, "line 1");
    s.save(&[])?;
    drop(lines);
    let run = run.wait_with_output()?;
    // Killed by CRIU.
    ensure!(run.status.code() == Some(137), "{run:?}");
    let mut restore = s.returning(&[])?;
    let mut restore = restore.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    for (stream, word) in [
        (
            Box::new(restore.stdout.take().context("a pipe")?) as Box<dyn std::io::Read>,
            "line ",
        ),
        (Box::new(restore.stderr.take().context("a pipe")?), "error "),
    ] {
        let line = BufReader::new(stream).lines().next().context("a line")??;
        let number: u32 = line.strip_prefix(word).with_context(|| line.clone())?.parse()?;
        ensure!(number > 1, "it began anew");
    }
    s.c.call(&["kill", "@", "KILL"])?.ok()?;
    restore.wait()?;
    s.c.nothing_left()
}

fn a_redirected_stream_is_its_own_again() -> Result<()> {
    needs!(root, criu);
    // Of its own stdout only the shell's copy is left while the loop runs.
    let s = Saved::new(
        "i=0; while ! test -e /go; do i=$((i+1)); echo $i; sleep 0.05; done > /inside; echo done",
    )?;
    let mut run = s.c.command(&["run", "--bundle", "%", "@"]);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    until("it counts", || {
        Ok(fs::read(s.file("inside")).is_ok_and(|said| !said.is_empty()))
    })?;
    s.save(&[])?;
    let run = run.wait_with_output()?;
    ensure!(run.status.code() == Some(137), "{run:?}");
    let mut restore = s.returning(&[])?;
    let restore = restore.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    fs::write(s.file("go"), "")?;
    let restored = restore.wait_with_output()?;
    ensure!(restored.status.success(), "{restored:?}");
    ensure_eq!(String::from_utf8_lossy(&restored.stdout), "done\n");
    s.c.nothing_left()
}

fn a_paused_one_is_saved() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(COUNT)?;
    let settings = harness::tempdir().join("settings");
    fs::write(&settings, "log-file named.log\n")?;
    s.c.set("/annotations", json!({"org.criu.config": settings}))?;
    s.c.up()?;
    s.counts()?;
    s.c.call(&["pause", "@"])?.ok()?;
    s.save(&["--leave-running"])?;
    ensure_eq!(s.c.status()?, "paused");
    ensure!(s.images.join("named.log").exists(), "not by its own settings");
    s.c.call(&["resume", "@"])?.ok()?;
    s.counts()?;
    s.end()
}

fn limits_hold_again() -> Result<()> {
    needs!(root, criu, cgroup2);
    let mut s = Saved::new(COUNT)?;
    s.c.set("/linux/resources/memory", json!({"limit": 268_435_456}))?
        .set("/linux/resources/pids", json!({"limit": 77}))?;
    s.c.up()?;
    s.counts()?;
    // A checkpoint has no limits of cgroup v2: those of the config hold, in any mode.
    s.save(&["--manage-cgroups-mode", "full"])?;
    s.c.set("/linux/resources/pids", json!({"limit": 66}))?;
    let strict = to_the_end(s.returning(&["--detach", "--manage-cgroups-mode", "strict"])?)?;
    let refused = strict.fault()?;
    ensure!(refused.contains("existing cgroups"), "{refused}");
    s.c.nothing_left()?;
    let before = s.count()?;
    s.bring_back(&["--manage-cgroups-mode", "full"])?;
    s.counts()?;
    ensure!(s.count()? > before, "it began anew");
    let limit = |file: &str| s.c.exec(&["@", "cat", &format!("/sys/fs/cgroup/{file}")])?.ok();
    ensure_eq!(limit("memory.max")?, "268435456\n");
    ensure_eq!(limit("pids.max")?, "66\n");
    // The device rules are in force: this container may use none of its own making.
    let ran = s.c.exec(&["@", "sh", "-c", "cat /proc/self/cgroup"])?.ok()?;
    ensure_eq!(ran, "0::/\n");
    s.end()
}

fn a_user_namespace_comes_back() -> Result<()> {
    needs!(root, criu, userns);
    let mut s = Saved::new(COUNT)?;
    s.c.with_user_namespace()?;
    chown(s.c.bundle.rootfs(), Some(100_000), Some(100_000))?;
    s.c.up()?;
    s.counts()?;
    s.save(&[])?;
    s.c.nothing_left()?;
    let before = s.count()?;
    // Its standard streams are files of the host's root here, which are not given away by themselves.
    let refused = s.bring_back(&[]).err().context("took a file of the host's")?;
    ensure!(refused.to_string().contains("Permission denied"), "{refused}");
    s.c.nothing_left()?;
    for file in [&s.c.files.0, &s.c.files.1] {
        ensure_eq!(fs::metadata(file)?.uid(), 0);
        chown(file, Some(100_000), None)?;
    }
    s.bring_back(&[])?;
    s.counts()?;
    ensure!(s.count()? > before, "it began anew");
    ensure_eq!(s.c.exec(&["@", "id", "-u"])?.ok()?, "0\n");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", s.c.pid()?))?;
    ensure_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    ensure!(
        s.c.exec(&["@", "sh", "-c", "echo > /dev/null && cat /dev/zero | head -c 1"])?
            .ok()?
            == "\0",
        "no devices"
    );
    s.end()
}

fn hooks_run_again() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(COUNT)?;
    let log = harness::tempdir().join("log");
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ] {
        let script = format!(
            "grep -o '\"status\":\"[a-z]*\"' | sed s/^/{kind}/ >> {}",
            log.display()
        );
        s.c.set(
            &format!("/hooks/{kind}"),
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]),
        )?;
    }
    s.c.up()?;
    s.counts()?;
    fs::remove_file(&log)?;
    s.save(&[])?;
    ensure_eq!(fs::read_to_string(&log)?, "poststop\"status\":\"stopped\"\n");
    fs::remove_file(&log)?;
    s.bring_back(&[])?;
    s.end()?;
    let ran = fs::read_to_string(&log)?
        .replace("\"status\":", " ")
        .replace('"', "");
    ensure_eq!(
        ran,
        "prestart creating\ncreateRuntime creating\npoststop stopped\n"
    );
    Ok(())
}

fn file_locks_are_held_again() -> Result<()> {
    needs!(root, criu, program: flock);
    // busybox has no flock: the host's, with its libraries.
    let mut s = Saved::new(&format!("exec /host/bin/flock /lock sh -c '{COUNT}'"))?;
    for (from, to) in [("/usr", "/host"), ("/usr/lib", "/lib"), ("/usr/lib64", "/lib64")] {
        s.c.push(
            "/mounts",
            json!({"source": from, "destination": to, "type": "bind", "options": ["bind", "ro"]}),
        )?;
    }
    s.c.up()?;
    s.counts()?;
    let refused = s.try_save(&[])?.fault()?;
    ensure!(
        refused.contains("lock") && refused.contains("dump.log"),
        "{refused}"
    );
    s.counts()?;
    s.there_and_back(&["--file-locks"], &["--file-locks"])?;
    let taken = s.c.exec(&["@", "/host/bin/flock", "-n", "/lock", "true"])?;
    ensure_eq!(taken.code(), 1);
    s.end()
}

fn a_second_time() -> Result<()> {
    needs!(root, criu);
    let mut s = Saved::new(COUNT)?;
    s.c.up()?;
    s.counts()?;
    s.there_and_back(&[], &[])?;
    s.images = harness::tempdir().join("again");
    s.there_and_back(&[], &[])?;
    s.end()
}

fn a_scope_is_made_again_on_systemd() -> Result<()> {
    needs!(root, ours, systemd, cgroup2, criu);
    let mut s = Saved::new(COUNT)?;
    let path = format!("system.slice:condo-test:{}", s.c.id);
    s.c.set("/linux/cgroupsPath", json!(path))?
        .set("/linux/resources/pids", json!({"limit": 77}))?;
    let scope = Path::new("/sys/fs/cgroup/system.slice").join(format!("condo-test-{}.scope", s.c.id));
    let create = ["--systemd-cgroup", "create", "--bundle", "%", "@"];
    s.c.create_with(s.c.command(&create))?;
    s.c.start()?;
    s.counts()?;
    // Nobody repeats the flag for a container that is there.
    s.save(&[])?;
    until("the scope goes", || Ok(!scope.exists()))?;
    let before = s.count()?;
    let images = s.images.to_str().context("a path")?;
    let restore = [
        "restore",
        "--bundle",
        "%",
        "--image-path",
        images,
        "--detach",
        "@",
    ];
    s.c.create_with(s.c.command(&[&["--systemd-cgroup"], &restore[..]].concat()))?;
    s.counts()?;
    ensure!(s.count()? > before, "it began anew");
    let members = fs::read_to_string(scope.join("cgroup.procs"))?;
    ensure!(
        members
            .lines()
            .any(|pid| s.c.pid().is_ok_and(|init| pid == init.to_string())),
        "{members}"
    );
    ensure_eq!(fs::read_to_string(scope.join("pids.max"))?.trim(), "77");
    s.c.call(&["kill", "@", "KILL"])?.ok()?;
    s.c.stopped()?;
    s.c.call(&["delete", "@"])?.ok()?;
    until("the scope goes", || Ok(!scope.exists()))
}
