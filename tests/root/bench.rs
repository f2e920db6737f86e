//! Speed next to other runtimes, from the config that `runc spec` writes (where runc is not installed, from the tests' own, which is
//! modelled on it): wall time of a container's whole life in one command and in three, of a program in a running container, and of
//! the program itself. The runtimes take turns, round by round, so that whatever else the machine does falls on all of them alike.

pub mod figures;
pub mod network;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use figures::Figure;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use crate::harness::{self, Bundle};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// `run` of a program that ends at once.
    Run,
    /// The same with what Docker asks for.
    Engine,
    /// `create`, `start` and `delete` of one.
    Steps,
    /// `exec` of one in a container that runs.
    Exec,
    /// `--version`.
    Version,
}

const WORKS: [Work; 5] = [Work::Run, Work::Engine, Work::Steps, Work::Exec, Work::Version];

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run /bin/true",
            Self::Engine => "run /bin/true with a filter, as Docker asks for it",
            Self::Steps => "create, start, delete /bin/true",
            Self::Exec => "exec /bin/true",
            Self::Version => "--version",
        }
    }
}

struct Contestant {
    name: String,
    program: PathBuf,
    /// Whether it does nothing but [`Work::Run`].
    only_runs: bool,
    /// For each of [`WORKS`].
    times: [Vec<Duration>; WORKS.len()],
}

