//! The runner: starts each test in a process of its own, one after the other (what is left behind is then that test's), in an
//! order drawn from a printed seed (so that no test comes to depend on another), and reports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use super::leaks::{self, Snapshot};
use super::{SKIPPED, TEST_DIR, Test};

/// How a test ended.
enum Verdict {
    Passed,
    /// With what to add to its output.
    Failed(String),
    /// With the name of the need.
    Skipped(String),
}

impl Verdict {
    /// It failed for this, whatever else it failed for.
    fn and_failed(&mut self, why: &str) {
        match self {
            Self::Failed(before) => before.push_str(why),
            _ => *self = Self::Failed(why.to_owned()),
        }
    }
}

/// A test whose time was over: what of it ran, a process a line.
struct TimedOut(String);

/// The command line.
#[derive(Default)]
struct Options {
    parts: Vec<String>,
    child: Option<String>,
    list: bool,
    seed: Option<u64>,
    /// Only those for which a guest is worth its time.
    in_guest: bool,
    /// Only those that end within a few seconds.
    quick: bool,
    /// Which part of how many, counted from one.
    part: Option<(usize, usize)>,
}

/// Runs the tests whose names hold one of the arguments, or all.
pub fn main(modules: &[&[Test]]) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let all: Vec<Test> = modules
        .iter()
        .flat_map(|m| m.iter().copied())
        .map(without_crate)
        .collect();
    if let Some(name) = &options.child {
        return run_here(&all, name);
    }
    let mut tests: Vec<Test> = all.into_iter().filter(|t| options.wants(t)).collect();
    if let Some((part, parts)) = options.part {
        let mut at = 0..;
        tests.retain(|_| at.next().is_some_and(|n| n % parts == part - 1));
    }
    if options.list {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return ExitCode::SUCCESS;
    }
    let seed = options.seed.unwrap_or_else(new_seed);
    println!("running {} tests, --seed {seed}", tests.len());
    shuffle(&mut tests, seed);
    match Runner::new().and_then(|runner| runner.run_all(&tests)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::from(2)
        }
    }
}

/// `module_path!()` begins with the name of this binary.
fn without_crate(test: Test) -> Test {
    Test {
        name: test.name.strip_prefix("root::").unwrap_or(test.name),
        ..test
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--child" => options.child = Some(args.next().context("--child needs a name")?),
                "--seed" => options.seed = Some(args.next().context("--seed needs a number")?.parse()?),
                "--list" => options.list = true,
                "--in-guest" => options.in_guest = true,
                "--quick" => options.quick = true,
                "--part" => options.part = Some(part(&args.next().context("--part needs K/N")?)?),
                // What `cargo test -q` and habit pass to every test binary.
                "-q" | "--quiet" | "--nocapture" | "--no-capture" => {}
                flag if flag.starts_with('-') => anyhow::bail!("unknown option `{flag}`"),
                _ => options.parts.push(arg),
            }
        }
        Ok(options)
    }

    fn wants(&self, test: &Test) -> bool {
        let named = self.parts.is_empty() || self.parts.iter().any(|p| test.name.contains(p.as_str()));
        named && (test.in_guest || !self.in_guest) && (!test.is_long() || !self.quick)
    }
}

/// `2/3`: the second of three parts of the tests, for as many machines.
fn part(text: &str) -> anyhow::Result<(usize, usize)> {
    let (part, parts) = text.split_once('/').context("--part needs K/N")?;
    let (part, parts) = (part.parse()?, parts.parse()?);
    anyhow::ensure!(
        (1..=parts).contains(&part),
        "--part {text}: there is no such part"
    );
    Ok((part, parts))
}

fn new_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(now.unwrap_or_default().subsec_nanos()) % 10_000
}

/// Fisher and Yates, with numbers of splitmix64.
fn shuffle(tests: &mut [Test], mut state: u64) {
    for i in (1..tests.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let j = (z ^ (z >> 31)) % (i as u64 + 1);
        tests.swap(i, usize::try_from(j).unwrap_or(0));
    }
}

/// What the runner holds while tests run.
struct Runner {
    /// Its directory below /tmp; each test has one below it.
    dir: PathBuf,
    /// Needs whose absence is no failure; `None`: any.
    allowed: Option<Vec<String>>,
    /// SIGINT and SIGTERM: end the test and clean up, then end.
    signals: SignalFd,
    /// One test at a time on this machine, whoever runs it.
    _lock: Option<Flock<File>>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Err(e) = remove_tree(&self.dir) {
            eprintln!("{e:#}");
        }
    }
}

