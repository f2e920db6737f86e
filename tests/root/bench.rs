//! Start-up time next to other runtimes: wall time of `run` of a static program that ends at once, from a `runc spec`-like bundle.
//! The runtimes take turns, round by round, so that whatever else the machine does falls on all of them alike.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

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
    if std::path::Path::new(unified).is_dir() {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
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
    let bundle = Bundle::new(&["true"])?;
    // One round more than is counted: the first fills caches.
    for round in 0..=rounds {
        for contestant in &mut contestants {
            let time = run(contestant, &bundle)?;
            if round > 0 {
                contestant.times.push(time);
            }
        }
    }
    report(&mut contestants);
    Ok(())
}

fn run(contestant: &Contestant, bundle: &Bundle) -> anyhow::Result<Duration> {
    let mut command = Command::new(&contestant.program);
    command.arg("--root").arg(bundle.dir.join(&contestant.name));
    command
        .args(["run", "--bundle"])
        .arg(&bundle.dir)
        .arg(harness::unique());
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
