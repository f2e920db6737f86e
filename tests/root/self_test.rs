//! The harness on itself: a runner that cannot fail would prove nothing. A test here starts this binary again with tests that
//! misbehave and looks at the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{self, Bundle, Test};

/// Set in the environment of a runner that shall run [`CULPRITS`].
pub const CULPRITS_ONLY: &str = "CONDO_TEST_CULPRITS";
/// Tells a culprit where it may leave things.
const PLACE: &str = "CONDO_TEST_PLACE";

tests![
    bundle_is_what_runc_takes in guest,
    cgroup2_has_the_controllers_of_limits in guest,
    failures_are_reported,
    files_behind_a_forgotten_mount_survive,
    leftovers_are_reported in guest: 120,
    neighbours_are_no_leftovers,
    strict_skips_are_failures,
    systemd_answers,
    versions_are_compared_by_number,
];

/// In the order of the tests that run them.
pub const CULPRITS: &[Test] = &[
    culprit("panics", || panic!("so it panics")),
    culprit("returns_an_error", || anyhow::bail!("so it fails")),
    culprit("sleeps_too_long", || {
        harness::run(Command::new("sleep").arg("1000")).map(drop)
    }),
    culprit("lacks_something", || {
        needs!(no_such_thing);
        Ok(())
    }),
    culprit("leaves_process", || {
        Command::new("setsid").args(["sleep", "1000"]).spawn()?;
        Ok(())
    }),
    culprit("leaves_cgroup", || {
        Ok(fs::create_dir(place()?.join("condo-left"))?)
    }),
    culprit("leaves_mount", || {
        let none = None::<&str>;
        Ok(mount(none, &place()?, Some("tmpfs"), MsFlags::empty(), none)?)
    }),
    culprit("leaves_bind_mount", || {
        let none = None::<&str>;
        Ok(mount(
            Some(&place()?),
            &harness::tempdir(),
            none,
            MsFlags::MS_BIND,
            none,
        )?)
    }),
    Test {
        seconds: 30,
        ..culprit("has_a_neighbour", || {
            fs::write(place()?.join("begun"), "")?;
            wait_for(&place()?.join("neighbour"))
        })
    },
];

fn wait_for(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(25);
    while !path.exists() {
        ensure!(Instant::now() < deadline, "no `{}`", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

const fn culprit(name: &'static str, run: fn() -> anyhow::Result<()>) -> Test {
    Test {
        name,
        run,
        seconds: 2,
        in_guest: false,
    }
}

fn place() -> anyhow::Result<PathBuf> {
    Ok(std::env::var_os(PLACE)
        .ok_or_else(|| anyhow::anyhow!("no place"))?
        .into())
}

/// Runs culprits, expects the runner to fail, and returns what it printed.
fn run_culprits(names: &[&str], place: &Path, strict: Option<&Path>) -> anyhow::Result<String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(names).env(CULPRITS_ONLY, "1").env(PLACE, place);
    // Two seconds shall be two seconds in the guest as well; none of them needs more.
    command
        .env_remove("CONDO_TEST_TIMEOUT_FACTOR")
        .env_remove("CONDO_STRICT_SKIPS");
    if let Some(file) = strict {
        command.env("CONDO_STRICT_SKIPS", file);
    }
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1), "{}\n{text}", output.status);
    Ok(text)
}

fn expect(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    Ok(())
}

fn failures_are_reported() -> anyhow::Result<()> {
    let names = ["panics", "returns_an_error", "sleeps_too_long", "lacks_something"];
    let text = run_culprits(&names, Path::new("/nowhere"), None)?;
    expect(
        &text,
        &[
            "FAIL panics",
            "so it panics",
            "FAIL returns_an_error",
            "so it fails",
        ],
    )?;
    expect(
        &text,
        &[
            "FAIL sleeps_too_long",
            "timed out while these ran:",
            "system call",
            "SKIP lacks_something",
        ],
    )?;
    ensure!(text.ends_with("\n0 passed, 3 failed, 1 skipped\n"), "{text}");
    Ok(())
}

fn strict_skips_are_failures() -> anyhow::Result<()> {
    let list = harness::tempdir().join("list");
    fs::write(&list, "# why\nsomething_else # not it\n")?;
    let text = run_culprits(&["lacks_something"], Path::new("/nowhere"), Some(&list))?;
    expect(
        &text,
        &["FAIL lacks_something", "`no_such_thing` is not an allowed reason"],
    )?;
    ensure!(text.ends_with("\n0 passed, 1 failed, 0 skipped\n"), "{text}");
    Ok(())
}

