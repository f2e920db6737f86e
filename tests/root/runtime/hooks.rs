//! The six kinds: when, where, with what on their standard input; and what a failing one undoes.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Container, ensure_eq, until};
use crate::harness;

tests![
    six_kinds_in_their_order,
    each_sees_the_state_of_its_moment,
    each_runs_where_the_spec_says,
    environment_and_arguments_are_the_hooks_own,
    a_failing_one_undoes_everything,
    a_failing_start_container_ends_the_container,
    failing_ones_after_the_fact_are_no_failure,
    a_failing_poststart_ends_the_container,
    hooks_may_call_the_runtime,
    one_that_deletes_its_container_fails_create,
    one_does_not_wait_for_who_waits_for_it,
    the_tree_is_at_its_path_for_hooks,
    one_that_hangs_is_ended,
    one_of_another_kind_that_hangs_is_ended: 120,
    a_large_state_does_not_hang_one_that_reads_nothing,
    signals_are_not_blocked_in_them,
    start_container_hooks_are_no_more_than_the_process,
    start_container_hooks_need_few_system_calls,
    hooks_without_an_environment_have_one_of_their_place,
];

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

/// A container whose hooks of all kinds run a script with `KIND` for their kind; the folder is at the same path inside.
fn noted(dir: &Path, script: &str) -> Result<Container> {
    let mut c = Container::sh("echo program >> $DIR/order; exec sleep 100000")?;
    c.push("/process/env", format!("DIR={}", dir.display()).into())?;
    c.push(
        "/mounts",
        json!({"destination": dir, "type": "bind", "source": dir, "options": ["bind"]}),
    )?;
    for kind in KINDS {
        let script = script
            .replace("KIND", kind)
            .replace("DIR", &dir.display().to_string());
        c.set(&format!("/hooks/{kind}"), hook(&script))?;
    }
    Ok(c)
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

fn six_kinds_in_their_order() -> Result<()> {
    known_difference!("runc", "runs poststart hooks at create");
    let dir = harness::tempdir();
    let c = noted(&dir, "echo KIND >> DIR/order")?;
    c.create()?;
    ensure_eq!(read(&dir, "order"), "prestart\ncreateRuntime\ncreateContainer\n");
    c.start()?;
    until("all have run", || Ok(read(&dir, "order").lines().count() == 6))?;
    let order = read(&dir, "order");
    ensure!(
        order.starts_with("prestart\ncreateRuntime\ncreateContainer\n"),
        "{order}"
    );
    let at = |what| order.lines().position(|l| l == what);
    ensure!(at("startContainer") < at("program"), "{order}");
    c.delete()?;
    ensure!(read(&dir, "order").ends_with("poststop\n"));
    Ok(())
}

fn each_sees_the_state_of_its_moment() -> Result<()> {
    let dir = harness::tempdir();
    let mut c = noted(&dir, "cat > DIR/KIND")?;
    c.set("/annotations", json!({"a": "b"}))?;
    c.create()?;
    let pid = c.pid()?;
    c.start()?;
    until("the program runs", || {
        Ok(read(&dir, "order") == "program\n" && dir.join("poststart").exists())
    })?;
    c.delete()?;
    for (kind, status, seen) in [
        ("prestart", "creating", Some(pid)),
        ("createRuntime", "creating", Some(pid)),
        ("createContainer", "creating", Some(pid)),
        // In its own pid namespace.
        ("startContainer", "created", Some(1)),
        ("poststart", "running", Some(pid)),
        ("poststop", "stopped", None),
    ] {
        let state: Value = serde_json::from_str(&read(&dir, kind))?;
        ensure_eq!(state["id"].as_str(), Some(&*c.id));
        ensure_eq!(state["bundle"].as_str(), c.bundle.dir.to_str());
        ensure_eq!(state["annotations"]["a"].as_str(), Some("b"));
        if harness::is_ours() {
            ensure_eq!((kind, state["status"].as_str()), (kind, Some(status)));
            ensure_eq!((kind, state["pid"].as_i64()), (kind, seen.map(i64::from)));
        }
    }
    Ok(())
}

fn each_runs_where_the_spec_says() -> Result<()> {
    let dir = harness::tempdir();
    let c = noted(
        &dir,
        "{ readlink /proc/self/ns/mnt; readlink /proc/self/ns/net; test -e /etc/debian_version && echo host; } > DIR/KIND; true",
    )?;
    c.up()?;
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}"));
    let (mount, net) = (own("mnt")?, own("net")?);
    until("the program runs", || Ok(read(&dir, "order") == "program\n"))?;
    c.delete()?;
    for (kind, in_host, host_files) in [
        ("prestart", true, true),
        ("createRuntime", true, true),
        ("createContainer", false, true),
        ("startContainer", false, false),
        ("poststart", true, true),
        ("poststop", true, true),
    ] {
        let said = read(&dir, kind);
        let lines: Vec<&str> = said.lines().collect();
        ensure!((Path::new(lines[0]) == mount) == in_host, "{kind}: {said}");
        ensure!((Path::new(lines[1]) == net) == in_host, "{kind}: {said}");
        ensure!(
            (lines.get(2) == Some(&"host")) == host_files || !Path::new("/etc/debian_version").exists(),
            "{kind}: {said}"
        );
    }
    Ok(())
}

