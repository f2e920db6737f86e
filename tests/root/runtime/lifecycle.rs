//! From create to delete, and what each command says at the wrong time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Container, Ran, ensure_eq, lives, until};
use crate::harness;

tests![
    create_start_kill_delete in guest,
    the_exit_status_is_the_programs,
    a_signal_is_128_and_its_number,
    the_pid_file_has_digits_only,
    the_wrong_time_is_said_as_callers_match_it,
    a_taken_id_and_bad_ids_are_refused,
    deleting_what_is_missing,
    a_created_container_can_be_deleted,
    paused_means_stopped_in_place in guest,
    a_paused_container_can_be_killed in guest,
    kill_reaches_all_processes in guest,
    killing_init_leaves_no_process in guest,
    kill_of_all_trusts_no_number,
    signals_have_names_and_numbers,
    list_shows_all,
    state_is_of_the_spec,
    spec_and_run_as_is,
    the_version_has_three_lines,
    the_log_has_one_object_on_failure,
    success_is_silent,
    debug_tells_each_step,
    run_detached_goes_on,
    what_the_kernel_will_not_execute_is_told_by_the_container,
    signals_are_passed_on,
    exec_runs_a_further_process in guest,
    exec_takes_a_process_file,
    exec_detached_writes_its_pid,
    exec_fails_with_255_and_leaves_no_pid_file,
    exec_into_a_created_container,
    exec_into_a_cgroup_frozen_from_inside_can_be_ended in guest,
    exec_into_a_paused_container_can_be_ended in guest,
    containers_are_independent,
];

fn create_start_kill_delete() -> Result<()> {
    let c = Container::sh("echo started; exec sleep 100000")?;
    c.create()?;
    ensure_eq!(c.status()?, "created");
    ensure_eq!(c.printed(), "");
    let pid = c.pid()?;
    ensure!(lives(pid));
    c.start()?;
    until("it prints", || Ok(c.printed() == "started\n"))?;
    ensure_eq!(c.status()?, "running");
    ensure_eq!(c.pid()?, pid);
    c.call(&["kill", "@", "KILL"])?.ok()?;
    c.stopped()?;
    c.call(&["delete", "@"])?.ok()?;
    c.nothing_left()?;
    let fault = c.call(&["state", "@"])?.fault()?;
    ensure!(fault.contains("does not exist"), "{fault}");
    Ok(())
}

fn the_exit_status_is_the_programs() -> Result<()> {
    for status in [0, 7, 255] {
        let c = Container::sh(&format!("echo out; echo err >&2; exit {status}"))?;
        let ran = c.run()?;
        ensure_eq!((ran.code(), &*ran.out, &*ran.err), (status, "out\n", "err\n"));
        c.nothing_left()?;
    }
    Ok(())
}

fn a_signal_is_128_and_its_number() -> Result<()> {
    // PID 1 is immune to its own signals, so that a child of it ends by one.
    let c = Container::idle()?;
    c.up()?;
    let ran = c.exec(&["@", "sh", "-c", "kill -TERM $$"])?;
    ensure_eq!(ran.code(), 128 + 15);
    let ran = c.exec(&["@", "sh", "-c", "exit 9"])?;
    ensure_eq!(ran.code(), 9);
    Ok(())
}

fn the_pid_file_has_digits_only() -> Result<()> {
    let c = Container::idle()?;
    let file = harness::tempdir().join("pid");
    let file = file.to_str().unwrap_or_default();
    c.create_with(c.command(&["create", "--bundle", "%", "--pid-file", file, "@"]))?;
    ensure_eq!(fs::read_to_string(file)?, c.pid()?.to_string());
    Ok(())
}

fn the_wrong_time_is_said_as_callers_match_it() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let fault = |args: &[&str], word: &str| -> Result<()> {
        let fault = c.call(args)?.fault()?;
        ensure!(fault.contains(word), "{args:?}: {fault}");
        Ok(())
    };
    fault(&["start", "@"], "cannot start an already running container")?;
    fault(&["delete", "@"], "that is not stopped: running")?;
    fault(&["resume", "@"], "container not paused")?;
    c.call(&["kill", "@", "KILL"])?.ok()?;
    c.stopped()?;
    fault(&["start", "@"], "cannot start a container that has stopped")?;
    fault(&["kill", "@", "TERM"], "container not running")?;
    fault(&["exec", "@", "true"], "cannot exec in a stopped container")?;
    fault(&["pause", "@"], "container not running")?;
    // Rule 10 of the callers: succeed, or say that it does not run.
    let all = c.call(&["kill", "--all", "@", "KILL"])?;
    ensure!(all.status.success() || all.err.contains("container not running"));
    c.call(&["delete", "@"])?.ok()?;
    fault(&["delete", "@"], "does not exist")?;
    fault(&["kill", "@"], "does not exist")
}

