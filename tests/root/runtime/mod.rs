//! The OCI runtime by its command line, so that the same tests can be pointed at another one (`CONDO_RUNTIME=runc`).

pub mod apparmor;
pub mod binds;
pub mod budget;
pub mod capabilities;
pub mod checkpoint;
pub mod command_line;
pub mod config;
pub mod crash;
pub mod devices;
pub mod faults;
pub mod figures;
pub mod filters;
pub mod hooks;
pub mod hostile;
pub mod lifecycle;
pub mod managers;
pub mod namespaces;
pub mod notify;
pub mod priorities;
pub mod process;
pub mod reading;
pub mod refusals;
pub mod resources;
pub mod rootless;
pub mod security;
pub mod selinux;
pub mod signals;
pub mod systemd;
pub mod terminal;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{self, Bundle};

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output of a success.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status.success(), "{self:?}");
        Ok(self.out)
    }

    /// Standard error of a failure.
    pub fn fault(self) -> Result<String> {
        ensure!(!self.status.success(), "succeeded: {self:?}");
        Ok(self.err)
    }
}

/// A container to be or that is. What is left of it goes when this is dropped.
pub struct Container {
    pub id: String,
    pub bundle: Bundle,
    /// Where the runtime keeps its states.
    pub root: PathBuf,
    /// What the container's init writes to.
    files: (PathBuf, PathBuf),
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.root.join(&self.id).exists() {
            let _ = self.call(&["delete", "--force", "@"]);
        }
        // runc never removes it.
        let _ = fs::remove_dir(&self.root);
    }
}

impl Container {
    /// A container of busybox that runs `args`.
    pub fn new(args: &[&str]) -> Result<Self> {
        // Inits that outlive their runtime become children of this test.
        nix::sys::prctl::set_child_subreaper(true)?;
        let dir = harness::tempdir();
        Ok(Self {
            id: harness::unique(),
            bundle: Bundle::new(args)?,
            root: dir.join("state"),
            files: (dir.join("out"), dir.join("err")),
        })
    }

    /// One that runs a shell script.
    pub fn sh(script: &str) -> Result<Self> {
        Self::new(&["sh", "-c", script])
    }

    /// One that does nothing for long.
    pub fn idle() -> Result<Self> {
        Self::new(&["sleep", "100000"])
    }

    /// An idle one that has something of every kind to leave behind.
    pub fn littering() -> Result<Self> {
        let mut c = Self::idle()?;
        c.set("/hooks/createRuntime", json!([{"path": "/bin/true"}]))?
            .push(
                "/mounts",
                json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
            )?;
        Ok(c)
    }

    pub fn set(&mut self, pointer: &str, value: Value) -> Result<&mut Self> {
        self.bundle.set(pointer, value)?;
        Ok(self)
    }

    pub fn push(&mut self, pointer: &str, value: Value) -> Result<&mut Self> {
        self.bundle.push(pointer, value)?;
        Ok(self)
    }

    /// Gives it a user namespace whose root is user 100000 of the host.
    pub fn with_user_namespace(&mut self) -> Result<&mut Self> {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        self.push("/linux/namespaces", json!({"type": "user"}))?
            .set("/linux/uidMappings", map.clone())?
            .set("/linux/gidMappings", map)
    }

    /// Takes a namespace out of the config, or puts one with a path in its place.
    pub fn namespace(&mut self, kind: &str, path: Option<&Path>) -> Result<&mut Self> {
        let list = self.bundle.config["linux"]["namespaces"]
            .as_array_mut()
            .context("no namespaces")?;
        list.retain(|n| n["type"] != kind);
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
        self.bundle.write()?;
        Ok(self)
    }

