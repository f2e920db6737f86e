//! One test for each thing that has gone wrong in this field and concerns a runtime, by its number. Those about the root
//! file system are in `rootfs`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use super::{Container, ensure_eq};
use crate::harness::{self, Receiver};

tests![
    cve_2021_43784_long_configs_are_read_whole,
    cve_2024_21626_host_descriptors_do_not_leak,
    cve_2024_21626_a_working_directory_outside_is_refused,
    cve_2024_21626_a_program_outside_is_not_found: 120,
    cve_2024_21626_a_link_to_a_program_outside_is_not_followed: 120,
    cve_2024_21626_a_working_directory_outside_is_not_made: 120,
    cve_2024_21626_hooks_inside_have_no_host_descriptors,
    init_does_not_hold_the_lock_of_its_state,
    cve_2016_9962_init_is_hidden_until_it_is_the_program,
    cve_2019_5736_own_program_cannot_be_written,
    cve_2019_5736_whatever_the_callers_environment,
    cve_2019_5736_an_entrypoint_that_is_the_runtime,
    cve_2019_5736_a_privileged_container_cannot_remount_it,
    cve_2019_16884_a_volume_over_proc_is_refused,
    cve_2022_29162_nothing_is_inheritable,
    youki_2025_27612_exec_has_the_specs_capabilities,
    crun_2026_30892_exec_user_is_parsed_strictly,
    crio_2022_0811_a_sysctl_cannot_bring_another,
    cve_2023_25809_the_cgroup_tree_is_readonly in guest,
    cve_2025_52565_the_console_is_not_the_images,
    the_callers_session_is_not_the_containers,
];

/// Runs the runtime with descriptors of the host open, also some that are not meant to be inherited.
fn with_host_descriptors(command: &Command) -> Result<super::Ran> {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 3</ 4</etc 5</etc/hostname 9</proc; cd /; exec \"$@\"",
        "sh",
    ]);
    shell
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(std::process::Stdio::null());
    super::to_the_end(shell)
}

fn cve_2024_21626_host_descriptors_do_not_leak() -> Result<()> {
    let log = harness::tempdir().join("log");
    let log = log.to_str().unwrap_or_default();
    let list = "for f in /proc/self/fd/*; do readlink $f; done; exit 0";
    let c = Container::sh(list)?;
    let said = with_host_descriptors(&c.command(&["--log", log, "run", "--bundle", "%", "@"]))?.ok()?;
    ensure_eq!(said.lines().count(), 3);
    let c = Container::idle()?;
    c.up()?;
    let said = with_host_descriptors(&c.command(&["--log", log, "exec", "@", "sh", "-c", list]))?.ok()?;
    ensure_eq!(said.lines().count(), 3);
    // And init's own, while it waits.
    let c = Container::idle()?;
    with_host_descriptors(&c.command(&["--log", log, "create", "--bundle", "%", "@"]))?.ok()?;
    c.start()?;
    super::until("it is the program", || {
        Ok(fs::read_to_string(format!("/proc/{}/comm", c.pid()?))? == "sleep\n")
    })?;
    ensure_eq!(fs::read_dir(format!("/proc/{}/fd", c.pid()?))?.count(), 3);
    Ok(())
}

fn cve_2024_21626_a_working_directory_outside_is_refused() -> Result<()> {
    for fd in 3..16 {
        let cwd = format!("/proc/self/fd/{fd}");
        let mut c = Container::sh("ls ../../../../../../etc/debian_version")?;
        c.set("/process/cwd", cwd.clone().into())?;
        let ran = with_host_descriptors(&c.command(&["run", "--bundle", "%", "@"]))?;
        ensure!(!ran.status.success() && ran.out.is_empty(), "{fd}: {ran:?}");
        c.nothing_left()?;
    }
    let c = Container::idle()?;
    c.up()?;
    for fd in 3..16 {
        let cwd = format!("/proc/self/fd/{fd}");
        let ran = with_host_descriptors(&c.command(&[
            "exec",
            "--cwd",
            &cwd,
            "@",
            "ls",
            "../../../etc/debian_version",
        ]))?;
        ensure!(!ran.status.success() && ran.out.is_empty(), "{fd}: {ran:?}");
    }
    Ok(())
}