/// Measures `rounds` rounds of each runtime that is here, prints a table, and writes and draws the results.
pub fn main(rounds: usize) -> anyhow::Result<()> {
    let dir = PathBuf::from(format!("/tmp/condo-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let result = only_v1().and_then(|()| harness::in_dir(&dir, || measure(rounds)));
    std::fs::remove_dir_all(&dir)?;
    result
}

/// crun refuses hosts that mount cgroup2 beside v1 controllers: hide it, for all alike, in a mount namespace of our own.
fn only_v1() -> anyhow::Result<()> {
    let unified = "/sys/fs/cgroup/unified";
    if Path::new(unified).is_dir() {
        harness::private_mounts()?;
        umount2(unified, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

fn measure(rounds: usize) -> anyhow::Result<()> {
    let mut contestants = vec![Contestant::new(harness::condo_runtime())];
    let rivals = ["crun", "runc", "youki"].into_iter().filter_map(harness::program);
    contestants.extend(rivals.map(Contestant::new));
    let mut bundle = Bundle::new(&["/bin/true"])?;
    take_config_of_runc(&mut bundle)?;
    static_true(&bundle)?;
    contestants.extend(floor()?);
    let asked = as_docker_asks(&bundle)?;
    let long = Bundle::new(&["/bin/sleep", "1000"])?;
    for contestant in contestants.iter().filter(|c| !c.only_runs) {
        contestant.call(
            &bundle,
            &[
                "run",
                "--detach",
                "--bundle",
                &path(&long.dir),
                &contestant.id("long"),
            ],
        )?;
    }
    // One round more than is counted: the first fills caches.
    let measured = (0..=rounds).try_for_each(|round| {
        for (at, work) in WORKS.into_iter().enumerate() {
            let bundle = if work == Work::Engine { &asked } else { &bundle };
            for contestant in contestants.iter_mut().filter(|c| c.does(work)) {
                let time = contestant.work(work, bundle, round)?;
                if round > 0 {
                    contestant.times[at].push(time);
                }
            }
        }
        Ok(())
    });
    for contestant in contestants.iter().filter(|c| !c.only_runs) {
        contestant.call(&bundle, &["delete", "--force", &contestant.id("long")])?;
    }
    measured.and_then(|()| report(&contestants, rounds))?;
    nothing_left(&asked, &contestants)?;
    nothing_left(&bundle, &contestants)
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Contestant {
    fn new(program: PathBuf) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        Self {
            name: name.into_owned(),
            program,
            only_runs: false,
            times: Default::default(),
        }
    }

    fn does(&self, work: Work) -> bool {
        !self.only_runs || work == Work::Run
    }

    /// Of one of its containers.
    fn id(&self, which: &str) -> String {
        format!("{}{}-{which}", own_ids(), self.name)
    }

    fn call(&self, bundle: &Bundle, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(bundle.dir.join(&self.name)).args(args);
        // A container that stays would hold a pipe open, whose end is waited for.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let status = command.status()?;
        anyhow::ensure!(status.success(), "{} {args:?}: {status}", self.name);
        Ok(())
    }

    fn work(&self, work: Work, bundle: &Bundle, round: usize) -> anyhow::Result<Duration> {
        let id = self.id(&round.to_string());
        let place = path(&bundle.dir);
        let start = Instant::now();
        match work {
            Work::Run | Work::Engine => self.call(bundle, &["run", "--bundle", &place, &id])?,
            Work::Steps => {
                self.call(bundle, &["create", "--bundle", &place, &id])?;
                self.call(bundle, &["start", &id])?;
                self.call(bundle, &["delete", "--force", &id])?;
            }
            Work::Exec => self.call(bundle, &["exec", &self.id("long"), "/bin/true"])?,
            Work::Version => self.call(bundle, &["--version"])?,
        }
        Ok(start.elapsed())
    }

    fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

/// The config of `runc spec`, with the program exchanged and without a terminal.
fn take_config_of_runc(bundle: &mut Bundle) -> anyhow::Result<()> {
    let Some(runc) = harness::program("runc") else {
        return Ok(());
    };
    let dir = harness::tempdir();
    harness::run(Command::new(runc).args(["spec", "--bundle"]).arg(&dir))?;
    bundle.config = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
    bundle.config["process"]["terminal"] = false.into();
    bundle.config["process"]["args"] = serde_json::json!(["/bin/true"]);
    bundle.write()
}

/// A bundle with the same root, and the capabilities, files and limits that Docker gives every container, and a filter as long as its own.
fn as_docker_asks(bundle: &Bundle) -> anyhow::Result<Bundle> {
    let dir = harness::tempdir();
    let mut asked = Bundle {
        config: bundle.config.clone(),
        dir,
    };
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
        "CAP_AUDIT_WRITE",
    ]);
    for set in ["bounding", "effective", "permitted"] {
        asked.set(&format!("/process/capabilities/{set}"), capabilities.clone())?;
    }
    asked.config["root"] = json!({ "path": bundle.rootfs(), "readonly": false });
    let filter: Value = serde_json::from_str(include_str!("../data/seccomp-allow-list.json"))?;
    asked.set("/linux/seccomp", filter)?;
    asked.set("/linux/resources/memory", json!({ "limit": 256 << 20 }))?;
    asked.set("/linux/resources/pids", json!({ "limit": 100 }))?;
    asked.set("/linux/resources/cpu", json!({ "shares": 1024 }))?;
    for file in ["hosts", "hostname", "resolv.conf"] {
        let source = asked.dir.join(file);
        std::fs::write(&source, "")?;
        let mount = json!({
            "destination": format!("/etc/{file}"), "type": "bind", "source": source, "options": ["rbind", "rprivate"],
        });
        let mounts = asked.config["mounts"].as_array_mut();
        mounts.context("mounts")?.push(mount);
    }
    asked.write()?;
    Ok(asked)
}

/// The smallest program there is, where a C compiler can make it; busybox's stays otherwise.
fn static_true(bundle: &Bundle) -> anyhow::Result<()> {
    let source = bundle.dir.join("true.c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let program = bundle.dir.join("true");
    if compiled(&source, &program)? {
        std::fs::rename(program, bundle.rootfs().join("bin/true"))?;
    }
    Ok(())
}

/// What the kernel takes for the same work, where a C compiler is.
fn floor() -> anyhow::Result<Option<Contestant>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor/run.c");
    let program = harness::tempdir().join("floor");
    let floor = |program| Contestant {
        only_runs: true,
        ..Contestant::new(program)
    };
    Ok(compiled(&source, &program)?.then(|| floor(program)))
}

/// Makes a static program of C, where a compiler is.
fn compiled(source: &Path, program: &Path) -> anyhow::Result<bool> {
    let Some(cc) = harness::program("cc") else {
        return Ok(false);
    };
    let mut cc = Command::new(cc);
    harness::run(cc.args(["-static", "-O2", "-o"]).arg(program).arg(source))?;
    Ok(true)
}

/// No container of condo's has left a state or a cgroup. What a rival left is removed: crun makes directories and files in the tmpfs that
/// shows where cgroup2 was, and leaves them.
fn nothing_left(bundle: &Bundle, contestants: &[Contestant]) -> anyhow::Result<()> {
    let names = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let hierarchies = names(Path::new("/sys/fs/cgroup"));
    for (index, contestant) in contestants.iter().enumerate() {
        let mut left = names(&bundle.dir.join(&contestant.name));
        let id = format!("{}{}-", own_ids(), contestant.name);
        let of_its = |path: &PathBuf| path.to_string_lossy().contains(&id);
        left.extend(hierarchies.iter().flat_map(|h| names(h)).filter(of_its));
        anyhow::ensure!(index > 0 || left.is_empty(), "left behind: {left:?}");
        left.iter().for_each(|path| drop(std::fs::remove_dir_all(path)));
    }
    Ok(())
}

/// What the ids of all our containers begin with.
fn own_ids() -> String {
    format!("bench-{}-", std::process::id())
}

fn report(contestants: &[Contestant], rounds: usize) -> anyhow::Result<()> {
    let about = json!({ "machine": machine()?, "rounds": rounds, "versions": versions(contestants) });
    let mut works = Vec::new();
    for (at, work) in WORKS.into_iter().enumerate() {
        let figures = contestants.iter().filter(|c| c.does(work)).map(|contestant| {
            let times = contestant.times[at].iter();
            let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
            Figure::of(&contestant.name, &mut times)
        });
        works.push(figures::Work {
            name: work.name().to_owned(),
            figures: figures.collect(),
        });
    }
    figures::keep(
        "containers",
        "A container's life next to other runtimes'",
        about,
        &works,
    )
}

fn versions(contestants: &[Contestant]) -> Value {
    let versions = contestants
        .iter()
        .filter(|c| !c.only_runs)
        .map(|c| (c.name.clone(), c.version().into()));
    Value::Object(versions.collect())
}

/// What the figures depend on.
fn machine() -> anyhow::Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let load = read("/proc/loadavg")?;
    Ok(json!({
        "kernel": read("/proc/sys/kernel/osrelease")?.trim().split('-').next(),
        "processors": std::thread::available_parallelism()?.get(),
        "load_after": load.split(' ').next(),
        "cgroups": if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" },
    }))
}