fn a_taken_id_and_bad_ids_are_refused() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    let pid = c.pid()?;
    let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
    ensure!(fault.contains("exist"), "{fault}");
    ensure!(lives(pid) && c.status()? == "created");
    for bad in ["", ".", "..", "a/b", "../x", "a b", "ä"] {
        let fault = c.call(&["create", "--bundle", "%", bad])?.fault()?;
        let known = harness::is_ours() && fault.contains("invalid id format");
        ensure!(known || !harness::is_ours(), "{bad}: {fault}");
    }
    ensure_eq!(fs::read_dir(&c.root)?.count(), 1);
    Ok(())
}

fn deleting_what_is_missing() -> Result<()> {
    let c = Container::idle()?;
    c.call(&["delete", "--force", "@"])?.ok()?;
    let fault = c.call(&["delete", "@"])?.fault()?;
    ensure!(fault.contains("does not exist"), "{fault}");
    Ok(())
}

fn a_created_container_can_be_deleted() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    let pid = c.pid()?;
    c.call(&["delete", "@"])?.ok()?;
    ensure!(!lives(pid));
    c.nothing_left()
}

/// A container whose program counts in a file.
fn counter() -> Result<Container> {
    let c = Container::sh("while echo -n x >> /count; do sleep 0.01; done")?;
    c.up()?;
    until("it counts", || Ok(count(&c) > 0))?;
    Ok(c)
}

fn count(c: &Container) -> u64 {
    fs::metadata(c.bundle.rootfs().join("count")).map_or(0, |m| m.len())
}

fn paused_means_stopped_in_place() -> Result<()> {
    let c = counter()?;
    c.call(&["pause", "@"])?.ok()?;
    ensure_eq!(c.status()?, "paused");
    let before = count(&c);
    std::thread::sleep(std::time::Duration::from_millis(200));
    ensure_eq!(count(&c), before);
    let fault = c.exec(&["@", "true"])?.fault()?;
    ensure!(fault.contains("cannot exec in a paused container"), "{fault}");
    c.call(&["resume", "@"])?.ok()?;
    ensure_eq!(c.status()?, "running");
    until("it goes on", || Ok(count(&c) > before))
}

fn a_paused_container_can_be_killed() -> Result<()> {
    for args in [&["kill", "@", "KILL"][..], &["delete", "--force", "@"]] {
        let c = counter()?;
        let pid = c.pid()?;
        c.call(&["pause", "@"])?.ok()?;
        c.call(args)?.ok()?;
        until("it dies", || Ok(!lives(pid)))?;
        c.delete()?;
        c.nothing_left()?;
    }
    Ok(())
}

fn kill_reaches_all_processes() -> Result<()> {
    let mut c = Container::sh(
        "trap 'echo init' USR1; sh -c 'trap \"echo child; exit\" USR1; echo ready; while :; do sleep 0.01; done' & while :; do sleep 0.01; done",
    )?;
    // Without a pid namespace of its own it needs the cgroup to find them.
    c.namespace("pid", None)?;
    c.up()?;
    until("both run", || Ok(c.printed() == "ready\n"))?;
    c.call(&["kill", "--all", "@", "USR1"])?.ok()?;
    until("both hear of it", || {
        let said = c.printed();
        Ok(said.contains("init") && said.contains("child"))
    })?;
    c.call(&["kill", "--all", "@", "KILL"])?.ok()?;
    c.stopped()
}

/// A number read from the cgroup may be another process's by the time of the signal, so `kill(2)` has no business here.
fn kill_of_all_trusts_no_number() -> Result<()> {
    known_difference!("runc", "signals by number");
    let c = Container::sh("trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done")?;
    c.up()?;
    until("it is ready", || Ok(c.printed() == "ready\n"))?;
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["kill", "tgkill", "tkill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
    let filter = condo::seccomp::compile(&serde_json::from_value(profile)?)?;
    // The filter is that thread's and its children's alone.
    let killed = std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<Ran> {
            filter.install()?;
            c.call(&["kill", "--all", "@", "USR1"])
        });
        other.join().expect("a thread")
    })?;
    killed.ok()?;
    until("it hears of it", || Ok(c.printed().contains("heard")))
}