fn environment_and_arguments_are_the_hooks_own() -> Result<()> {
    let dir = harness::tempdir();
    // Their own folder at its own place inside too, where some of them run.
    let mut c = noted(&dir, "true")?;
    let script = format!(
        "echo $0 $1 $A > {0}/$1; /bin/busybox env > {0}/env-$1",
        dir.display()
    );
    for kind in KINDS {
        let hook = json!([{
            "path": "/bin/sh", "args": ["sh", "-c", script, "zero", kind], "env": [format!("A=of-{kind}")],
        }]);
        c.set(&format!("/hooks/{kind}"), hook)?;
    }
    c.up()?;
    until("the program runs", || {
        Ok(read(&dir, "order") == "program\n" && dir.join("env-poststart").exists())
    })?;
    c.delete()?;
    for kind in KINDS {
        ensure_eq!(read(&dir, kind), format!("zero {kind} of-{kind}\n"));
        let env = read(&dir, &format!("env-{kind}"));
        ensure!(
            !env.contains("PATH=/usr/local") && !env.contains("DIR="),
            "{kind}: {env}"
        );
    }
    Ok(())
}

fn a_failing_one_undoes_everything() -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let dir = harness::tempdir();
        let mut c = noted(&dir, "echo KIND >> DIR/order")?;
        c.set(&format!("/hooks/{kind}"), hook("echo no luck >&2; exit 3"))?;
        let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
        let words = if harness::is_ours() {
            format!("error running {kind} hook #0: `/bin/sh`: exited with status 3, stderr: no luck")
        } else {
            "exit status 3".into()
        };
        ensure!(fault.contains(&words), "{fault}");
        c.nothing_left()?;
        if harness::is_ours() {
            ensure!(
                read(&dir, "order").ends_with("poststop\n"),
                "{kind}: {}",
                read(&dir, "order")
            );
        }
    }
    Ok(())
}

fn a_failing_start_container_ends_the_container() -> Result<()> {
    let dir = harness::tempdir();
    let mut c = noted(&dir, "test KIND != poststop || echo KIND >> DIR/order")?;
    c.set("/hooks/startContainer", hook("exit 3"))?;
    known_difference!("runc", "start does not hear of it");
    c.create()?;
    let fault = c.call(&["start", "@"])?.fault()?;
    ensure!(fault.contains("startContainer hook #0"), "{fault}");
    ensure_eq!(read(&dir, "order"), "poststop\n");
    c.nothing_left()?;
    let fault = c.run()?.fault()?;
    ensure!(
        !harness::is_ours() || fault.contains("startContainer hook #0"),
        "{fault}"
    );
    c.nothing_left()
}

fn failing_ones_after_the_fact_are_no_failure() -> Result<()> {
    known_difference!(
        "runc",
        "runs poststart hooks at create, where a failure undoes it"
    );
    let mut c = Container::idle()?;
    c.set("/hooks/poststop", hook("exit 3"))?;
    c.up()?;
    c.delete()?;
    c.nothing_left()
}

