//! The harness of the root tests: one process and one session per test, so that a test may unshare, fork and setns as it
//! likes; named needs; counted skips; and a look for leftovers after each.
//!
//! A test is a `fn() -> anyhow::Result<()>` in a module with `tests![...]`. It reports by `anyhow` errors or by panicking.

mod bundle;
mod leaks;
mod machine;
pub mod reader;
mod receiver;
mod runner;
pub mod trace;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

pub use bundle::{Bundle, busybox_root, usual_mount};
pub use leaks::kill_descendants;
pub use machine::ENGINES;
pub use receiver::Receiver;
pub use runner::main;

/// Exit status of a test process whose need is not met here.
const SKIPPED: i32 = 77;
/// Where the runner tells a test process its own directory.
const TEST_DIR: &str = "CONDO_TEST_DIR";

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// `module::function`.
    pub name: &'static str,
    /// Its body; an error fails it.
    pub run: fn() -> anyhow::Result<()>,
    /// How long it may take natively, in seconds, before it is killed and counted as failed.
    pub seconds: u64,
    /// Whether `make test` runs it in the guest with cgroup v2 as well.
    pub in_guest: bool,
}

/// What a test may take that does not say how long.
pub const USUAL: u64 = 60;

impl Test {
    /// Whether it said that it takes its time: `make quick` goes without it.
    pub fn is_long(&self) -> bool {
        self.seconds > USUAL
    }
}

/// Lists the tests of a module: `tests![limits_hold in guest, links_are_not_followed];` makes `TESTS`. All of them run natively. Those
/// whose outcome the cgroup layout or the guest's older kernel can change are marked: a program takes twenty times as long to start
/// there. A test that takes more than a few seconds says how many it may take, instead of the usual minute, and is left out of
/// `make quick`: `tests![two_hundred_rounds: 600];`.
macro_rules! tests {
    (@seconds) => { crate::harness::USUAL };
    (@seconds $seconds:literal) => { $seconds };
    (@in_guest) => { false };
    (@in_guest guest) => { true };
    ($($name:ident $(in $place:ident)? $(: $seconds:literal)?),* $(,)?) => {
        pub const TESTS: &[crate::harness::Test] = &[$(crate::harness::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
            seconds: tests!(@seconds $($seconds)?),
            in_guest: tests!(@in_guest $($place)?),
        }),*];
    };
}

/// Ends the test as skipped unless this machine has all that is named: `needs!(root, cgroup2, program:nft);`, see
/// [`harness::need`](need) for the names.
macro_rules! needs {
    ($($need:ident $(: $argument:ident)?),* $(,)?) => {
        $(crate::harness::need(concat!(stringify!($need) $(, ":", stringify!($argument))?));)*
    };
}

/// Ends the test as skipped where the runtime under test is another project's, named first, and the reason is known:
/// `known_difference!("crun", "refuses hosts with v1 controllers");`. Never affects condo's own runtime.
#[allow(
    unused_macros,
    reason = "a run of the tests against another runtime adds its users one by one"
)]
macro_rules! known_difference {
    ($runtime:literal, $reason:expr) => {
        crate::harness::differs($runtime, $reason)
    };
}

/// Ends this test process as skipped when `name` cannot be had here.
///
/// `root`, `cgroup2` (all controllers on v2), `hybrid` (controllers on v1), `controller:NAME`, `realtime_groups` (`cpu.rt_runtime_us`
/// of v1), `table_programs` (cgroups can have programs as security modules), `apparmor` (it is on), `selinux` (it enforces `tests/guest/selinux.policy`), `systemd` (it is PID 1), `userns`, `criu` (it
/// works with this kernel), `lazy_pages` (it can fetch memory late), `linux_6_3` (that version or newer), `ours` (the runtime under
/// test is condo's), `engine:NAME` (a program that [`ENGINES`] has, or the machine), `program:NAME`; any other name is a program.
pub fn need(name: &str) {
    if !machine::has(name) {
        eprintln!("needs: {name}");
        std::process::exit(SKIPPED);
    }
}

/// Whether the machine has what `name` names, for a test that does less where it has not.
pub fn has(name: &str) -> bool {
    machine::has(name)
}

/// See `known_difference!`.
pub fn differs(runtime: &str, reason: &str) {
    if !is_ours() && condo_runtime().file_name().is_some_and(|n| n == runtime) {
        eprintln!("needs: ours ({runtime} {reason})");
        std::process::exit(SKIPPED);
    }
}

