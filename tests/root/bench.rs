//! Speed next to other runtimes, from the config that `runc spec` writes (where runc is not installed, from the tests' own, which is
//! modelled on it): wall time of a container's whole life in one command and in three, of a program in a running container, and of
//! the program itself. The runtimes take turns, round by round, so that whatever else the machine does falls on all of them alike.

pub mod network;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use crate::harness::{self, Bundle};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// `run` of a program that ends at once.
    Run,
    /// `create`, `start` and `delete` of one.
    Steps,
    /// `exec` of one in a container that runs.
    Exec,
    /// `--version`.
    Version,
}

const WORKS: [Work; 4] = [Work::Run, Work::Steps, Work::Exec, Work::Version];

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run /bin/true",
            Self::Steps => "create, start, delete /bin/true",
            Self::Exec => "exec /bin/true",
            Self::Version => "--version",
        }
    }
}

struct Contestant {
    name: String,
    program: PathBuf,
    /// For each of [`WORKS`].
    times: [Vec<Duration>; WORKS.len()],
}

/// Measures `rounds` rounds of each runtime that is here, prints a table, and writes `benches/results.json`.
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
    let long = Bundle::new(&["/bin/sleep", "1000"])?;
    for contestant in &contestants {
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
            for contestant in &mut contestants {
                let time = contestant.work(work, &bundle, round)?;
                if round > 0 {
                    contestant.times[at].push(time);
                }
            }
        }
        Ok(())
    });
    for contestant in &contestants {
        contestant.call(&bundle, &["delete", "--force", &contestant.id("long")])?;
    }
    measured.and_then(|()| report(&mut contestants, rounds))?;
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
            times: Default::default(),
        }
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
            Work::Run => self.call(bundle, &["run", "--bundle", &place, &id])?,
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

/// The smallest program there is, where a C compiler can make it; busybox's stays otherwise.
fn static_true(bundle: &Bundle) -> anyhow::Result<()> {
    let Some(cc) = harness::program("cc") else {
        return Ok(());
    };
    let source = bundle.dir.join("true.c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let program = bundle.rootfs().join("bin/true");
    std::fs::remove_file(&program)?;
    harness::run(
        Command::new(cc)
            .args(["-static", "-O2", "-o"])
            .arg(&program)
            .arg(&source),
    )
    .map(drop)
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

/// A table for each work, and the same as JSON.
fn report(contestants: &mut [Contestant], rounds: usize) -> anyhow::Result<()> {
    let mut works = Vec::new();
    for (at, work) in WORKS.into_iter().enumerate() {
        println!("{}", work.name());
        let mut ours = None;
        let mut runtimes = Vec::new();
        for contestant in contestants.iter_mut() {
            let times = &mut contestant.times[at];
            times.sort();
            let part = |tenths: usize| times[(times.len() - 1) * tenths / 10].as_secs_f64() * 1e3;
            let (fastest, median, slow) = (part(0), part(5), part(9));
            let ratio = median / *ours.get_or_insert(median);
            println!(
                "  {:<16} {fastest:>7.2} ms fastest {median:>7.2} ms median {slow:>7.2} ms 90 %   {ratio:.2}",
                contestant.name
            );
            runtimes.push(json!({
                "runtime": contestant.name, "fastest_ms": fastest, "median_ms": median, "ninth_decile_ms": slow,
                "median_to_condo_runtime": ratio,
            }));
        }
        works.push(json!({ "work": work.name(), "runtimes": runtimes }));
    }
    let results =
        json!({ "machine": machine()?, "rounds": rounds, "versions": versions(contestants), "works": works });
    let text = serde_json::to_string_pretty(&results)? + "\n";
    std::fs::write("benches/results.json", text).context("write benches/results.json")
}

fn versions(contestants: &[Contestant]) -> Value {
    let versions = contestants.iter().map(|c| (c.name.clone(), c.version().into()));
    Value::Object(versions.collect())
}

/// What the figures depend on.
fn machine() -> anyhow::Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let load = read("/proc/loadavg")?;
    Ok(json!({
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
        "processors": std::thread::available_parallelism()?.get(),
        "load_after": load.split(' ').next(),
        "cgroups": if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" },
    }))
}
