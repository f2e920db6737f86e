//! Containers of an ordinary user: by the config that `spec --rootless` writes, by its own id alone.

pub mod delegated;
pub mod nested;
pub mod ranges;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::terminal::{on_a_terminal, read_until};
use super::{Container, Ran, ensure_eq, says_all, to_the_end};
use crate::harness;

tests![
    the_config_of_spec_runs_as_it_is in guest,
    a_container_runs_as_its_user,
    clocks_are_its_own,
    all_commands_work_without_a_cgroup in guest,
    a_process_of_exec_is_its_user_too,
    exec_is_let_in_before_the_start,
    the_user_s_directory_is_the_default_and_private,
    without_a_runtime_directory_the_way_out_is_named,
    limits_that_nobody_could_hold_are_refused,
    what_takes_privileges_is_refused_by_name,
    there_is_no_power_over_the_host,
    locked_mounts_stay_as_they_are,
    the_host_s_sys_is_there_and_not_writable,
    the_program_s_file_is_out_of_reach,
    a_user_namespace_is_joined_by_path,
];

/// A user nobody is.
pub const UID: u32 = 12345;

/// An ordinary user with a bundle, called through `setpriv`.
pub struct User {
    pub container: Container,
    pub home: PathBuf,
    /// Where programs are.
    pub path: String,
}

impl User {
    /// One whose container runs a script, by the config that `spec --rootless` writes.
    pub fn sh(script: &str) -> Result<Self> {
        Self::new(&["sh", "-c", script])
    }

    pub fn idle() -> Result<Self> {
        Self::new(&["sleep", "100000"])
    }

    pub fn new(args: &[&str]) -> Result<Self> {
        let mut user = Self {
            container: Container::new(args)?,
            home: harness::tempdir(),
            path: std::env::var("PATH")? + ":/usr/sbin:/sbin",
        };
        let bundle = user.container.bundle.dir.clone();
        for dir in [&user.home, &bundle, &harness_dir(&user.container.root)] {
            harness::give(dir, UID)?;
        }
        fs::set_permissions(&user.home, fs::Permissions::from_mode(0o700))?;
        fs::remove_file(bundle.join("config.json"))?;
        user.call(&["spec", "--rootless", "--bundle", "%"])?.ok()?;
        user.container.bundle.config = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
        user.set("/process/terminal", false.into())?
            .set("/process/args", json!(args))?
            .set("/root/readonly", false.into())?;
        Ok(user)
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> Result<&mut Self> {
        self.container.set(pointer, value)?;
        Ok(self)
    }

    pub fn push(&mut self, pointer: &str, value: Value) -> Result<&mut Self> {
        self.container.push(pointer, value)?;
        Ok(self)
    }

    /// The runtime as this user calls it.
    pub fn command(&self, args: &[&str]) -> Command {
        self.lower(&self.container.command(args))
    }

    /// The user's own call of a program, with nothing in its environment that is not the user's.
    pub fn lower(&self, program: &Command) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={UID}"), format!("--regid={UID}")])
            .args(["--clear-groups", "--", "env", "-i"])
            .arg(format!("PATH={}", self.path))
            .arg(format!("HOME={}", self.home.display()))
            .arg(format!("XDG_RUNTIME_DIR={}", self.home.display()))
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(std::process::Stdio::null());
        command
    }

    pub fn call(&self, args: &[&str]) -> Result<Ran> {
        to_the_end(self.command(args))
    }

    pub fn run(&self) -> Result<Ran> {
        self.call(&["run", "--bundle", "%", "@"])
    }

    pub fn create(&self) -> Result<()> {
        let mut create = self.command(&["create", "--bundle", "%", "@"]);
        create.stdin(std::process::Stdio::null());
        self.container.create_with(create)
    }

    pub fn up(&self) -> Result<()> {
        self.create()?;
        self.call(&["start", "@"])?.ok().map(drop)
    }