fn signals_have_names_and_numbers() -> Result<()> {
    let c = Container::sh(
        "for s in HUP INT TERM USR1 USR2; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.01; done",
    )?;
    c.up()?;
    until("it is ready", || Ok(c.printed() == "ready\n"))?;
    for (signal, said) in [
        ("SIGHUP", "HUP"),
        ("INT", "INT"),
        ("15", "TERM"),
        ("10", "USR1"),
        ("usr2", "USR2"),
    ] {
        c.call(&["kill", "@", signal])?.ok()?;
        until(said, || Ok(c.printed().lines().any(|l| l == said)))?;
    }
    let fault = c.call(&["kill", "@", "NOSUCH"])?.fault()?;
    ensure!(fault.contains("NOSUCH"), "{fault}");
    Ok(())
}

fn list_shows_all() -> Result<()> {
    let c = Container::idle()?;
    ensure_eq!(c.call(&["list", "--format", "json"])?.ok()?.trim(), "null");
    c.create()?;
    let listed: Value = serde_json::from_str(&c.call(&["list", "--format", "json"])?.ok()?)?;
    let first = &listed[0];
    ensure_eq!(
        (first["id"].as_str(), first["status"].as_str()),
        (Some(&*c.id), Some("created"))
    );
    ensure_eq!(first["pid"].as_i64(), Some(i64::from(c.pid()?)));
    ensure_eq!(c.call(&["list", "--quiet"])?.ok()?, format!("{}\n", c.id));
    let table = c.call(&["list"])?.ok()?;
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    ensure_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    ensure_eq!((rows[1][0], rows[1][2]), (&*c.id, "created"));
    Ok(())
}

fn state_is_of_the_spec() -> Result<()> {
    let mut c = Container::idle()?;
    c.set("/annotations", serde_json::json!({"org.example.key": "value"}))?;
    c.create()?;
    let state = c.state()?;
    ensure_eq!(state["ociVersion"].as_str().map(|v| &v[..2]), Some("1."));
    ensure_eq!(state["id"].as_str(), Some(&*c.id));
    ensure_eq!(state["bundle"].as_str(), c.bundle.dir.to_str());
    ensure_eq!(state["rootfs"].as_str(), c.bundle.rootfs().to_str());
    ensure_eq!(state["annotations"]["org.example.key"].as_str(), Some("value"));
    humantime::parse_rfc3339(state["created"].as_str().unwrap_or_default())?;
    Ok(())
}

fn spec_and_run_as_is() -> Result<()> {
    let mut c = Container::idle()?;
    fs::remove_file(c.bundle.dir.join("config.json"))?;
    let mut spec = c.command(&["spec"]);
    super::to_the_end({
        spec.current_dir(&c.bundle.dir);
        spec
    })?
    .ok()?;
    ensure!(c.call(&["spec", "--bundle", "%"])?.fault()?.contains("exists"));
    c.bundle.config = serde_json::from_slice(&fs::read(c.bundle.dir.join("config.json"))?)?;
    let namespaces = c.bundle.config["linux"]["namespaces"].to_string();
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    ensure_eq!(namespaces.contains("cgroup"), unified);
    // It has a terminal and a relative cgroup, which tests do without.
    let cgroup = format!("/{}", harness::unique());
    c.set("/process/terminal", false.into())?
        .set(
            "/process/args",
            serde_json::json!(["sh", "-c", "pwd; touch /x || echo read-only"]),
        )?
        .set("/linux/cgroupsPath", cgroup.into())?;
    let ran = c.run()?;
    ensure_eq!(ran.out, "/\nread-only\n");
    Ok(())
}

fn the_version_has_three_lines() -> Result<()> {
    let c = Container::idle()?;
    let version = c.call(&["--version"])?.ok()?;
    let lines: Vec<&str> = version.lines().collect();
    ensure!(
        lines[0].contains("-runtime version ") || lines[0].starts_with("runc version "),
        "{version}"
    );
    ensure!(version.lines().any(|l| l.starts_with("commit: ")), "{version}");
    ensure!(version.lines().any(|l| l.starts_with("spec: ")), "{version}");
    Ok(())
}