/// As the specification has it since 1.3.
fn a_failing_poststart_ends_the_container() -> Result<()> {
    known_difference!(
        "runc",
        "runs poststart hooks at create, where a failure undoes it"
    );
    let dir = harness::tempdir();
    let mut c = noted(&dir, "test KIND != poststop || echo KIND >> DIR/order")?;
    // It runs when the program does.
    c.set("/hooks/poststart", hook("echo no luck >&2; exit 3"))?;
    c.create()?;
    let fault = c.call(&["start", "@"])?.fault()?;
    ensure!(
        fault.contains("poststart hook #0") && fault.contains("no luck"),
        "{fault}"
    );
    ensure!(
        read(&dir, "order").ends_with("poststop\n"),
        "{}",
        read(&dir, "order")
    );
    c.nothing_left()?;
    let fault = c.run()?.fault()?;
    ensure!(fault.contains("poststart hook #0"), "{fault}");
    c.nothing_left()
}

/// Hooks may call the runtime: none of its locks is held against them.
fn hooks_may_call_the_runtime() -> Result<()> {
    known_difference!("runc", "has no state before its createRuntime hooks have run");
    let mut c = Container::idle()?;
    let dir = harness::tempdir();
    let runtime = harness::condo_runtime().display().to_string();
    let call = |limit: u32| {
        let args = [
            runtime.as_str(),
            "--root",
            c.root.to_str().unwrap_or_default(),
            "update",
            "--pids-limit",
        ];
        let line = format!(
            "{} {limit} {} && echo {limit} >> {}/updated",
            args.join(" "),
            c.id,
            dir.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "timeout": 20}])
    };
    let hooks = json!({"createRuntime": call(71), "poststart": call(72)});
    c.set("/hooks", hooks)?;
    c.up()?;
    ensure_eq!(read(&dir, "updated"), "71\n72\n");
    ensure_eq!(c.status()?, "running");
    c.cleared()
}

/// A container with a hook that calls the runtime with these arguments, the id last, and what it says and ends with in a file.
fn calling(kind: &str, args: &str, said: &Path) -> Result<Container> {
    let mut c = Container::idle()?;
    let line = format!(
        "{} --root {} {args} {} > {said} 2>&1; echo ended $? >> {said}",
        harness::condo_runtime().display(),
        c.root.display(),
        c.id,
        said = said.display()
    );
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"], "timeout": 20}]);
    c.set(&format!("/hooks/{kind}"), hook)?;
    Ok(c)
}

fn one_that_deletes_its_container_fails_create() -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let dir = harness::tempdir();
        let c = calling(kind, "delete --force", &dir.join("said"))?;
        let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
        ensure!(
            !harness::is_ours() || fault.contains("one of its hooks has deleted the container"),
            "{kind}: {fault}"
        );
        ensure_eq!((kind, &*read(&dir, "said")), (kind, "ended 0\n"));
        c.nothing_left()?;
    }
    Ok(())
}

/// The runtime waits for the hook: what the hook calls must not wait for the runtime.
fn one_does_not_wait_for_who_waits_for_it() -> Result<()> {
    known_difference!(
        "runc",
        "has no state before its hooks have run, and `delete` removes what it has"
    );
    for (kind, args) in [
        ("prestart", "delete"),
        ("createRuntime", "start"),
        ("createContainer", "delete"),
        ("createContainer", "start"),
    ] {
        let dir = harness::tempdir();
        let c = calling(kind, args, &dir.join("said"))?;
        c.create()?;
        let said = read(&dir, "said");
        ensure!(
            said.contains("waits for the hook that calls this") && said.ends_with("ended 1\n"),
            "{kind}, {args}: {said}"
        );
        ensure_eq!(c.status()?, "created");
        c.cleared()?;
    }
    Ok(())
}