    pub fn status(&self) -> Result<String> {
        let state: Value = serde_json::from_str(&self.call(&["state", "@"])?.ok()?)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    /// `run` must fail with all these words in its one line, and nothing may be left.
    pub fn refused(&self, words: &[&str]) -> Result<()> {
        let fault = self.run()?.fault()?;
        says_all(&fault, words)?;
        ensure!(fault.trim().lines().count() == 1, "not one line: {fault}");
        self.container.nothing_left()
    }

    /// Deletes by force, after which nothing is left.
    pub fn leave(&self) -> Result<()> {
        let init = self.container.pid().unwrap_or(0);
        self.call(&["delete", "--force", "@"])?.ok()?;
        if init > 0 {
            let flags = nix::sys::wait::WaitPidFlag::WNOHANG;
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(init), Some(flags));
        }
        self.container.nothing_left()
    }
}

/// The directory of the test that holds the runtime's.
fn harness_dir(root: &Path) -> PathBuf {
    root.parent().unwrap_or(root).to_path_buf()
}

fn the_config_of_spec_runs_as_it_is() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::idle()?;
    let bundle = &user.container.bundle.dir;
    fs::remove_file(bundle.join("config.json"))?;
    user.call(&["spec", "--rootless", "-b", "%"])?.ok()?;
    ensure_eq!(fs::metadata(bundle.join("config.json"))?.uid(), UID);
    let (master, mut child) = on_a_terminal(&user.command(&["run", "--bundle", "%", "@"]), 24, 80)?;
    use std::io::Write;
    fs::File::from(master.try_clone()?).write_all(b"id -u; tty; hostname; touch /x; echo EN''D; exit 5\r")?;
    let said = read_until(&master, "END")?;
    says_all(
        &said,
        &["\n0\n", "/dev/pts/0\n", "condo\n", "Read-only file system"],
    )?;
    ensure_eq!(child.wait()?.code(), Some(5));
    user.container.nothing_left()
}

fn a_container_runs_as_its_user() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let script = "id -u; id -g; cat /proc/self/uid_map | tr -s ' '; touch /made; cat /proc/1/comm; echo x > /dev/null; \
        test -c /dev/urandom && echo devices; mount | grep -c mqueue; exit 7";
    let user = User::sh(script)?;
    let ran = user.run()?;
    ensure_eq!(ran.code(), 7);
    ensure_eq!(ran.out, format!("0\n0\n 0 {UID} 1\nsh\ndevices\n1\n"));
    let made = fs::metadata(user.container.bundle.rootfs().join("made"))?;
    ensure_eq!((made.uid(), made.gid()), (UID, UID));
    user.container.nothing_left()
}

fn clocks_are_its_own() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    let offsets = json!({"boottime": {"secs": 1_000_000}});
    user.container
        .push("/linux/namespaces", json!({"type": "time"}))?
        .set("/linux/timeOffsets", offsets)?;
    user.up()?;
    let seconds = |text: &str| text.split('.').next().unwrap_or_default().parse::<u64>();
    let outside = seconds(&fs::read_to_string("/proc/uptime")?)?;
    let inside = seconds(&user.call(&["exec", "@", "cat", "/proc/uptime"])?.ok()?)?;
    ensure!(inside >= outside + 1_000_000, "{inside} {outside}");
    Ok(())
}

fn all_commands_work_without_a_cgroup() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::idle()?;
    user.up()?;
    ensure_eq!(user.status()?, "running");
    let listed = user.call(&["list"])?.ok()?;
    ensure!(
        listed.contains(&user.container.id) && listed.contains(&format!("#{UID}")),
        "{listed}"
    );
    ensure_eq!(user.call(&["exec", "@", "echo", "inside"])?.ok()?, "inside\n");
    for command in [
        &["pause", "@"][..],
        &["update", "--memory", "64M", "@"],
        &["events", "--stats", "@"],
    ] {
        let fault = user.call(command)?.fault()?;
        ensure!(fault.contains("without a cgroup"), "{fault}");
    }
    let pids = user.call(&["ps", "--format", "json", "@"])?.ok()?;
    ensure_eq!(pids, format!("[{}]", user.container.pid()?));
    ensure!(user.call(&["ps", "@"])?.ok()?.contains("sleep 100000"));
    ensure!(user.call(&["delete", "@"])?.fault()?.contains("not stopped"));
    user.call(&["kill", "@", "KILL"])?.ok()?;
    super::until("it stops", || Ok(user.status()? == "stopped"))?;
    user.call(&["delete", "@"])?.ok()?;
    user.container.nothing_left()
}