/// The directory of a process that no runner started (the benchmark).
static OWN_DIR: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// Runs `work` outside of any test, with `dir` as the place for its directories.
pub fn in_dir<T>(dir: &Path, work: impl FnOnce() -> T) -> T {
    OWN_DIR.get_or_init(|| dir.to_path_buf());
    work()
}

/// A process that ends with the test, whatever becomes of that.
pub struct Ended(pub std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A fresh directory of this test, mode 0755. The runner removes it, also when the test dies.
pub fn tempdir() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let parent = std::env::var_os(TEST_DIR).map(PathBuf::from);
    let parent = parent
        .or_else(|| OWN_DIR.get().cloned())
        .expect("a test process is started by the runner");
    loop {
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = parent.join(n.to_string());
        match std::fs::create_dir(&dir) {
            Ok(()) => return dir,
            // A child that the test forked counts from where its parent stood.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => panic!("make `{}`: {e}", dir.display()),
        }
    }
}

/// Moves this process into a mount namespace of its own, from which nothing reaches the machine's.
pub fn private_mounts() -> anyhow::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let everything = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, everything, None::<&str>)?)
}

/// Gives a tree to a user and the group of the same number.
pub fn give(top: &Path, id: u32) -> anyhow::Result<()> {
    std::os::unix::fs::lchown(top, Some(id), Some(id))?;
    if top.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(top)? {
            give(&entry?.path(), id)?;
        }
    }
    Ok(())
}

/// A name nothing else on this machine has, for cgroups, containers and interfaces: `condo-<pid>-<n>`, at most 15 bytes as
/// long as pids have at most 7 digits.
pub fn unique() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("condo-{}-{n}", std::process::id())
}

/// The OCI runtime under test: `CONDO_RUNTIME` (a path or a program's name), or condo's own.
pub fn condo_runtime() -> PathBuf {
    match std::env::var_os("CONDO_RUNTIME") {
        Some(other) => machine::program(&other).unwrap_or_else(|| other.into()),
        None => built("condo-runtime", env!("CARGO_BIN_EXE_condo-runtime")),
    }
}

/// Where a program is, on the path or in the system's directories.
pub fn program(name: &str) -> Option<PathBuf> {
    machine::program(name.as_ref())
}

/// Whether the runtime under test is condo's own.
pub fn is_ours() -> bool {
    std::env::var_os("CONDO_RUNTIME").is_none()
}

/// The VPS manager.
pub fn condo() -> PathBuf {
    built("condo", env!("CARGO_BIN_EXE_condo"))
}

/// LXD's API, a crate of its own: `cargo build -p condo-server` makes it.
pub fn condo_server() -> PathBuf {
    condo().with_file_name("condo-server")
}

/// A program of this build: where cargo put it, or in `CONDO_BIN_DIR` (inside the guest).
fn built(name: &str, here: &str) -> PathBuf {
    std::env::var_os("CONDO_BIN_DIR").map_or_else(|| here.into(), |dir| Path::new(&dir).join(name))
}

/// Runs a program to its end and returns what it printed on stdout; anything but success is an error that shows all of it.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

/// Programs of this machine with the libraries they need: the path in a root file system, and what is in the file.
pub fn with_libraries(programs: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = std::collections::BTreeSet::new();
    for program in programs {
        let listed = run(Command::new("ldd").arg(program))?;
        files.insert((*program).to_owned());
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        files.extend(libraries.map(str::to_owned));
    }
    let read = |file: String| Ok((file[1..].to_owned(), std::fs::read(&file).context(file)?));
    files.into_iter().map(read).collect()
}

/// How often a test repeats what is a matter of luck, or how many it makes of what there can be many of: `many` on a machine that
/// runs, a fifth of them, and two at least, on one that is emulated.
pub fn rounds(many: usize) -> usize {
    if timeout_factor() > 1 {
        (many / 5).max(2)
    } else {
        many
    }
}

/// How much longer things may take on this machine than on an idle native one (`CONDO_TEST_TIMEOUT_FACTOR`).
pub fn timeout_factor() -> u64 {
    std::env::var("CONDO_TEST_TIMEOUT_FACTOR")
        .ok()
        .and_then(|f| f.parse().ok())
        .unwrap_or(1)
}
