//! An instance of condo for one test, and the look for what it left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use condo::cgroups::Cgroup;
use condo::host::CgroupLayout;
use condo::vps::record::folders::Folders;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness;
use crate::harness::reader::{self, Found};
use crate::image::Tar;

/// How long anything may take that should happen soon.
pub fn patience() -> Duration {
    Duration::from_secs(30 * harness::timeout_factor().clamp(1, 4))
}

/// Waits until `what` is so.
pub fn eventually(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    within(patience(), Duration::from_millis(20), what, is_so)
}

/// The same for as long as is said, with that pause between two looks.
pub fn within(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut is_so: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not after {patience:?}");
        std::thread::sleep(pause);
    }
    Ok(())
}

/// An instance. Command lines are words with blanks between.
pub struct House {
    pub root: PathBuf,
    folders: Folders,
    layout: CgroupLayout,
    /// What a finished instance may hold.
    furniture: BTreeSet<PathBuf>,
    left: bool,
}

impl House {
    /// A host whose network is a namespace of this test, with the image `busybox`.
    pub fn new() -> Result<Self> {
        Self::at(harness::tempdir().join("condo"))
    }

    /// As [`House::new`], with an image `quick`, whose init stops at once; busybox's own takes two seconds.
    pub fn quick() -> Result<Self> {
        let mut house = Self::new()?;
        house.import(
            "quick",
            "trap 'exit 0' TERM; while :; do busybox sleep 60 & wait $!; done",
        )?;
        Ok(house)
    }

    /// As [`House::new`], with its state at `root`.
    pub fn at(root: PathBuf) -> Result<Self> {
        needs!(root);
        unshare(CloneFlags::CLONE_NEWNET)?;
        condo::sys::interface::set_loopback_up()?;
        std::fs::create_dir_all(&root)?;
        let mut house = Self {
            folders: Folders::open(Some(&root))?,
            layout: CgroupLayout::probe()?,
            root,
            furniture: BTreeSet::new(),
            left: false,
        };
        house.ok("image build busybox")?;
        house.settle_in();
        Ok(house)
    }

    /// Takes in the image `debian-12` that `CONDO_TEST_DEBIAN_IMAGE` names; false where it names none.
    pub fn take_in_debian(&mut self) -> Result<bool> {
        let Some(image) = std::env::var_os("CONDO_TEST_DEBIAN_IMAGE").filter(|i| Path::new(i).is_dir())
        else {
            return Ok(false);
        };
        super::debian::settle(Path::new(&image), &self.root)?;
        self.settle_in();
        Ok(true)
    }

    /// What is here now is no leftover.
    pub fn settle_in(&mut self) {
        self.furniture = files(&self.root);
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(harness::condo());
        command.env("CONDO_ROOT", &self.root).stdin(Stdio::null());
        command
    }