/// Paths through descriptors of the runtime's own, whatever is behind them, to a place on the host.
fn ways_out(to: &Path) -> impl Iterator<Item = String> + '_ {
    (3..24).map(|fd| format!("/proc/self/fd/{fd}/../../../../../../../..{}", to.display()))
}

/// A program on the host that no container has: it says `escaped`.
fn host_program() -> Result<PathBuf> {
    let dir = harness::tempdir().join("host-only");
    fs::create_dir_all(&dir)?;
    let program = dir.join("echo");
    fs::copy("/bin/busybox", &program)?;
    Ok(program)
}

fn cve_2024_21626_a_program_outside_is_not_found() -> Result<()> {
    let program = host_program()?;
    for path in ways_out(&program) {
        let ran = Container::new(&[&path, "escaped"])?.run()?;
        ensure!(!ran.status.success() && ran.out.is_empty(), "{path}: {ran:?}");
    }
    Ok(())
}

fn cve_2024_21626_a_link_to_a_program_outside_is_not_followed() -> Result<()> {
    let program = host_program()?;
    let c = Container::idle()?;
    c.up()?;
    for (n, path) in ways_out(&program).enumerate() {
        symlink(path, c.bundle.rootfs().join(format!("way{n}")))?;
        let ran = c.exec(&["@", &format!("/way{n}"), "escaped"])?;
        ensure!(!ran.status.success() && ran.out.is_empty(), "{n}: {ran:?}");
    }
    Ok(())
}

fn cve_2024_21626_a_working_directory_outside_is_not_made() -> Result<()> {
    let made = harness::tempdir().join("made-by-container");
    for path in ways_out(&made.join("below")) {
        let mut c = Container::new(&["true"])?;
        c.set("/process/cwd", path.clone().into())?;
        let ran = c.run()?;
        ensure!(!ran.status.success() && !made.exists(), "{path}: {ran:?}");
    }
    Ok(())
}

fn cve_2024_21626_hooks_inside_have_no_host_descriptors() -> Result<()> {
    let mut c = Container::new(&["true"])?;
    c.set("/root/readonly", false.into())?;
    let script = "for f in /proc/self/fd/*; do readlink $f; done > /seen; exit 0";
    c.set(
        "/hooks",
        json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}),
    )?;
    with_host_descriptors(&c.command(&["run", "--bundle", "%", "@"]))?.ok()?;
    let seen = fs::read_to_string(c.bundle.rootfs().join("seen"))?;
    ensure!(
        !seen.is_empty() && !seen.lines().any(|l| l == "/" || l.starts_with("/etc")),
        "{seen}"
    );
    Ok(())
}

fn init_does_not_hold_the_lock_of_its_state() -> Result<()> {
    needs!(ours);
    let c = Container::idle()?;
    c.create()?;
    for fd in fs::read_dir(format!("/proc/{}/fd", c.pid()?))? {
        let target = fs::read_link(fd?.path())?;
        ensure!(
            !target.ends_with("lock") && !target.is_dir(),
            "{}",
            target.display()
        );
    }
    Ok(())
}

fn cve_2016_9962_init_is_hidden_until_it_is_the_program() -> Result<()> {
    known_difference!("runc", "lets root of the container look");
    let waiting = Container::idle()?;
    waiting.create()?;
    let mut spy = Container::sh(
        "cat /proc/1/environ; ls /proc/1/root/; for f in exe cwd root fd/0 fd/3; do readlink /proc/1/$f; done; cat /proc/1/mem /proc/1/maps; true",
    )?;
    spy.namespace("pid", Some(format!("/proc/{}/ns/pid", waiting.pid()?).as_ref()))?;
    let ran = spy.run()?;
    ensure_eq!(ran.out, "");
    ensure!(
        ran.err.to_lowercase().contains("permission denied"),
        "{}",
        ran.err
    );
    Ok(())
}