/// A place for cgroups.
fn hierarchy() -> PathBuf {
    let hierarchies = ["memory", ""].map(|h| Path::new("/sys/fs/cgroup").join(h));
    let found = hierarchies.into_iter().find(|h| h.is_dir());
    found.expect("a cgroup hierarchy")
}

fn leftovers_are_reported() -> anyhow::Result<()> {
    needs!(root);
    let cgroup = hierarchy().join(harness::unique());
    fs::create_dir(&cgroup)?;
    let in_cgroup = run_culprits(&["leaves_cgroup"], &cgroup, None);
    let cleared = fs::remove_dir(&cgroup);
    expect(
        &in_cgroup?,
        &[
            "FAIL leaves_cgroup",
            "left behind: cgroup /sys/fs/cgroup/",
            "/condo-left",
        ],
    )?;
    cleared.context("what is left is removed")?;

    let dir = harness::tempdir();
    let text = run_culprits(&["leaves_mount"], &dir, None);
    umount2(&dir, MntFlags::MNT_DETACH)?;
    expect(
        &text?,
        &[
            "FAIL leaves_mount",
            &format!("left behind: mount {}", dir.display()),
        ],
    )?;

    let text = run_culprits(&["leaves_process"], &dir, None)?;
    expect(
        &text,
        &["FAIL leaves_process", "left behind: process ", " (sleep)"],
    )
}

/// Another condo is started on this machine while a test runs.
fn neighbours_are_no_leftovers() -> anyhow::Result<()> {
    needs!(root);
    let place = harness::tempdir();
    let cgroup = hierarchy().join(harness::unique()).join("condo-neighbour");
    let neighbour = std::thread::spawn({
        let (place, cgroup) = (place.clone(), cgroup.clone());
        move || -> anyhow::Result<std::process::Child> {
            wait_for(&place.join("begun"))?;
            fs::create_dir_all(&cgroup)?;
            let process = Command::new("sleep").arg("1000").spawn()?;
            fs::write(cgroup.join("cgroup.procs"), process.id().to_string())?;
            fs::write(place.join("neighbour"), "")?;
            Ok(process)
        }
    });
    // The one that fails is there because a run of culprits has to.
    let text = run_culprits(&["panics", "has_a_neighbour"], &place, None);
    let mut process = neighbour.join().expect("no panic")?;
    process.kill()?;
    process.wait()?;
    fs::remove_dir(&cgroup)?;
    fs::remove_dir(cgroup.parent().expect("a parent"))?;
    expect(&text?, &["PASS has_a_neighbour"])
}

fn files_behind_a_forgotten_mount_survive() -> anyhow::Result<()> {
    needs!(root);
    let precious = harness::tempdir();
    fs::write(precious.join("file"), "precious")?;
    let text = run_culprits(&["leaves_bind_mount"], &precious, None)?;
    expect(&text, &["FAIL leaves_bind_mount", "left behind: mount "])?;
    ensure!(fs::read_to_string(precious.join("file"))? == "precious");
    Ok(())
}

/// The bundle the other tests start from is right by the reference runtime's measure.
fn bundle_is_what_runc_takes() -> anyhow::Result<()> {
    needs!(root, program: runc);
    let mut bundle = Bundle::new(&["cat", "/etc/hostname"])?;
    fs::write(bundle.rootfs().join("etc/hostname"), "from the bundle\n")?;
    bundle.set("/process/env/1", serde_json::json!("A=b"))?;
    let mut command = Command::new("runc");
    command
        .arg("--root")
        .arg(harness::tempdir())
        .args(["run", "--bundle"])
        .arg(&bundle.dir);
    let output = harness::run(command.arg(harness::unique()))?;
    ensure!(output == "from the bundle\n", "{output}");
    Ok(())
}

/// A v2 machine without controllers would let every test of a limit skip itself.
fn cgroup2_has_the_controllers_of_limits() -> anyhow::Result<()> {
    needs!(root, cgroup2);
    let here = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control")?;
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        ensure!(
            here.split_whitespace().any(|c| c == controller),
            "no {controller} in `{here}`"
        );
    }
    Ok(())
}

/// Debian 12's kernel is the oldest that is tested, and no kernel is that of the year 2200.
fn versions_are_compared_by_number() -> anyhow::Result<()> {
    needs!(linux_5_15, linux_6_1);
    ensure!(!harness::has("linux_200_0"));
    Ok(())
}

fn systemd_answers() -> anyhow::Result<()> {
    needs!(root, systemd);
    let mut command = Command::new("systemd-run");
    let unit = format!("--unit={}", harness::unique());
    let output =
        harness::run(command.args(["--wait", "--pipe", "--quiet", &unit, "cat", "/proc/self/cgroup"]))?;
    ensure!(output.starts_with("0::/system.slice/condo-"), "{output}");
    Ok(())
}
