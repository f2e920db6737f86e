//! A machine within the machine for an engine and all it starts: process numbers, mounts and a network of its own, and one cgroup
//! for everything.
//!
//! A test runs in three processes, each the parent of the next: the one that the runner started waits, and clears the cgroups
//! away; PID 1 of the room reaps what daemons leave behind, and ends all of the room after the test; the test itself.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client::Client;
use crate::harness;
use crate::vps::house::{eventually, patience};

/// Which of the three a process is: unset, `init`, `test`.
const STAGE: &str = "CONDO_TEST_ROOM";
/// The room's cgroup; made outside, where process numbers are unique.
const CGROUP: &str = "CONDO_TEST_ROOM_CGROUP";
/// Engines come from Debian's packages ([`harness::ENGINES`]): no other build of one that a machine may have beside them.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The test's side of a room.
pub struct Room {
    /// For all files of the engine.
    pub dir: PathBuf,
    /// The cgroup below which it is to make its own, `/condo-<pid>-<n>`; beside systemd the cgroup of a slice,
    /// `/condo_<pid>_<n>.slice`. It is removed when the test is over.
    pub cgroup: String,
}

impl Room {
    /// Runs a test inside; its error comes with the ends of all logs.
    pub fn test(body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::walled(true, body)
    }

    /// The same for engines that have this machine's systemd make their cgroups: it has to understand their process numbers, and
    /// they have to find it.
    pub fn test_beside_systemd(body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::walled(false, body)
    }

    fn walled(alone: bool, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        match std::env::var(STAGE).as_deref() {
            Err(_) => outside(alone),
            Ok("init") => init(alone),
            Ok(_) => {
                let room = Self {
                    dir: harness::tempdir(),
                    cgroup: std::env::var(CGROUP)?,
                };
                std::fs::create_dir(room.dir.join("log"))?;
                body(&room).map_err(|e| e.context(room.logs()))
            }
        }
    }

    /// A program of this machine with nothing of the caller's environment. It ends by itself before the test's time is over.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &patience().as_secs().to_string(), program]);
        self.plain(&mut command);
        command
    }

    fn plain(&self, command: &mut Command) {
        command.env_clear().env("PATH", PATH).env("HOME", &self.dir);
        command.env("TMPDIR", &self.dir).current_dir(&self.dir);
    }

    /// A place for state of the engine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file of the engine.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))?;
        Ok(path.display().to_string())
    }

    /// A command line of an engine: `words` are its program and what says where its state is.
    pub fn client(&self, words: &[impl AsRef<str>]) -> Client<'_> {
        Client::new(self, words)
    }

    /// Starts a daemon and waits until it listens on `socket`; `words` are its command line.
    pub fn daemon(&self, words: &[&str], socket: &Path) -> Result<Daemon> {
        let (program, arguments) = words.split_first().context("no program")?;
        let name = (*program).to_owned();
        let log = std::fs::File::create(self.dir.join("log").join(&name))?;
        let mut command = Command::new(program);
        self.plain(&mut command);
        command.args(arguments).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut daemon = Daemon { child, name };
        eventually(&format!("`{program}` listens"), || {
            let ended = daemon.child.try_wait()?;
            ensure!(ended.is_none(), "`{program}` ended: {ended:?}");
            Ok(UnixStream::connect(socket).is_ok())
        })?;
        Ok(daemon)
    }

    /// Which ids of the machine users may hand out to containers (`subuid(5)`), for this room only.
    pub fn subordinate_ids(&self, lines: &str) -> Result<()> {
        for file in ["/etc/subuid", "/etc/subgid"] {
            std::fs::write(file, lines)?;
        }
        Ok(())
    }

    /// Whether systemd makes the cgroups.
    pub fn is_slice(&self) -> bool {
        self.cgroup.ends_with(".slice")
    }

    /// What to call the room's cgroup in an engine's `--cgroup-parent`: a path, or the name of a slice.
    pub fn cgroup_parent(&self) -> &str {
        match self.is_slice() {
            true => self.cgroup.trim_start_matches('/'),
            false => &self.cgroup,
        }
    }

    /// Which of the two an engine's configuration is to name, from one that names `cgroupfs`.
    pub fn with_driver(&self, text: &str) -> String {
        match self.is_slice() {
            true => text.replace("cgroupfs", "systemd"),
            false => text.to_owned(),
        }
    }

    /// All cgroups of the room: one for each hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroups(&self.cgroup)
    }

    /// The file of a cgroup's limit below the room's cgroup, found by its name in any hierarchy.
    pub fn limit(&self, below: &str, file: &str) -> Result<String> {
        let found = self
            .cgroups()
            .into_iter()
            .map(|dir| dir.join(below).join(file))
            .find(|f| f.exists());
        let found = found.with_context(|| format!("no `{file}` in a cgroup `{}/{below}`", self.cgroup))?;
        Ok(std::fs::read_to_string(found)?.trim().to_owned())
    }

    /// A cgroup below must be allowed this many microseconds of each tenth of a second.
    pub fn has_quota(&self, below: &str, expected: &str) -> Result<()> {
        let v2 = self
            .limit(below, "cpu.max")
            .map(|max| max.split(' ').next().unwrap_or_default().to_owned());
        let found = v2.or_else(|_| self.limit(below, "cpu.cfs_quota_us"))?;
        ensure!(
            found == expected,
            "the quota of `{below}` is {found} and not {expected}"
        );
        Ok(())
    }

    /// The last lines of what daemons and the runtime wrote.
    fn logs(&self) -> String {
        let mut text = String::new();
        for path in logs(&self.dir) {
            let log = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
            let last = &lines[lines.len().saturating_sub(25)..];
            text += &format!("-- {}\n{}\n", path.display(), last.join("\n"));
        }
        text
    }
}