fn a_process_of_exec_is_its_user_too() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    user.set("/process/oomScoreAdj", 500.into())?;
    user.up()?;
    ensure_eq!(user.call(&["exec", "@", "id", "-u"])?.ok()?, "0\n");
    ensure_eq!(
        user.call(&[
            "exec",
            "@",
            "cat",
            "/proc/1/oom_score_adj",
            "/proc/self/oom_score_adj"
        ])?
        .ok()?,
        "500\n500\n"
    );
    let fault = user.call(&["exec", "--user", "1", "@", "id"])?.fault()?;
    ensure!(
        fault.contains("process.user.uid: `1` is not in `linux.uidMappings`"),
        "{fault}"
    );
    let fault = user.call(&["exec", "-g", "0", "@", "id"])?.fault()?;
    ensure!(fault.contains("process.user.additionalGids"), "{fault}");
    let (master, mut child) = on_a_terminal(
        &user.command(&["exec", "--tty", "@", "sh", "-c", "tty; echo END"]),
        24,
        80,
    )?;
    ensure!(read_until(&master, "END")?.contains("/dev/pts/"));
    child.wait()?;
    user.leave()
}

/// Init is hidden then, from its own user as well: it hands out its namespaces itself, and nothing else.
fn exec_is_let_in_before_the_start() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    let namespaces = [
        "exec",
        "@",
        "sh",
        "-c",
        "cd /proc/self/ns; for n in *; do readlink $n; done",
    ];
    user.create()?;
    let before = user.call(&namespaces)?.ok()?;
    ensure_eq!(user.call(&["exec", "--user", "0", "@", "id", "-u"])?.ok()?, "0\n");
    let spied = user.call(&["exec", "@", "sh", "-c", "cat /proc/1/environ; ls /proc/1/fd/"])?;
    ensure!(spied.code() != 0 && spied.out.is_empty(), "{spied:?}");
    ensure_eq!(user.status()?, "created");
    user.call(&["start", "@"])?.ok()?;
    ensure_eq!(user.call(&namespaces)?.ok()?, before);
    let own = fs::read_link("/proc/self/ns/user")?;
    ensure!(!before.contains(&own.display().to_string()), "{before}");
    let left: Vec<_> = fs::read_dir(user.container.root.join(&user.container.id))?.collect();
    ensure!(!format!("{left:?}").contains(".sock"), "{left:?}");
    user.leave()?;
    // Under a filter it would have to answer by system calls that may be forbidden.
    let agent = user.home.join("agent");
    let _agent = UnixListener::bind(&agent)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o666))?;
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent,
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    user.set("/linux/seccomp", filter)?;
    user.create()?;
    let fault = user.call(&["exec", "@", "true"])?.fault()?;
    says_all(
        &fault,
        &["has not been started", "agent", "start the container first"],
    )?;
    user.leave()
}

fn the_user_s_directory_is_the_default_and_private() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::idle()?;
    let mut create = Command::new(harness::condo_runtime());
    create
        .arg("run")
        .arg("--detach")
        .arg("--bundle")
        .arg(&user.container.bundle.dir)
        .arg("here");
    to_the_end(user.lower(&create))?.ok()?;
    let root = user.home.join("condo-runtime");
    let mode = |path: &Path| -> Result<u32> { Ok(fs::metadata(path)?.mode() & 0o7777) };
    ensure_eq!(mode(&root)?, 0o1700);
    ensure_eq!(mode(&root.join("here"))?, 0o700);
    for entry in fs::read_dir(root.join("here"))? {
        let entry = entry?;
        let found = entry.metadata()?;
        ensure!(
            found.mode() & 0o022 == 0 && found.uid() == UID,
            "{entry:?}: {found:?}"
        );
    }
    let mut delete = Command::new(harness::condo_runtime());
    delete.args(["delete", "--force", "here"]);
    to_the_end(user.lower(&delete))?.ok()?;
    ensure_eq!(fs::read_dir(&root)?.count(), 0);
    Ok(())
}