    /// The runtime with arguments, in which `@` stands for the id and `%` for the bundle.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(harness::condo_runtime());
        command.arg("--root").arg(&self.root);
        for arg in args {
            match *arg {
                "@" => command.arg(&self.id),
                "%" => command.arg(&self.bundle.dir),
                arg => command.arg(arg),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn call(&self, args: &[&str]) -> Result<Ran> {
        to_the_end(self.command(args))
    }

    pub fn run(&self) -> Result<Ran> {
        self.call(&["run", "--bundle", "%", "@"])
    }

    pub fn exec(&self, args: &[&str]) -> Result<Ran> {
        self.call(&[&["exec"], args].concat())
    }

    /// Starts a further process, with these options of `exec`, in the background; it is this test's child, to be [`end`]ed.
    pub fn exec_detached(&self, options: &[&str], program: &[&str]) -> Result<i32> {
        let file = harness::tempdir().join("pid");
        let path = file.to_str().context("a path")?;
        let first = ["--detach", "--pid-file", path];
        self.exec(&[&first, options, &["@"], program].concat())?.ok()?;
        Ok(fs::read_to_string(&file)?.parse()?)
    }

    /// `create`; what init writes is in [`Container::printed`].
    pub fn create(&self) -> Result<()> {
        self.create_with(self.command(&["create", "--bundle", "%", "@"]))
    }

    pub fn create_with(&self, mut command: Command) -> Result<()> {
        let status = command
            .stdout(File::create(&self.files.0)?)
            .stderr(File::create(&self.files.1)?)
            .status()?;
        ensure!(status.success(), "create: {status}: {}", self.complained());
        Ok(())
    }

    pub fn start(&self) -> Result<()> {
        self.call(&["start", "@"])?.ok().map(drop)
    }

    /// Creates and starts.
    pub fn up(&self) -> Result<()> {
        self.create()?;
        self.start()
    }

    pub fn delete(&self) -> Result<()> {
        use nix::sys::wait::{WaitPidFlag, waitpid};
        let init = self.pid().unwrap_or(0);
        self.call(&["delete", "--force", "@"])?.ok()?;
        if init > 0 {
            // A subreaper owes it: the end of a pid namespace waits for all its processes to be reaped.
            let _ = waitpid(nix::unistd::Pid::from_raw(init), Some(WaitPidFlag::WNOHANG));
        }
        Ok(())
    }

    /// `delete --force` leaves nothing: no state, no cgroup, no process.
    pub fn cleared(&self) -> Result<()> {
        let pids = self.members();
        self.delete()?;
        self.nothing_left()?;
        until("its processes end", || Ok(!pids.iter().any(|pid| lives(*pid))))
    }

    /// The path of its cgroup: by its config, or what is chosen without.
    pub fn cgroup(&self) -> String {
        let named = self.bundle.config["linux"]["cgroupsPath"].as_str();
        named.map_or_else(|| format!("/{}", self.id), str::to_owned)
    }

    /// The directories of its cgroup, in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroups(&self.cgroup())
    }

    /// The processes in its cgroup, which may have outlived their runtime.
    pub fn members(&self) -> Vec<i32> {
        let texts = self
            .cgroups()
            .into_iter()
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        texts
            .flat_map(|t| t.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    pub fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.call(&["state", "@"])?.ok()?)?)
    }

    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn pid(&self) -> Result<i32> {
        let pid = self.state()?["pid"].as_i64().context("no pid")?;
        Ok(i32::try_from(pid)?)
    }

    /// What a created container wrote.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.files.0).unwrap_or_default()
    }

    pub fn complained(&self) -> String {
        fs::read_to_string(&self.files.1).unwrap_or_default()
    }

    /// Waits until it has stopped.
    pub fn stopped(&self) -> Result<()> {
        until("the container stops", || Ok(self.status()? == "stopped"))
    }

    /// `run` must fail with all these words in its one line, and nothing may be left.
    pub fn refused(&self, words: &[&str]) -> Result<()> {
        let ran = self.run()?;
        let fault = ran.fault()?;
        says_all(&fault, words)?;
        if harness::is_ours() {
            ensure!(fault.trim().lines().count() == 1, "not one line: {fault}");
        }
        self.nothing_left()
    }

    /// No state, no cgroup. (Mounts and processes are the harness's to find.)
    pub fn nothing_left(&self) -> Result<()> {
        ensure!(!self.root.join(&self.id).exists(), "the state is left");
        let found = self.cgroups();
        ensure!(found.is_empty(), "cgroups are left: {found:?}");
        Ok(())
    }
}

/// Where a cgroup of this path is, in all hierarchies.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    if !roots[0].join("cgroup.controllers").exists() {
        let below = fs::read_dir(&roots[0]).into_iter().flatten().flatten();
        roots = below.map(|e| e.path()).collect();
    }
    let places = roots.iter().map(|r| r.join(path.trim_start_matches('/')));
    places.filter(|p| p.is_dir()).collect()
}

/// Runs a program to its end, with its output in files: a pipe would be held open by a container that goes on.
pub fn to_the_end(mut command: Command) -> Result<Ran> {
    let dir = harness::tempdir();
    let (out, err) = (dir.join("out"), dir.join("err"));
    let status = command
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?)
        .status()?;
    let read = |path| -> Result<String> { Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned()) };
    Ok(Ran {
        status,
        out: read(&out)?,
        err: read(&err)?,
    })
}

/// A text must hold all these words.
pub fn says_all(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in: {text}");
    }
    Ok(())
}

/// Waits for something that is to happen by itself.
pub fn until(what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20 * harness::timeout_factor());
    while !happened()? {
        ensure!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends a detached process of `exec`, which is this test's child: until it is waited for, its container's init cannot go.
pub fn end(pid: i32) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL)?;
    nix::sys::wait::waitpid(pid, None)?;
    Ok(())
}

/// Whether a process is there and not a zombie.
pub fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

macro_rules! ensure_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => anyhow::ensure!(left == right, "{left:?} is not {right:?}"),
        }
    };
}
pub(crate) use ensure_eq;