/// The program behind a created container's init, as somebody with every privilege on the host gets hold of it.
fn own_program(c: &Container) -> Result<OwnedFd> {
    let path = format!("/proc/{}/exe", c.pid()?);
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn opens_for_writing(fd: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC]
        .into_iter()
        .any(|flags| rustix::fs::openat(CWD, path.as_str(), flags, Mode::empty()).is_ok())
}

fn cve_2019_5736_own_program_cannot_be_written() -> Result<()> {
    let c = Container::idle()?;
    c.create()?;
    let program = own_program(&c)?;
    ensure!(!opens_for_writing(&program));
    // A running program is busy anyway: what counts is when it has ended.
    let file = harness::condo_runtime();
    let before = fs::metadata(&file)?.modified()?;
    c.delete()?;
    ensure!(
        !opens_for_writing(&program),
        "the runtime's program can be written through a container"
    );
    ensure_eq!(fs::metadata(&file)?.modified()?, before);
    Ok(())
}

fn cve_2019_5736_whatever_the_callers_environment() -> Result<()> {
    let mark = condo::process::protect::MARK;
    let of = |names: &[&str]| -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).into(), "1".into())).collect()
    };
    let many = (0..1500).map(|n| (format!("V{n}"), n.to_string())).collect();
    let similar = format!("{mark}_NOT");
    for variables in [of(&[]), of(&[mark]), of(&[&similar, &mark[..5], "A"]), many] {
        let c = Container::idle()?;
        let mut command = c.command(&["create", "--bundle", "%", "@"]);
        command.env_clear().envs(variables.iter().cloned());
        c.create_with(command)?;
        let program = own_program(&c)?;
        c.delete()?;
        ensure!(!opens_for_writing(&program), "with {} variables", variables.len());
    }
    Ok(())
}

fn cve_2019_5736_an_entrypoint_that_is_the_runtime() -> Result<()> {
    let before = fs::read(harness::condo_runtime())?;
    for interpreter in ["/proc/self/exe", "/proc/1/exe"] {
        let mut c = Container::new(&["/entry"])?;
        let entry = c.bundle.rootfs().join("entry");
        fs::write(&entry, format!("#!{interpreter}\n"))?;
        fs::set_permissions(&entry, fs::Permissions::from_mode(0o755))?;
        // The host has all it takes; the container's own tries are in the next test.
        let ran = c.run()?;
        ensure!(!ran.status.success(), "{ran:?}");
        c.nothing_left()?;
        c.set("/process/args", json!(["sleep", "100000"]))?;
        c.up()?;
        let ran = c.exec(&["@", "/entry"])?;
        // /proc/1/exe is the sleeping busybox by then.
        ensure!(!ran.status.success() || interpreter == "/proc/1/exe", "{ran:?}");
    }
    ensure!(fs::read(harness::condo_runtime())? == before);
    Ok(())
}

