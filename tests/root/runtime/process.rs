//! What a process begins with: its environment, its directory, its program, its limits and processors.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Container, ensure_eq, to_the_end};
use crate::harness;

tests![
    home_is_the_images,
    a_passwd_that_is_no_file_holds_nobody,
    of_several_values_the_last_is_there_once,
    a_program_is_looked_for_as_its_user,
    a_directory_is_made_where_the_root_is_readonly,
    a_directory_that_only_the_user_may_enter,
    the_callers_processors_bind_nobody,
    limits_are_the_programs,
    a_callers_few_files_are_no_hindrance,
    arguments_and_variables_are_bytes,
];

const PATH: &str = "PATH=/bin";

fn home_is_the_images() -> Result<()> {
    let mut c = Container::sh("echo $HOME")?;
    fs::write(
        c.bundle.rootfs().join("etc/passwd"),
        "root:x:0:0:root:/its/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\nnone:x:1001:1::",
    )?;
    for (uid, env, home) in [
        (0, json!([PATH]), "/its/root"),
        (0, json!([PATH, "HOME="]), "/its/root"),
        (0, json!([PATH, "HOME=/given"]), "/given"),
        (1000, json!([PATH]), "/home/guest"),
        (1001, json!([PATH]), ""),
        (1002, json!([PATH]), "/"),
    ] {
        c.set("/process/user", json!({"uid": uid, "gid": 0}))?
            .set("/process/env", env.clone())?;
        ensure_eq!((uid, &env, c.run()?.ok()?), (uid, &env, format!("{home}\n")));
    }
    c.set("/process/user", json!({"uid": 0, "gid": 0}))?
        .set("/process/env", json!([PATH]))?
        .set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    let show = ["@", "sh", "-c", "echo $HOME"];
    for (options, home) in [
        (&[][..], "/its/root"),
        (&["--user", "1000"], "/home/guest"),
        (&["--env", "HOME=/given"], "/given"),
        (&["--env", "HOME="], "/its/root"),
    ] {
        ensure_eq!(c.exec(&[options, &show].concat())?.ok()?, format!("{home}\n"));
    }
    Ok(())
}

/// The file is the image's: reading it must not wait for a writer, nor lead out.
fn a_passwd_that_is_no_file_holds_nobody() -> Result<()> {
    known_difference!("runc", "waits for a writer");
    let mut c = Container::sh("echo $HOME")?;
    c.set("/process/env", json!([PATH]))?;
    let passwd = c.bundle.rootfs().join("etc/passwd");
    fs::remove_file(&passwd)?;
    harness::run(Command::new("mkfifo").arg(&passwd))?;
    ensure_eq!(c.run()?.ok()?, "/\n");
    Ok(())
}

fn of_several_values_the_last_is_there_once() -> Result<()> {
    let mut c = Container::new(&["env"])?;
    c.set("/process/env", json!([PATH, "HOME=/", "A=1", "B=b", "A=2=3"]))?;
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    ensure_eq!(sorted(c.run()?.ok()?), "A=2=3 B=b HOME=/ PATH=/bin");
    c.set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    let seen = c
        .exec(&["-e", "A=4", "-e", "C=c", "-e", "C=d", "@", "env"])?
        .ok()?;
    ensure_eq!(sorted(seen), "A=4 B=b C=d HOME=/ PATH=/bin");
    Ok(())
}

/// Root may execute more than the user: what the user may not is an error of `create`, or another one of its name is found.
fn a_program_is_looked_for_as_its_user() -> Result<()> {
    known_difference!("runc", "looks at the mode alone before 1.1.8");
    let mut c = Container::new(&["tool"])?;
    let root = c.bundle.rootfs();
    for (dir, mode) in [("first", 0o700), ("second", 0o755)] {
        fs::create_dir(root.join(dir))?;
        fs::write(root.join(dir).join("tool"), format!("#!/bin/sh\necho {dir}\n"))?;
        fs::set_permissions(root.join(dir).join("tool"), fs::Permissions::from_mode(mode))?;
    }
    c.set("/process/user", json!({"uid": 1000, "gid": 1000}))?
        .set("/process/capabilities", json!({}))?
        .set("/process/env", json!(["PATH=/first:/second"]))?;
    ensure_eq!(c.run()?.ok()?, "second\n");
    // A group that the user has besides its own opens it.
    std::os::unix::fs::chown(root.join("first/tool"), None, Some(1007))?;
    fs::set_permissions(root.join("first/tool"), fs::Permissions::from_mode(0o050))?;
    c.set("/process/user/additionalGids", json!([1007]))?;
    ensure_eq!(c.run()?.ok()?, "first\n");
    fs::set_permissions(root.join("first/tool"), fs::Permissions::from_mode(0o700))?;
    c.set("/process/args", json!(["/first/tool"]))?;
    let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
    ensure!(fault.contains("permission denied"), "{fault}");
    c.nothing_left()?;
    c.set("/process/args", json!(["/bin/sleep", "100000"]))?;
    c.up()?;
    ensure_eq!(c.exec(&["--user", "0", "@", "/first/tool"])?.ok()?, "first\n");
    let fault = c.exec(&["@", "/first/tool"])?.fault()?;
    ensure!(fault.contains("permission denied"), "{fault}");
    Ok(())
}