fn the_log_has_one_object_on_failure() -> Result<()> {
    known_difference!("runc", "also logs what it recovers from");
    let c = Container::new(&["/no/such/program"])?;
    let log = harness::tempdir().join("log.json");
    let path = log.to_str().unwrap_or_default();
    let ran = c.call(&[
        "--log",
        path,
        "--log-format",
        "json",
        "create",
        "--bundle",
        "%",
        "@",
    ])?;
    ensure_eq!(ran.code(), 1);
    let entry: Value = serde_json::from_slice(&fs::read(&log)?)?;
    ensure_eq!(entry["level"].as_str(), Some("error"));
    let message = entry["msg"].as_str().unwrap_or_default();
    ensure!(message.contains("no such file or directory"), "{message}");
    humantime::parse_rfc3339(entry["time"].as_str().unwrap_or_default())?;
    c.nothing_left()
}

fn success_is_silent() -> Result<()> {
    let c = Container::idle()?;
    let log = harness::tempdir().join("log.json");
    let path = log.to_str().unwrap_or_default();
    for command in [
        &["create", "--bundle", "%", "@"][..],
        &["start", "@"],
        &["exec", "@", "true"],
        &["pause", "@"],
        &["resume", "@"],
        &["kill", "@", "KILL"],
    ] {
        let Ran { status, out, err } =
            c.call(&[&["--log", path, "--log-format", "json"], command].concat())?;
        ensure!(
            status.success() && out.is_empty() && err.is_empty(),
            "{command:?}: {out}{err}"
        );
    }
    ensure_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
    Ok(())
}

fn debug_tells_each_step() -> Result<()> {
    let mut c = Container::new(&["echo", "said"])?;
    c.push(
        "/mounts",
        serde_json::json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
    )?;
    let log = harness::tempdir().join("log");
    let path = log.to_str().context("a path")?;
    let run = ["run", "--bundle", "%", "@"];
    let text = c.call(&[&["--debug"], &run[..]].concat())?;
    ensure!(text.err.contains(" level=debug msg="), "{text:?}");
    ensure_eq!(text.ok()?, "said\n");
    let ran = c.call(&[&["--debug", "--log", path, "--log-format", "json"], &run[..]].concat())?;
    ensure_eq!((ran.out.as_str(), ran.err.as_str()), ("said\n", ""));
    let mut messages = String::new();
    for line in fs::read_to_string(&log)?.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure_eq!(entry["level"], "debug");
        messages.push_str(entry["msg"].as_str().context("no message")?);
        messages.push('\n');
    }
    if harness::is_ours() {
        let steps = [
            "cgroup `",
            "init is process ",
            "`born`",
            "mount `/tmp`",
            "`ready`",
            "told to start",
            "becomes [\"echo\"",
            "cleared",
        ];
        super::says_all(&messages, &steps)?;
    }
    Ok(())
}

fn run_detached_goes_on() -> Result<()> {
    let c = Container::idle()?;
    c.call(&["run", "--detach", "--bundle", "%", "@"])?.ok()?;
    ensure_eq!(c.status()?, "running");
    let missing = Container::new(&["no-such-program"])?;
    let fault = missing
        .call(&["run", "--detach", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(fault.contains("executable file not found"), "{fault}");
    missing.nothing_left()
}

fn what_the_kernel_will_not_execute_is_told_by_the_container() -> Result<()> {
    known_difference!("runc", "older than 1.2 has `run` fail");
    let c = Container::new(&["/bad"])?;
    let bad = c.bundle.rootfs().join("bad");
    fs::write(&bad, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755))?;
    let ran = c.run()?;
    ensure!(ran.code() == 255, "{ran:?}");
    ensure_eq!(ran.err, "exec /bad: no such file or directory\n");
    c.call(&["run", "--detach", "--bundle", "%", "@"])?.ok()?;
    until("it has ended", || Ok(c.status()? == "stopped"))?;
    Ok(())
}

fn signals_are_passed_on() -> Result<()> {
    let c = Container::sh("trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.01; done")?;
    let mut command = c.command(&["run", "--bundle", "%", "@"]);
    let (out, err) = (&c.files.0, &c.files.1);
    let mut child = command
        .stdout(fs::File::create(out)?)
        .stderr(fs::File::create(err)?)
        .spawn()?;
    until("it is ready", || Ok(c.printed() == "ready\n"))?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().cast_signed()),
        nix::sys::signal::SIGTERM,
    )?;
    ensure_eq!(child.wait()?.code(), Some(3));
    ensure_eq!(c.printed(), "ready\nheard\n");
    c.nothing_left()
}