    fn words(&self, line: &str) -> Command {
        let mut command = self.command();
        command.args(line.split_whitespace());
        command
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn ok(&self, line: &str) -> Result<String> {
        harness::run(&mut self.words(line))
    }

    /// Runs a command to its end, whatever that is.
    pub fn output(&self, line: &str) -> Result<Output> {
        Ok(self.words(line).output()?)
    }

    /// Starts a command and does not wait for it.
    pub fn spawn(&self, line: &str) -> Result<Child> {
        let mut command = self.words(line);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs a command that has to fail with one clear line that holds `needle`; the line.
    pub fn refused(&self, line: &str, needle: &str) -> Result<String> {
        let output = self.output(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output
            .status
            .code()
            .with_context(|| format!("`{line}` was killed"))?;
        ensure!((1..=2).contains(&code), "`{line}` ended with {code}: {said}");
        ensure!(output.stdout.is_empty(), "`{line}` printed on standard output");
        ensure!(
            said.lines().count() == 1 && said.starts_with("condo: "),
            "`{line}` does not say one line: {said}"
        );
        ensure!(said.contains(needle), "`{line}` does not say `{needle}`: {said}");
        Ok(said)
    }

    /// A running VPS of the image `busybox`, whose init has come up.
    pub fn running(&self, name: &str, options: &str) -> Result<()> {
        self.ok(&format!("create {name} --image busybox --start {options}"))?;
        self.up(name)
    }

    /// Waits until a VPS of the image `busybox` is ready.
    pub fn up(&self, name: &str) -> Result<()> {
        eventually("the init comes up", || {
            Ok(self
                .output(&format!("exec {name} -- test -d /run/lock"))?
                .status
                .success()
                && self.ok(&format!("logs {name}"))?.contains("Press Enter"))
        })
    }

    /// Runs a shell script in a VPS as it ends.
    pub fn try_sh(&self, name: &str, script: &str) -> Result<Output> {
        let mut command = self.command();
        Ok(command.args(["exec", name, "--", "sh", "-c", script]).output()?)
    }

    /// Runs a shell script in a VPS; what it printed, without blanks around.
    pub fn sh(&self, name: &str, script: &str) -> Result<String> {
        let mut command = self.command();
        let said = harness::run(command.args(["exec", name, "--", "sh", "-c", script]))?;
        Ok(said.trim().to_owned())
    }

    /// Runs a shell script that tells the init of a VPS to end or to boot again.
    ///
    /// The init ends all other processes first: the script may meet its SIGTERM or SIGKILL before it is through.
    pub fn sh_last(&self, name: &str, script: &str) -> Result<()> {
        let mut command = self.command();
        let output = command.args(["exec", name, "--", "sh", "-c", script]).output()?;
        ensure!(
            matches!(output.status.code(), Some(0 | 137 | 143)),
            "{script}: {output:?}"
        );
        Ok(())
    }

    /// Runs a shell script in a VPS in the background.
    pub fn sh_spawn(&self, name: &str, script: &str) -> Result<Child> {
        let mut command = self.command();
        command.args(["exec", name, "--", "sh", "-c", script]);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    pub fn show(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&format!("show --json {name}"))?)?)
    }

    pub fn list(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.ok("list --json")?)?)
    }

    pub fn status(&self, name: &str) -> Result<String> {
        Ok(self.show(name)?["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn address(&self, name: &str) -> Result<String> {
        Ok(self.show(name)?["address"]
            .as_str()
            .context("no address")?
            .to_owned())
    }

    /// Waits until a VPS is stopped and its end recorded and cleared away.
    pub fn ended(&self, name: &str) -> Result<Value> {
        eventually("the VPS ends", || {
            Ok(self.status(name)? == "stopped" && !self.run_of(name).exists())
        })?;
        Ok(self.show(name)?["last_exit"].clone())
    }

    /// Host pid of a VPS's init.
    pub fn init(&self, name: &str) -> Result<i32> {
        let pid = self.show(name)?["pid"].as_i64().context("it has no init")?;
        Ok(i32::try_from(pid)?)
    }

    /// Waits until a VPS has another init than `before`.
    pub fn boots_again(&self, name: &str, before: i32) -> Result<()> {
        eventually("it has booted again", || {
            let vps = self.show(name)?;
            Ok(vps["status"] == "running" && vps["pid"].as_i64() != Some(before.into()))
        })
    }

    /// Pid of a VPS's monitor.
    pub fn monitor(&self, name: &str) -> Result<i32> {
        let text = std::fs::read(self.run_of(name).join("monitor.json"))?;
        let identity: Value = serde_json::from_slice(&text)?;
        Ok(i32::try_from(identity["pid"].as_i64().context("no pid")?)?)
    }

    /// Ends a VPS's monitor the hard way.
    pub fn kill_monitor(&self, name: &str) -> Result<()> {
        let pid = self.monitor(name)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        eventually("the monitor is dead", || Ok(!alive(pid)))
    }

    pub fn run_of(&self, name: &str) -> PathBuf {
        self.root.join("run/vps").join(name)
    }

    /// The cgroup of a VPS.
    pub fn cgroup(&self, name: &str) -> Result<Cgroup> {
        Ok(Cgroup::open(&self.layout, &self.folders.cgroup(&name.parse()?))?)
    }

    /// The cgroup that the VPSs of a project share.
    pub fn project_cgroup(&self, name: &str) -> Result<Cgroup> {
        Ok(Cgroup::open(
            &self.layout,
            &self.folders.project_cgroup(&name.parse()?),
        )?)
    }

    /// The limits of a VPS as another implementation reads them.
    pub fn limits(&self, name: &str) -> Result<Found> {
        reader::read(&self.folders.cgroup(&name.parse()?))
    }

    /// Imports an image whose PID 1 is a shell script; busybox's applets are to be called as `busybox APPLET`.
    pub fn import(&mut self, name: &str, script: &str) -> Result<()> {
        self.import_program(name, format!("#!/bin/sh\n{script}\n").as_bytes())
    }

    /// As [`House::import`], with a program.
    pub fn import_program(&mut self, name: &str, program: &[u8]) -> Result<()> {
        let init = ("sbin/init".to_owned(), program.to_vec());
        self.import_files(name, &[init], "--stop-signal TERM")
    }

    /// Imports an image of busybox and these executable files, whose PID 1 is `/sbin/init`.
    pub fn import_files(&mut self, name: &str, files: &[(String, Vec<u8>)], options: &str) -> Result<()> {
        let archive = harness::tempdir().join("rootfs.tar");
        let mut tar = Tar::new().dir("./", 0o755);
        for dir in [
            "bin/",
            "dev/",
            "etc/",
            "etc/runit/",
            "lib/",
            "lib64/",
            "proc/",
            "root/",
            "run/",
            "sbin/",
            "sys/",
            "tmp/",
            "var/",
        ] {
            tar = tar.dir(dir, 0o755);
        }
        tar = tar
            .file("bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)
            .entry(b'2', "bin/sh", "busybox", b"");
        std::fs::write(&archive, tar.executables(files).end())?;
        let archive = archive.display();
        self.ok(&format!(
            "image import {archive} --name {name} --init /sbin/init {options}"
        ))?;
        self.settle_in();
        Ok(())
    }

    /// Deletes all VPSs; nothing may be left of them.
    pub fn leave(mut self) -> Result<()> {
        self.ok("delete --force --all")?;
        self.left = true;
        self.nothing_left()
    }

    /// Looks for everything a VPS could leave.
    pub fn nothing_left(&self) -> Result<()> {
        let mut found = Vec::new();
        eventually("nothing is left", || {
            found = self.traces()?;
            Ok(found.is_empty())
        })
        .with_context(|| format!("left: {found:?}"))
    }

    fn traces(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> = self.list()?.iter().map(|vps| format!("record {vps}")).collect();
        let new = files(&self.root)
            .difference(&self.furniture)
            .cloned()
            .collect::<Vec<_>>();
        found.extend(new.iter().map(|path| format!("file {}", path.display())));
        let root = self.root.to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        found.extend(
            mounts
                .lines()
                .filter(|l| l.contains(&format!("{root}/")))
                .map(Into::into),
        );
        let parent = self.folders.cgroup_parent();
        if Cgroup::open(&self.layout, &parent).is_ok() {
            found.push(format!("cgroup {parent}"));
        }
        for interface in nix::ifaddrs::getifaddrs()? {
            let name = interface.interface_name;
            if name.starts_with("condo")
                || name.starts_with(&format!("c{}", self.folders.mark().unwrap_or("-")))
            {
                found.push(format!("interface {name}"));
            }
        }
        if harness::has("program:nft") {
            let tables = harness::run(Command::new("nft").args(["list", "tables"]))?;
            found.extend(tables.lines().filter(|l| l.contains("condo")).map(Into::into));
        }
        found.extend(processes(&[root, parent])?);
        Ok(found)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if !self.left {
            let _ = self.output("delete --force --all");
        }
    }
}

/// Whether a process is there and no zombie.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// All processes whose arguments or cgroup name one of `marks`.
fn processes(marks: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        if pid == 0 || !alive(pid) {
            continue;
        }
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (arguments, cgroup) = (read("cmdline"), read("cgroup"));
        if marks.iter().any(|m| arguments.contains(m) || cgroup.contains(m)) {
            found.push(format!("process {pid} {arguments}"));
        }
    }
    Ok(found)
}

/// All paths below, but for what an instance keeps: its database, its locks, its events, the doctor's last findings and the
/// directories for VPSs.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let kept = [
        "run/vps",
        "run/runtime",
        "run/lock",
        "run/doctor.json",
        "lib/vps",
        "lib/events",
        "lib/events/log",
    ];
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                dirs.push(path.clone());
            }
            let own = path.strip_prefix(root).unwrap_or(&path);
            if !kept.iter().any(|k| own == Path::new(k))
                && !name.starts_with("condo.db")
                && !name.ends_with(".lock")
            {
                found.insert(own.to_path_buf());
            }
        }
    }
    found
}

/// Waits for a command's end and collects what it prints meanwhile.
pub fn finish(child: Child) -> Result<Output> {
    let pid = Pid::from_raw(child.id().try_into()?);
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(patience()) {
        Ok(output) => Ok(output?),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            bail!("a command did not end within {:?}", patience())
        }
    }
}

/// What a command said on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