/// The daemons' logs, and those that engines have the runtime write (`log.json` in a bundle).
fn logs(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = list(&dir.join("log")).map(|e| e.path()).collect();
    let mut dirs = vec![dir.to_path_buf(), "/run".into()];
    while let Some(dir) = dirs.pop() {
        for entry in list(&dir) {
            let name = entry.file_name();
            // What is in a container is not the engine's.
            if entry.file_type().is_ok_and(|t| t.is_dir()) && name != "rootfs" && name != "merged" {
                dirs.push(entry.path());
            } else if name == "log.json" {
                found.push(entry.path());
            }
        }
    }
    found
}

/// A daemon in the room.
pub struct Daemon {
    child: Child,
    name: String,
}

impl Daemon {
    /// Ends it the hard way.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, as a service manager does, and waits for that.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        let mut ended = None;
        eventually(&format!("`{}` ends", self.name), || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        let status = ended.context("no status")?;
        ensure!(status.success(), "`{}` ended with {status}", self.name);
        Ok(())
    }
}

/// Where Podman puts what cannot be told of another place (`podman play kube`).
const PODMANS: &str = "/libpod_parent";

/// The process that the runner started: makes the room and clears away after it.
fn outside(alone: bool) -> Result<()> {
    let mut cgroup = format!("/{}", harness::unique());
    if !alone {
        // A dash would put the slice into another.
        cgroup = cgroup.replace('-', "_") + ".slice";
    }
    let mut made = vec![cgroup.clone()];
    made.extend(cgroups(PODMANS).is_empty().then(|| PODMANS.to_owned()));
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    if alone {
        unshare(CloneFlags::CLONE_NEWPID)?;
    }
    let status = again("init").env(CGROUP, &cgroup).status()?;
    if let Some(slice) = cgroup.strip_prefix('/').filter(|_| !alone) {
        let _ = harness::run(Command::new("systemctl").args(["stop", slice]));
    }
    let cleared = eventually("the cgroups go", || {
        let gone = |path: &String| cgroups(path).iter().all(|dir| remove(dir));
        Ok(made.iter().all(gone))
    });
    ensure!(status.success(), "in the room: {status}");
    cleared
}

/// This test once more, as another of the three.
fn again(stage: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(std::env::args_os().skip(1)).env(STAGE, stage);
    command
}

/// PID 1 of the room, or what is like it.
fn init(alone: bool) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    furnish(alone)?;
    let cgroup = std::env::var(CGROUP)?;
    let test = again("test").spawn()?;
    let test = Pid::from_raw(test.id().try_into()?);
    let code = loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, code) if pid == test => break code,
            WaitStatus::Signaled(pid, signal, _) if pid == test => break 128 + signal as i32,
            _ => {}
        }
    };
    thaw(&cgroups(&cgroup));
    harness::kill_descendants();
    std::process::exit(code)
}

/// What an engine would find, and change, of the machine's is hidden: its mounts, its programs, its configuration, its state.
fn furnish(alone: bool) -> Result<()> {
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        nothing,
    )?;
    if alone {
        mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing)?;
    }
    let engines = engines()?;
    if let Some(usr) = engines.as_ref().map(|root| root.join("usr")) {
        overlay("/usr", &format!("lowerdir={}:/usr", usr.display()))?;
    }
    let [upper, work] = ["upper", "work"].map(|name| harness::tempdir().join(name));
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    // The machine's users stay; what it has no file for is the engines'.
    let below = engines.map_or_else(String::new, |root| format!(":{}", root.join("etc").display()));
    let above = format!("upperdir={},workdir={}", upper.display(), work.display());
    overlay("/etc", &format!("lowerdir=/etc{below},{above}"))?;
    // The machine's own engines are none of the room's; with systemd the rest of /run has to be in sight.
    let run: &[&str] = if alone {
        &["/run"]
    } else {
        &["/run/containerd", "/run/docker"]
    };
    let hidden = [&["/var/lib", "/opt"], run].concat();
    for dir in hidden.into_iter().filter(|dir| Path::new(dir).is_dir()) {
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )?;
    }
    condo::sys::interface::set_loopback_up()?;
    Ok(())
}

fn overlay(place: &str, layers: &str) -> Result<()> {
    let kind = Some("overlay");
    mount(kind, place, kind, MsFlags::empty(), Some(layers)).with_context(|| format!("{place}: {layers}"))
}

/// The root of a system that has the engines, where this machine need not have them.
fn engines() -> Result<Option<PathBuf>> {
    let Some(image) = std::env::var_os(harness::ENGINES) else {
        return Ok(None);
    };
    let root = harness::tempdir();
    // The loop device goes with the mount.
    harness::run(
        Command::new("mount")
            .args(["-o", "ro,loop"])
            .arg(image)
            .arg(&root),
    )?;
    Ok(Some(root))
}

/// A cgroup's directories in the hierarchies of this machine.
fn cgroups(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = hierarchies.map(|e| e.path()).collect();
    dirs.push(root.to_path_buf());
    let own = path.trim_start_matches('/');
    dirs.iter()
        .map(|dir| dir.join(own))
        .filter(|dir| dir.is_dir() && !dir.is_symlink())
        .collect()
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// A frozen process does not die.
fn thaw(dirs: &[PathBuf]) {
    for dir in dirs {
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            if dir.join(file).exists() {
                let _ = std::fs::write(dir.join(file), thawed);
            }
        }
        thaw(&below(dir));
    }
}

/// Removes a cgroup with those below; whether it is gone.
fn remove(dir: &Path) -> bool {
    below(dir).iter().all(|dir| remove(dir)) && (std::fs::remove_dir(dir).is_ok() || !dir.exists())
}