fn exec_runs_a_further_process() -> Result<()> {
    let mut c = Container::idle()?;
    c.set(
        "/process/user",
        serde_json::json!({"uid": 5, "gid": 6, "additionalGids": [7]}),
    )?;
    c.up()?;
    let script = "id -u; id -g; id -G; pwd; echo $HELLO; echo $TERM; exit 4";
    let ran = c.exec(&["@", "sh", "-c", script])?;
    ensure_eq!((ran.code(), &*ran.out), (4, "5\n6\n6 7\n/\n\nxterm\n"));
    let ran = c.exec(&[
        "--user",
        "1000:8",
        "--env",
        "HELLO=you",
        "--env",
        "TERM=dumb",
        "--cwd",
        "/tmp",
        "@",
        "sh",
        "-c",
        script,
    ])?;
    ensure_eq!(ran.out, "1000\n8\n8 7\n/tmp\nyou\ndumb\n");
    // Options after the id are the program's.
    ensure_eq!(
        c.exec(&["-u", "9", "@", "echo", "-e", "-u", "x"])?.ok()?,
        "-u x\n"
    );
    let fault = c.exec(&["--cwd", "/no/such/dir", "@", "true"])?.fault()?;
    ensure!(fault.contains("no such file or directory"), "{fault}");
    Ok(())
}

fn exec_takes_a_process_file() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let mut process = c.bundle.config["process"].clone();
    process["args"] = serde_json::json!(["sh", "-c", "echo $A; pwd; exit 5"]);
    process["env"] = serde_json::json!(["A=b", "PATH=/bin"]);
    process["cwd"] = "/tmp".into();
    let file = harness::tempdir().join("process.json");
    fs::write(&file, process.to_string())?;
    let ran = c.exec(&["--process", file.to_str().unwrap_or_default(), "@"])?;
    ensure_eq!((ran.code(), &*ran.out), (5, "b\n/tmp\n"));
    fs::write(&file, "{")?;
    let fault = c
        .exec(&["--process", file.to_str().unwrap_or_default(), "@"])?
        .fault()?;
    ensure!(
        harness::is_ours() && fault.contains("process.json") || !harness::is_ours(),
        "{fault}"
    );
    Ok(())
}

fn exec_detached_writes_its_pid() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let pid = c.exec_detached(&[], &["sleep", "100000"])?;
    ensure!(lives(pid) && pid != c.pid()?);
    ensure_eq!(
        fs::read_link(format!("/proc/{pid}/ns/mnt"))?,
        fs::read_link(format!("/proc/{}/ns/mnt", c.pid()?))?
    );
    ensure_eq!(
        fs::read_to_string(format!("/proc/{pid}/cgroup"))?,
        fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?
    );
    // It is the caller's child, who is a subreaper.
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(
        status.contains(&format!("PPid:\t{}\n", std::process::id())),
        "{status}"
    );
    super::end(pid)
}

fn exec_fails_with_255_and_leaves_no_pid_file() -> Result<()> {
    let c = Container::idle()?;
    fs::write(c.bundle.rootfs().join("bad"), "#!/no/such/interpreter\n")?;
    fs::write(c.bundle.rootfs().join("plain"), "not a program")?;
    harness::run(
        std::process::Command::new("chmod")
            .arg("755")
            .arg(c.bundle.rootfs().join("bad")),
    )?;
    c.up()?;
    let file = harness::tempdir().join("pid");
    for (program, text) in [
        ("no-such-program", "executable file not found"),
        ("/no/such/program", "no such file or directory"),
        ("/bin/sh/x", "not a directory"),
        ("/plain", "permission denied"),
        ("/tmp", "permission denied"),
        ("/bad", "no such file or directory"),
    ] {
        let ran = c.exec(&["--pid-file", file.to_str().unwrap_or_default(), "@", program])?;
        let runc = !harness::is_ours();
        ensure!(ran.code() == 255 || runc && ran.code() == 1, "{program}: {ran:?}");
        // runc says "is a directory".
        ensure!(
            ran.err.contains(text) || runc && program == "/tmp",
            "{program}: {}",
            ran.err
        );
        ensure!(!file.exists() || runc, "{program}");
    }
    Ok(())
}

fn exec_into_a_created_container() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    ensure_eq!(c.exec(&["@", "hostname"])?.ok()?, "test\n");
    ensure_eq!(c.status()?, "created");
    c.start()
}

