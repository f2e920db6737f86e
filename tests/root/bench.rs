//! Start-up time next to other runtimes: wall time of `run` of a static program that ends at once, from the config that `runc spec`
//! writes (where runc is not installed, from the tests' own, which is modelled on it).
//! The runtimes take turns, round by round, so that whatever else the machine does falls on all of them alike.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::harness::{self, Bundle};

struct Contestant {
    name: String,
    program: PathBuf,
    times: Vec<Duration>,
}

/// Measures `rounds` runs of each runtime that is here and prints a table.
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
    let mut contestants = vec![Contestant {
        name: harness::condo_runtime()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        program: harness::condo_runtime(),
        times: Vec::new(),
    }];
    for name in ["crun", "runc"] {
        if let Some(program) = harness::program(name) {
            contestants.push(Contestant {
                name: name.into(),
                program,
                times: Vec::new(),
            });
        }
    }
    let mut bundle = Bundle::new(&["/bin/true"])?;
    take_config_of_runc(&mut bundle)?;
    static_true(&bundle)?;
    // One round more than is counted: the first fills caches.
    for round in 0..=rounds {
        for contestant in &mut contestants {
            let time = run(contestant, &bundle, round)?;
            if round > 0 {
                contestant.times.push(time);
            }
        }
    }
    report(&mut contestants);
    nothing_left(&bundle, &contestants)
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

fn run(contestant: &Contestant, bundle: &Bundle, round: usize) -> anyhow::Result<Duration> {
    let mut command = Command::new(&contestant.program);
    command.arg("--root").arg(bundle.dir.join(&contestant.name));
    command.args(["run", "--bundle"]).arg(&bundle.dir).arg(format!(
        "{}{}-{round}",
        own_ids(),
        contestant.name
    ));
    let start = Instant::now();
    harness::run(&mut command)?;
    Ok(start.elapsed())
}

fn report(contestants: &mut [Contestant]) {
    println!(
        "{:<16} {:>9} {:>9} {:>9}   median of its rivals' to ours",
        "runtime", "fastest", "median", "90 %"
    );
    let mut ours = None;
    for contestant in contestants {
        contestant.times.sort();
        let at = |part: usize| contestant.times[(contestant.times.len() - 1) * part / 10].as_secs_f64() * 1e3;
        let base = *ours.get_or_insert(at(5));
        println!(
            "{:<16} {:>6.2} ms {:>6.2} ms {:>6.2} ms   {:.2}",
            contestant.name,
            at(0),
            at(5),
            at(9),
            at(5) / base
        );
    }
}