/// What they mount below `root.path` in the container's mount namespace is the container's (NVIDIA's toolkit works so).
fn the_tree_is_at_its_path_for_hooks() -> Result<()> {
    needs!(program:nsenter);
    for shared in ["", "shared"] {
        let mut c = Container::sh("cat /in/*/file; cat /proc/mounts | grep -c condo-hook")?;
        let root = c.bundle.rootfs();
        for kind in ["prestart", "createRuntime", "createContainer"] {
            fs::create_dir_all(root.join("in").join(kind))?;
            let at = format!("{}/in/{kind}", root.display());
            // The container's own mounts are there, and the host's programs at their places.
            let work = format!(
                "test -e {0}/proc/1/status && test -c {0}/dev/null && mount -t tmpfs condo-hook {at} && echo {kind} > {at}/file",
                root.display()
            );
            let enter = if kind == "createContainer" {
                work
            } else {
                format!(
                    "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); exec nsenter --mount --target $pid sh -c '{work}'"
                )
            };
            let hook =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", enter], "env": ["PATH=/usr/bin:/bin"]}]);
            c.set(&format!("/hooks/{kind}"), hook)?;
        }
        c.set("/linux/rootfsPropagation", shared.into())?;
        ensure_eq!(
            (shared, c.run()?.ok()?),
            (shared, "createContainer\ncreateRuntime\nprestart\n3\n".into())
        );
    }
    Ok(())
}

/// A container with a hook that would take for ever.
fn with_hanging(kind: &str) -> Result<Container> {
    let mut c = Container::idle()?;
    let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "100000"], "timeout": 1}]);
    c.set(&format!("/hooks/{kind}"), hook)?;
    Ok(c)
}

fn is_told_of(said: &str) -> bool {
    !harness::is_ours() || said.contains("did not end within 1 s")
}

fn one_that_hangs_is_ended() -> Result<()> {
    let c = with_hanging("createRuntime")?;
    let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
    ensure!(is_told_of(&fault), "{fault}");
    c.nothing_left()
}

fn one_of_another_kind_that_hangs_is_ended() -> Result<()> {
    // The six are waited for alike, a second each.
    for kind in ["prestart", "createContainer"] {
        let c = with_hanging(kind)?;
        let fault = c.call(&["create", "--bundle", "%", "@"])?.fault()?;
        ensure!(is_told_of(&fault), "{kind}: {fault}");
        c.nothing_left()?;
    }
    known_difference!("runc", "start does not hear of a startContainer hook");
    let c = with_hanging("startContainer")?;
    c.create()?;
    let fault = c.call(&["start", "@"])?.fault()?;
    ensure!(is_told_of(&fault), "{fault}");
    let c = with_hanging("poststop")?;
    c.up()?;
    let ran = c.call(&["--debug", "delete", "--force", "@"])?;
    ensure!(ran.status.success() && is_told_of(&ran.err), "{ran:?}");
    c.nothing_left()?;
    let c = with_hanging("poststart")?;
    c.create()?;
    let fault = c.call(&["start", "@"])?.fault()?;
    ensure!(is_told_of(&fault), "{fault}");
    c.nothing_left()
}

fn a_large_state_does_not_hang_one_that_reads_nothing() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.set("/annotations", json!({"large": "x".repeat(200_000)}))?;
    c.set("/hooks/createRuntime", hook("sleep 0.1"))?;
    known_difference!("runc", "fails with a broken pipe");
    c.run()?.ok()?;
    Ok(())
}

fn signals_are_not_blocked_in_them() -> Result<()> {
    let dir = harness::tempdir();
    let mut c = Container::new(&["true"])?;
    c.set(
        "/hooks/createRuntime",
        hook(&format!(
            "grep SigBlk /proc/self/status > {}/blocked",
            dir.display()
        )),
    )?;
    c.run()?.ok()?;
    ensure_eq!(read(&dir, "blocked"), "SigBlk:\t0000000000000000\n");
    Ok(())
}