fn without_a_runtime_directory_the_way_out_is_named() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::idle()?;
    let mut list = Command::new("env");
    list.args(["-u", "XDG_RUNTIME_DIR"])
        .arg(harness::condo_runtime())
        .arg("list");
    let fault = to_the_end(user.lower(&list))?.fault()?;
    says_all(
        &fault,
        &["--root", "XDG_RUNTIME_DIR is not set", "/run/user/12345"],
    )
}

fn limits_that_nobody_could_hold_are_refused() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    user.set("/linux/resources", json!({"memory": {"limit": 67_108_864}}))?;
    user.refused(&[
        "linux.resources.memory",
        "user 12345 may not make the cgroup",
        "Delegate=yes",
    ])?;
    // Rules for devices are no limit: the devices that are there are all there can be.
    user.set(
        "/linux/resources",
        json!({"devices": [{"allow": false, "access": "rwm"}]}),
    )?;
    user.set("/process/args", json!(["true"]))?.run()?.ok()?;
    // Strict: no cgroup, no container.
    let fault = user
        .call(&["--rootless=false", "run", "--bundle", "%", "@"])?
        .fault()?;
    ensure!(
        fault.contains("cgroup") && fault.contains("permission denied"),
        "{fault}"
    );
    user.container.nothing_left()
}

fn what_takes_privileges_is_refused_by_name() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let mut user = User::idle()?;
    let plain = user.container.bundle.config.clone();
    let cases = [
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices"),
        (
            "/process/user/additionalGids",
            json!([0]),
            "process.user.additionalGids",
        ),
        ("/process/user/uid", json!(1), "process.user.uid: `1`"),
        (
            "/mounts/2/options",
            json!(["newinstance", "gid=5"]),
            "mounts[2].options: `gid=5`",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "pid"}]),
            "linux.namespaces: `user` is missing",
        ),
        (
            "/mounts/1",
            json!({"destination": "/m", "type": "bind", "source": "/tmp", "options": ["rbind", "idmap"]}),
            "mounts[1]: an id-mapped mount",
        ),
        ("/process/oomScoreAdj", json!(-500), "process.oomScoreAdj"),
        ("/process/rlimits/0/hard", json!(1u64 << 40), "RLIMIT_NOFILE"),
    ];
    for (pointer, value, word) in cases {
        user.container.bundle.config = plain.clone();
        user.set(pointer, value)?;
        user.refused(&[word])?;
    }
    Ok(())
}

/// What root inside may not do to what belongs to others outside.
fn there_is_no_power_over_the_host() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let secret = harness::tempdir();
    fs::write(secret.join("file"), "secret")?;
    fs::set_permissions(secret.join("file"), fs::Permissions::from_mode(0o600))?;
    let script = "cat /host/file; echo x > /host/new; chown 0:0 /host/file; mknod /node c 1 3; echo 1 > /proc/sys/vm/drop_caches; \
        hostname elsewhere; kill -0 1 && echo own; date -s 2001-01-01 >/dev/null; echo END";
    let mut user = User::sh(script)?;
    user.push(
        "/mounts",
        json!({"destination": "/host", "type": "bind", "source": secret, "options": ["rbind"]}),
    )?;
    let all = [
        "CAP_SYS_ADMIN",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_MKNOD",
        "CAP_SYS_TIME",
        "CAP_KILL",
    ];
    for set in ["bounding", "effective", "permitted"] {
        user.set(&format!("/process/capabilities/{set}"), json!(all))?;
    }
    let before = nix::unistd::gethostname()?;
    let ran = user.run()?;
    ensure!(
        !ran.out.contains("secret") && ran.out.ends_with("own\nEND\n"),
        "{ran:?}"
    );
    for (denied, times) in [("ermission denied", 2), ("not permitted", 3)] {
        ensure!(ran.err.matches(denied).count() >= times, "{denied}: {ran:?}");
    }
    ensure_eq!(fs::read_dir(&secret)?.count(), 1);
    ensure!(!user.container.bundle.rootfs().join("node").exists());
    ensure_eq!(nix::unistd::gethostname()?, before);
    Ok(())
}