fn cve_2019_5736_a_privileged_container_cannot_remount_it() -> Result<()> {
    known_difference!("runc", "protects itself by a copy");
    let waiting = Container::idle()?;
    waiting.create()?;
    let all = json!([
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_CHOWN",
        "CAP_FOWNER",
        "CAP_MKNOD"
    ]);
    let mut attacker = Container::sh(
        "touch /place; cd /proc/1; (echo x >> exe) 2>&1; mount -o remount,rw exe 2>&1; mount --bind exe /place && echo BOUND; \
         mount -o remount,bind,rw /place && echo REMOUNTED; (echo x >> /proc/1/exe) && echo WRITTEN; chmod 777 exe && echo CHANGED; true",
    )?;
    attacker
        .set(
            "/process/capabilities",
            json!({"bounding": all, "permitted": all, "effective": all}),
        )?
        .namespace("pid", Some(format!("/proc/{}/ns/pid", waiting.pid()?).as_ref()))?;
    let ran = attacker.run()?;
    ensure!(
        !["BOUND", "REMOUNTED", "WRITTEN", "CHANGED"]
            .iter()
            .any(|w| ran.out.contains(w)),
        "{ran:?}"
    );
    // What no shell has: a copy of the mount, and a change of its attributes. As root of the host.
    use rustix::mount::OpenTreeFlags;
    let program = own_program(&waiting)?;
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
    ensure!(
        rustix::mount::open_tree(&program, "", copy).is_err(),
        "the mount was copied"
    );
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    ensure!(rustix::mount::open_tree(CWD, path.as_str(), OpenTreeFlags::OPEN_TREE_CLONE).is_err());
    let writable = condo::sys::mount::Attributes {
        clear: condo::sys::mount::attr::RDONLY,
        ..Default::default()
    };
    ensure!(
        condo::sys::mount::set_attributes(program.as_fd(), false, &writable).is_err(),
        "the mount was changed"
    );
    waiting.delete()?;
    ensure!(!opens_for_writing(&program));
    Ok(())
}

fn cve_2019_16884_a_volume_over_proc_is_refused() -> Result<()> {
    let fake = harness::tempdir();
    fs::create_dir_all(fake.join("self/attr"))?;
    let mut c = Container::new(&["true"])?;
    c.push(
        "/mounts",
        json!({"destination": "/proc", "type": "bind", "source": fake, "options": ["bind"]}),
    )?;
    c.run()?.fault()?;
    c.nothing_left()?;
    let c = Container::new(&["true"])?;
    fs::remove_dir(c.bundle.rootfs().join("proc"))?;
    symlink("/tmp", c.bundle.rootfs().join("proc"))?;
    c.run()?.fault()?;
    c.nothing_left()
}

const SHOW: &str = "grep -E '^Cap' /proc/self/status | cut -f 2";

fn cve_2022_29162_nothing_is_inheritable() -> Result<()> {
    let c = Container::sh(SHOW)?;
    let nothing = "0000000000000000";
    ensure_eq!(c.run()?.ok()?.lines().next(), Some(nothing));
    let c = Container::idle()?;
    c.up()?;
    for extra in [&[][..], &["--cap", "CAP_NET_RAW"]] {
        let said = c.exec(&[extra, &["@", "sh", "-c", SHOW]].concat())?.ok()?;
        ensure_eq!(said.lines().next(), Some(nothing));
    }
    Ok(())
}

fn youki_2025_27612_exec_has_the_specs_capabilities() -> Result<()> {
    let mut c = Container::idle()?;
    c.set(
        "/process/capabilities",
        json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}),
    )?;
    c.up()?;
    let kill = "0000000000000020";
    let nothing = "0000000000000000";
    let said = c.exec(&["@", "sh", "-c", SHOW])?.ok()?;
    ensure_eq!(
        said.lines().collect::<Vec<_>>(),
        [nothing, kill, kill, kill, nothing]
    );
    // A process file without capabilities has none.
    let file = harness::tempdir().join("process.json");
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", SHOW], "cwd": "/", "env": ["PATH=/bin"], "capabilities": {}});
    fs::write(&file, process.to_string())?;
    let said = c
        .exec(&["--process", file.to_str().unwrap_or_default(), "@"])?
        .ok()?;
    ensure_eq!(said.lines().collect::<Vec<_>>(), [nothing; 5]);
    Ok(())
}

fn crun_2026_30892_exec_user_is_parsed_strictly() -> Result<()> {
    known_difference!("runc", "reads some of these as numbers");
    let c = Container::idle()?;
    c.up()?;
    for user in [
        ":",
        "1000x",
        "1000:x",
        "1000:1000x",
        ":5",
        "1000:",
        "0x3e8",
        " 1000",
        "1000 ",
        "+5",
        "-1",
        "4294967295",
        "4294967296",
        "root",
        "1:2:3",
    ] {
        let ran = c.exec(&["--user", user, "@", "id"])?;
        ensure!(!ran.status.success() && ran.out.is_empty(), "{user:?}: {ran:?}");
        // The parser of the command line takes this one for a flag.
        ensure!(ran.err.contains("--user") || user == "-1", "{user:?}: {ran:?}");
    }
    Ok(())
}