/// Their programs are the image's: run as more than the container's process, they would own the host.
fn start_container_hooks_are_no_more_than_the_process() -> Result<()> {
    let show = "id -u; id -g; id -G; umask; ulimit -n; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; \
                mkdir /tmp/made || echo filtered; echo $GIVEN; pwd";
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    for (no_new_privs, names) in [(true, json!([])), (false, json!(["CAP_KILL"]))] {
        let mut c = Container::sh(&format!("{{ {show}; }} > /out/program 2>&1"))?;
        let out = harness::tempdir();
        harness::give(&out, 1000)?;
        c.push(
            "/mounts",
            json!({"destination": "/out", "type": "bind", "source": out, "options": ["bind"]}),
        )?;
        fs::create_dir(c.bundle.rootfs().join("out"))?;
        c.set(
            "/process/user",
            json!({"uid": 1000, "gid": 1001, "additionalGids": [1002], "umask": 0o27}),
        )?;
        c.set(
            "/process/capabilities",
            json!({"bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": names}),
        )?;
        c.push("/process/env", "GIVEN=by the process".into())?
            .set("/process/cwd", "/tmp".into())?
            .set("/process/noNewPrivileges", no_new_privs.into())?
            .set("/linux/seccomp", filter.clone())?;
        // One that names no environment.
        let script = format!("{{ {show}; }} > /out/hook 2>&1");
        c.set(
            "/hooks/startContainer",
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]),
        )?;
        c.run()?.ok()?;
        let (hook, program) = (read(&out, "hook"), read(&out, "program"));
        ensure!(
            hook.contains("Seccomp:\t2") && hook.contains("filtered"),
            "{hook}"
        );
        ensure!(hook.ends_with("by the process\n/tmp\n"), "{hook}");
        ensure_eq!(hook, program);
    }
    Ok(())
}

/// A filter that lets a shell work is enough: what the runtime itself wants beyond that, it does before.
fn start_container_hooks_need_few_system_calls() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    let refused = json!([
        "memfd_create",
        "pidfd_open",
        "clone3",
        "pipe",
        "openat2",
        "waitid",
        "lseek"
    ]);
    c.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": refused, "action": "SCMP_ACT_ERRNO"}]}),
    )?;
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 30});
    let hooks = [
        hook("grep -q startContainer-state && touch /tmp/ran"),
        hook("cat"),
    ];
    c.set("/annotations", json!({"name": "startContainer-state"}))?
        .set("/hooks/startContainer", json!(hooks))?;
    c.run()?.ok()?;
    ensure!(c.bundle.rootfs().join("tmp/ran").exists(), "the hook did not run");
    c.set("/hooks/startContainer", json!([hook("echo no luck >&2; exit 3")]))?;
    let fault = c.run()?.fault()?;
    ensure!(!harness::is_ours() || fault.contains("no luck"), "{fault}");
    Ok(())
}

/// The process's in the container's namespaces, the caller's outside; and the bundle, the root or the process's directory.
fn hooks_without_an_environment_have_one_of_their_place() -> Result<()> {
    let dir = harness::tempdir();
    let mut c = noted(&dir, "true")?;
    c.push("/process/env", "OF=process".into())?;
    for kind in KINDS {
        let script = format!("echo $OF > {0}/env-{kind}; pwd > {0}/pwd-{kind}", dir.display());
        c.set(
            &format!("/hooks/{kind}"),
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]),
        )?;
    }
    let as_caller = |args: &[&str]| {
        let mut command = c.command(args);
        command.env("OF", "caller");
        command
    };
    c.create_with(as_caller(&["create", "--bundle", "%", "@"]))?;
    super::to_the_end(as_caller(&["start", "@"]))?.ok()?;
    until("the program runs", || Ok(read(&dir, "order") == "program\n"))?;
    super::to_the_end(as_caller(&["delete", "--force", "@"]))?.ok()?;
    let bundle = c.bundle.dir.display().to_string();
    for (kind, env, pwd) in [
        ("prestart", "caller", Some(bundle.clone())),
        ("createRuntime", "caller", Some(bundle.clone())),
        ("createContainer", "process", Some(format!("{bundle}/rootfs"))),
        ("startContainer", "process", Some("/".into())),
        ("poststart", "caller", Some(bundle.clone())),
        // runc leaves it where `delete` was called.
        ("poststop", "caller", harness::is_ours().then_some(bundle)),
    ] {
        ensure_eq!(
            (kind, read(&dir, &format!("env-{kind}"))),
            (kind, format!("{env}\n"))
        );
        let seen = read(&dir, &format!("pwd-{kind}"));
        if let Some(pwd) = pwd {
            ensure_eq!((kind, seen.trim()), (kind, &*pwd));
        }
    }
    Ok(())
}