fn containers_are_independent() -> Result<()> {
    let mut all: Vec<Container> = (0..3).map(|_| Container::idle()).collect::<Result<_>>()?;
    let root = all[0].root.clone();
    for c in &mut all {
        c.root.clone_from(&root);
        c.up()?;
    }
    all[0].delete()?;
    ensure!(all[1].status()? == "running" && all[2].status()? == "running");
    Ok(())
}

/// Processes of a cgroup that a test looks at, in the hierarchy that makes processes in it.
fn members(cgroup: &Path) -> Result<usize> {
    Ok(fs::read_to_string(cgroup.join("cgroup.procs"))?.lines().count())
}

/// The cgroup2 directory of a container.
fn cgroup2_of(c: &Container) -> Result<PathBuf> {
    let mut all = c.cgroups().into_iter();
    let found = all.find(|dir| dir.join("cgroup.freeze").exists());
    found.context("no cgroup2")
}

/// Starts an `exec` that cannot get on, and ends it once the process it makes is in the cgroup; nothing of it may be left.
fn end_stuck_exec(c: &Container, cgroup: &Path, args: &[&str], signal: Signal) -> Result<()> {
    let before = members(cgroup)?;
    let mut child = c
        .command(&[&["exec"], args, &["@", "true"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    until("it is in", || Ok(members(cgroup)? > before))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal)?;
    let ended = until("it ends", || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        child.kill()?;
    }
    ended?;
    ensure!(!child.wait()?.success());
    ensure_eq!(members(cgroup)?, before);
    Ok(())
}

fn exec_into_a_cgroup_frozen_from_inside_can_be_ended() -> Result<()> {
    known_difference!("runc", "waits");
    let c = Container::idle()?;
    c.up()?;
    let inner = cgroup2_of(&c)?.join("inner");
    fs::create_dir(&inner)?;
    // What a process inside does with a cgroup that is delegated to it.
    fs::write(inner.join("cgroup.procs"), c.pid()?.to_string())?;
    fs::write(inner.join("cgroup.freeze"), "1")?;
    let hybrid = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let there = if hybrid { "unified:inner" } else { "inner" };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        end_stuck_exec(&c, &inner, &["--cgroup", there], signal)?;
    }
    end_stuck_exec(&c, &inner, &["--cgroup", there, "--detach"], Signal::SIGTERM)?;
    // Without a word the process is in the container's own cgroup, wherever init is.
    ensure_eq!(c.exec(&["@", "echo", "beside"])?.ok()?, "beside\n");
    fs::write(inner.join("cgroup.freeze"), "0")?;
    ensure_eq!(c.exec(&["@", "echo", "again"])?.ok()?, "again\n");
    c.delete()?;
    c.nothing_left()
}

fn exec_into_a_paused_container_can_be_ended() -> Result<()> {
    known_difference!("runc", "waits");
    let c = Container::idle()?;
    c.up()?;
    c.call(&["pause", "@"])?.ok()?;
    end_stuck_exec(&c, &cgroup2_of(&c)?, &["--ignore-paused"], Signal::SIGTERM)?;
    ensure_eq!(c.status()?, "paused");
    c.call(&["resume", "@"])?.ok()?;
    ensure_eq!(c.exec(&["@", "echo", "again"])?.ok()?, "again\n");
    Ok(())
}

/// Only in a pid namespace of its own does the kernel end the others with init.
fn killing_init_leaves_no_process() -> Result<()> {
    known_difference!("runc", "since 1.2");
    let holder = Container::idle()?;
    holder.up()?;
    let pods = PathBuf::from(format!("/proc/{}/ns/pid", holder.pid()?));
    for path in [None, Some(pods.as_path())] {
        let mut c = Container::sh("setsid sleep 100000 & echo started; exec sleep 100000")?;
        c.namespace("pid", path)?;
        c.up()?;
        let members = || {
            let mut pids = c.members();
            pids.sort_unstable();
            pids.dedup();
            pids
        };
        until("both run", || Ok(members().len() == 2))?;
        let pids = members();
        c.call(&["kill", "@", "KILL"])?.ok()?;
        until("both have ended", || Ok(!pids.iter().any(|pid| lives(*pid))))?;
        c.cleared()?;
        // Until they are waited for, the pid namespace that they joined does not end.
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s != WaitStatus::StillAlive) {}
    }
    holder.cleared()
}