fn crio_2022_0811_a_sysctl_cannot_bring_another() -> Result<()> {
    let file = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(file)?;
    for (key, value) in [
        ("kernel.shm_rmid_forced+kernel.core_pattern", "x"),
        ("kernel.core_pattern", "|/x"),
        ("kernel/core_pattern", "|/x"),
        ("net/../kernel/core_pattern", "|/x"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
    ] {
        let mut c = Container::new(&["true"])?;
        c.set("/linux/sysctl", json!({key: value}))?;
        // The last of them may be taken for a 1; none of them may reach the other file.
        let _ = c.run()?;
        ensure_eq!(fs::read_to_string(file)?, before);
        c.nothing_left()?;
    }
    Ok(())
}

fn cve_2023_25809_the_cgroup_tree_is_readonly() -> Result<()> {
    for own_namespace in [true, false] {
        let mut c = Container::sh(
            "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x; for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do test -e $f && echo 1 > $f && echo WRITTEN; done; true",
        )?;
        c.with_user_namespace()?;
        if !own_namespace {
            c.namespace("cgroup", None)?;
        }
        let ran = c.run()?;
        ensure!(ran.status.success() && !ran.out.contains("WRITTEN"), "{ran:?}");
        c.nothing_left()?;
    }
    Ok(())
}

fn cve_2025_52565_the_console_is_not_the_images() -> Result<()> {
    // A victim on the host that a link in the image points to.
    let victim = harness::tempdir().join("victim");
    fs::write(&victim, "untouched")?;
    let mut c = Container::sh("echo x > /dev/console; exec sleep 100000")?;
    c.set("/process/terminal", true.into())?;
    let dev = c.bundle.rootfs().join("dev");
    symlink(&victim, dev.join("console"))?;
    symlink(&victim, dev.join("pts"))?;
    let receiver = Receiver::new()?;
    c.create_with_console(receiver.path())?.ok()?;
    ensure_eq!(fs::read_to_string(&victim)?, "untouched");
    ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains("victim"));
    Ok(())
}

fn the_callers_session_is_not_the_containers() -> Result<()> {
    let c = Container::idle()?;
    c.up()?;
    let session = |pid: i32| -> Result<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().to_owned();
        Ok(fields.split_whitespace().nth(3).unwrap_or_default().to_owned())
    };
    ensure_eq!(session(c.pid()?)?, c.pid()?.to_string());
    Ok(())
}

fn cve_2021_43784_long_configs_are_read_whole() -> Result<()> {
    // More than 64 KiB of each thing whose length another runtime kept in 16 bits, with what must not get lost at the end.
    let mut c = Container::new(&[
        "sh",
        "-c",
        "wc -l < /proc/self/uid_map; echo ${#LONG}; readlink /proc/self/ns/user",
    ])?;
    let lines: Vec<_> = (0..300)
        .map(|n| json!({"containerID": n, "hostID": 100_000 + 2 * n, "size": 1}))
        .collect();
    c.push("/linux/namespaces", json!({"type": "user"}))?
        .set("/linux/uidMappings", lines.clone().into())?
        .set("/linux/gidMappings", lines.into())?
        .push("/process/env", format!("LONG={}", "x".repeat(100_000)).into())?
        .set("/annotations", json!({"long": "y".repeat(200_000)}))?;
    let out = c.run()?.ok()?;
    let mut lines = out.lines();
    ensure!(lines.next().map(str::trim) == Some("300"), "{out}");
    ensure!(lines.next() == Some("100000"), "{out}");
    let ours = fs::read_link("/proc/self/ns/user")?;
    ensure!(lines.next() != ours.to_str(), "{out}");
    Ok(())
}