impl Runner {
    fn new() -> anyhow::Result<Self> {
        // A runner inside a test is under its parent's lock.
        let lock = match std::env::var_os(TEST_DIR) {
            Some(_) => None,
            None => Some(machine_lock()?),
        };
        // Orphans of a test become children of this process: found, counted and ended after it.
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGTERM);
        mask.thread_block()?;
        let dir = PathBuf::from(format!("/tmp/condo-test-{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self {
            dir,
            allowed: allowed_skips()?,
            signals: SignalFd::new(&mask)?,
            _lock: lock,
        })
    }

    /// Runs them and prints the report; whether none failed.
    fn run_all(&self, tests: &[Test]) -> anyhow::Result<bool> {
        let mut failed: Vec<&str> = Vec::new();
        let mut skipped: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for test in tests {
            let start = Instant::now();
            let (verdict, output) = self.run_one(test)?;
            let seconds = start.elapsed().as_secs_f32();
            let word = match verdict {
                Verdict::Passed => "PASS",
                Verdict::Failed(why) => {
                    println!("---- {} ----\n{output}{why}", test.name);
                    failed.push(test.name);
                    "FAIL"
                }
                Verdict::Skipped(need) => {
                    skipped.entry(need).or_default().push(test.name);
                    "SKIP"
                }
            };
            println!("{word} {} ({seconds:.2} s)", test.name);
        }
        report(tests.len(), &failed, &skipped);
        Ok(failed.is_empty())
    }

    fn run_one(&self, test: &Test) -> anyhow::Result<(Verdict, String)> {
        let dir = self.dir.join("test");
        fs::create_dir(&dir)?;
        let log = self.dir.join("output");
        let before = Snapshot::take();
        let file = File::create(&log)?;
        let mut child = Command::new("/proc/self/exe")
            .args(["--child", test.name])
            .env(TEST_DIR, &dir)
            // Where an error was made says little; its text has to be enough. Panics keep their backtraces.
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let ended = self.wait(&mut child, test.seconds * super::timeout_factor())?;
        let mut left = leaks::survivors();
        left.extend(before.new_since());
        let untidy = remove_tree(&dir).err();
        let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let mut verdict = match ended {
            Ok(status) => self.judge(status, &output),
            Err(TimedOut(ran)) => Verdict::Failed(format!("timed out while these ran:\n{ran}")),
        };
        if !left.is_empty() {
            leaks::clear(&left, &dir);
            verdict.and_failed(&format!("left behind: {}\n", left.join(", ")));
        }
        if let Some(e) = untidy {
            verdict.and_failed(&format!("{e:?}\n"));
        }
        Ok((verdict, output))
    }

    /// The test's exit status, unless its time was over and all of it has been killed.
    fn wait(&self, child: &mut Child, seconds: u64) -> anyhow::Result<Result<ExitStatus, TimedOut>> {
        let pid = rustix::process::Pid::from_child(child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Ok(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let ran = leaks::what_runs();
                leaks::kill_descendants();
                return Ok(Err(TimedOut(ran)));
            }
            let mut fds = [
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            if fds[1].any() == Some(true) {
                leaks::kill_descendants();
                anyhow::bail!("interrupted");
            }
        }
    }

    fn judge(&self, status: ExitStatus, output: &str) -> Verdict {
        match status.code() {
            Some(0) => Verdict::Passed,
            Some(SKIPPED) => {
                let need = output.lines().rev().find_map(|l| l.strip_prefix("needs: "));
                let need = need.unwrap_or("something it did not name").to_owned();
                let name = need.split(' ').next().unwrap_or_default();
                match &self.allowed {
                    Some(allowed) if !allowed.iter().any(|a| a == name) => {
                        Verdict::Failed(format!("skipped, and `{name}` is not an allowed reason\n"))
                    }
                    _ => Verdict::Skipped(need),
                }
            }
            _ => Verdict::Failed(format!("{status}\n")),
        }
    }
}

fn machine_lock() -> anyhow::Result<Flock<File>> {
    let file = File::options()
        .create(true)
        .append(true)
        .open("/tmp/.condo-test.lock")?;
    Ok(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e)?)
}

fn report(total: usize, failed: &[&str], skipped: &BTreeMap<String, Vec<&str>>) {
    for (need, names) in skipped {
        println!("skipped for want of {need}: {}", names.join(", "));
    }
    for name in failed {
        println!("failed: {name}");
    }
    let skips: usize = skipped.values().map(Vec::len).sum();
    let passed = total - failed.len() - skips;
    println!("{passed} passed, {} failed, {skips} skipped", failed.len());
}

/// The file named by `CONDO_STRICT_SKIPS`: one need a line, `#` begins a comment.
fn allowed_skips() -> anyhow::Result<Option<Vec<String>>> {
    let Some(path) = std::env::var_os("CONDO_STRICT_SKIPS").filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let needs = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim());
    Ok(Some(needs.filter(|n| !n.is_empty()).map(Into::into).collect()))
}

/// Removes a directory of a test, but never through a mount: what is mounted there may be the host's own files.
fn remove_tree(dir: &Path) -> anyhow::Result<()> {
    for point in mounts_below(dir)?.iter().rev() {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
    let still = mounts_below(dir)?;
    anyhow::ensure!(still.is_empty(), "not removed for the mounts on it: {still:?}");
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

fn mounts_below(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(PathBuf::from);
    Ok(points.filter(|p| p.starts_with(dir)).collect())
}

/// Runs one test in this process.
fn run_here(all: &[Test], name: &str) -> ExitCode {
    let test = all.iter().find(|t| t.name == name).expect("a test of this name");
    let setup = || -> anyhow::Result<()> {
        nix::unistd::setsid()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        SigSet::all().thread_unblock()?;
        Ok(())
    };
    match setup().and_then(|()| (test.run)()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