fn locked_mounts_stay_as_they_are() -> Result<()> {
    use nix::mount::{MsFlags, mount};
    needs!(root, userns, ours, setpriv);
    harness::private_mounts()?;
    let dir = harness::tempdir();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), flags, Some("mode=777"))?;
    let mut user = User::sh("grep ' /m ' /proc/mounts | cut -d' ' -f4")?;
    let bind =
        |options: &[&str]| json!({"destination": "/m", "type": "bind", "source": dir, "options": options});
    user.push("/mounts", bind(&["rbind", "rprivate", "ro", "atime"]))?;
    let options = user.run()?.ok()?;
    let options: Vec<_> = options.trim().split(',').collect();
    for kept in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        ensure!(options.contains(&kept), "{kept}: {options:?}");
    }
    user.set("/mounts/7", bind(&["rbind", "dev", "suid"]))?;
    user.refused(&["mounts[7].options: `suid,dev` cannot be had"])?;
    user.set("/mounts/7", bind(&["rbind", "relatime"]))?;
    user.refused(&["mounts[7].options: `atime` cannot be had"])
}

fn the_host_s_sys_is_there_and_not_writable() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::sh(
        "test -d /sys/kernel && echo there; test -d /sys/class/net/lo && echo lo; mkdir /sys/fs/cgroup/x || echo no",
    )?;
    ensure_eq!(user.run()?.ok()?, "there\nlo\nno\n");
    Ok(())
}

/// CVE-2019-5736, with a program that belongs to the user, who is root inside.
fn the_program_s_file_is_out_of_reach() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let user = User::sh("echo overwritten > /proc/self/exe")?;
    let program = user.home.join("condo-runtime");
    fs::copy(harness::condo_runtime(), &program)?;
    chown(&program, Some(UID), Some(UID))?;
    let before = fs::read(&program)?;
    let mut create = Command::new(&program);
    create
        .arg("--root")
        .arg(&user.container.root)
        .args(["create", "--bundle"]);
    create.arg(&user.container.bundle.dir).arg(&user.container.id);
    user.container.create_with(user.lower(&create))?;
    // Until start, init is this program: its file must be another that takes no writer.
    let init = PathBuf::from(format!("/proc/{}/exe", user.container.pid()?));
    let shown = fs::read_link(&init)?.display().to_string();
    ensure!(shown.starts_with("/memfd:condo-runtime"), "{shown}");
    let sealed = fs::OpenOptions::new()
        .write(true)
        .open(&init)
        .and_then(|mut file| {
            use std::io::Write;
            file.write_all(b"overwritten")
        });
    ensure!(sealed.is_err(), "the program could be written to");
    user.leave()?;
    ensure!(fs::read(&program)? == before, "the program was changed");
    Ok(())
}

fn a_user_namespace_is_joined_by_path() -> Result<()> {
    needs!(root, userns, ours, setpriv);
    let first = User::idle()?;
    first.up()?;
    let pid = first.container.pid()?;
    let mut second = User::sh(
        "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/ipc; cat /proc/self/oom_score_adj",
    )?;
    let namespaces = json!([
        {"type": "user", "path": format!("/proc/{pid}/ns/user")}, {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")},
        {"type": "mount"}, {"type": "pid"}, {"type": "uts"},
    ]);
    second
        .set("/linux/namespaces", namespaces)?
        .set("/process/oomScoreAdj", 600.into())?;
    // The maps are the other's.
    for list in ["uidMappings", "gidMappings"] {
        second.container.bundle.config["linux"]
            .as_object_mut()
            .map(|linux| linux.remove(list));
    }
    second.container.bundle.write()?;
    let said = second.run()?.ok()?;
    let ns = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    ensure_eq!(
        said,
        format!("0\n{}\n{}\n600\n", ns("user")?.display(), ns("ipc")?.display())
    );
    first.leave()
}