fn a_directory_is_made_where_the_root_is_readonly() -> Result<()> {
    let mut c = Container::sh("pwd; touch here 2>/dev/null || echo readonly")?;
    c.set("/root/readonly", true.into())?
        .set("/process/cwd", "/not/there/yet".into())?;
    ensure_eq!(c.run()?.ok()?, "/not/there/yet\nreadonly\n");
    Ok(())
}

fn a_directory_that_only_the_user_may_enter() -> Result<()> {
    needs!(userns);
    let mut c = Container::sh("pwd")?;
    // Not even root of the container has anything to say there: its group may not, and its capabilities do not reach so far.
    let dir = harness::tempdir();
    std::os::unix::fs::chown(&dir, Some(101_000), Some(300_000))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    c.push(
        "/mounts",
        json!({"destination": "/own", "type": "bind", "source": dir, "options": ["bind"]}),
    )?;
    fs::create_dir(c.bundle.rootfs().join("own"))?;
    c.with_user_namespace()?
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))?
        .set("/process/capabilities", json!({}))?
        .set("/process/cwd", "/own".into())?;
    ensure_eq!(c.run()?.ok()?, "/own\n");
    Ok(())
}

/// Since Linux 6.2 the choice of `taskset` binds also what moves to another cgroup.
fn the_callers_processors_bind_nobody() -> Result<()> {
    needs!(program:taskset);
    known_difference!("runc", "since 1.2");
    let show = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let mut c = Container::new(&show)?;
    let free = c.run()?.ok()?;
    let confined = |command: Command| -> Result<String> {
        let mut taskset = Command::new("taskset");
        taskset
            .args(["--cpu-list", "0"])
            .arg(command.get_program())
            .args(command.get_args());
        to_the_end(taskset)?.ok()
    };
    ensure_eq!(confined(c.command(&["run", "--bundle", "%", "@"]))?, free);
    c.set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    ensure_eq!(confined(c.command(&[&["exec", "@"], &show[..]].concat()))?, free);
    Ok(())
}

/// A bundle whose tree takes more descriptors to make than `limits_are_the_programs` gives the program.
fn of_many_mounts(script: &str) -> Result<Container> {
    let mut c = Container::sh(script)?;
    let dir = harness::tempdir();
    let mounts: Vec<Value> = (0..40)
        .map(|n| json!({"destination": format!("/tmp/{n}"), "type": "bind", "source": dir, "options": ["bind"]}))
        .collect();
    for mount in mounts {
        c.push("/mounts", mount)?;
    }
    Ok(c)
}

fn limits_are_the_programs() -> Result<()> {
    let mut c = of_many_mounts("ulimit -n; ulimit -f; cat /bound")?;
    let hook = "echo from the hook > \"$ROOT/bound\"; ulimit -n > \"$ROOT/hook\"";
    let root = format!("ROOT={}", c.bundle.rootfs().display());
    // Files that condo and its hooks write are none of the program's.
    c.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "hard": 12, "soft": 11}, {"type": "RLIMIT_FSIZE", "hard": 512, "soft": 512}]),
    )?
    .set(
        "/hooks/createContainer",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", hook], "env": [root, "PATH=/bin:/usr/bin"]}]),
    )?;
    known_difference!("runc", "its hooks inside would have to have another's limits");
    ensure_eq!(c.run()?.ok()?.trim(), "11\n1\nfrom the hook");
    Ok(())
}

fn a_callers_few_files_are_no_hindrance() -> Result<()> {
    known_difference!("runc", "leaves the limit raised, until Go 1.19.9");
    let mut c = of_many_mounts("ulimit -Sn; ulimit -Hn")?;
    let seen = harness::tempdir().join("hook");
    let hook = format!("ulimit -Sn > {}", seen.display());
    c.set("/process/rlimits", json!([]))?.set(
        "/hooks/createRuntime",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", hook]}]),
    )?;
    let with_few = |command: Command| -> Result<String> {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "ulimit -Sn 24; ulimit -Hn 4000; exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        to_the_end(shell)?.ok()
    };
    ensure_eq!(with_few(c.command(&["run", "--bundle", "%", "@"]))?, "24\n4000\n");
    ensure_eq!(fs::read_to_string(seen)?, "24\n");
    // Hooks inside have the program's limits, above which they could not go.
    c.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "hard": 30, "soft": 20}]),
    )?
    .set(
        "/hooks",
        json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "ulimit -Sn > /tmp/hook"]}]}),
    )?
    .set("/process/args", json!(["cat", "/tmp/hook"]))?;
    ensure_eq!(with_few(c.command(&["run", "--bundle", "%", "@"]))?, "20\n");
    c.set("/process/rlimits", json!([]))?.set("/hooks", json!({}))?;
    c.set("/process/args", json!(["sleep", "100000"]))?;
    c.up()?;
    ensure_eq!(
        with_few(c.command(&["exec", "@", "sh", "-c", "ulimit -Sn; ulimit -Hn"]))?,
        "24\n4000\n"
    );
    Ok(())
}

fn arguments_and_variables_are_bytes() -> Result<()> {
    known_difference!("runc", "sends them as JSON, which has no such bytes");
    let c = Container::idle()?;
    c.up()?;
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let variable = OsStr::from_bytes(b"ODD=\xfd");
    let mut command = c.command(&["exec", "--env"]);
    command
        .arg(variable)
        .arg(&c.id)
        .args(["sh", "-c", "echo -n $1$ODD", "sh"])
        .arg(odd);
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure_eq!(output.stdout, b"\xff\xfe\xfd");
    Ok(())
}
