//! The runner: one process per test, so that a test may unshare, fork and setns as it likes; named needs; counted skips.

use std::process::{Command, ExitCode};

/// Exit status of a test process whose need is not met here.
const SKIPPED: i32 = 77;

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// `module::function`.
    pub name: &'static str,
    /// Its body; an error fails it.
    pub run: fn() -> anyhow::Result<()>,
}

/// Lists the tests of a module: `tests![limits_hold, freeze_stops];` makes `TESTS`.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[crate::harness::Test] = &[$(crate::harness::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
        }),*];
    };
}

/// Ends the test as skipped unless this machine has all that is named: `needs!(root, cgroup2);`
macro_rules! needs {
    ($($need:ident),* $(,)?) => {
        $(crate::harness::need(stringify!($need));)*
    };
}

/// Ends this test process as skipped when `name` cannot be had here.
pub fn need(name: &str) {
    let met = match name {
        "root" => nix::unistd::geteuid().is_root(),
        "cgroup2" => std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        "hybrid" => std::path::Path::new("/sys/fs/cgroup/memory").exists(),
        program => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|d| d.join(program).exists()),
    };
    if !met {
        eprintln!("needs: {name}");
        std::process::exit(SKIPPED);
    }
}

/// Runs the tests named by the arguments (parts of names), or all.
pub fn main(modules: &[&[Test]]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let all: Vec<Test> = modules.iter().flat_map(|m| m.iter().copied()).collect();
    if let [flag, name] = args.as_slice()
        && flag == "--child"
    {
        return run_here(&all, name);
    }
    let mut counts = [0, 0, 0];
    for test in all
        .iter()
        .filter(|t| args.is_empty() || args.iter().any(|a| t.name.contains(a.as_str())))
    {
        let output = Command::new("/proc/self/exe")
            .args(["--child", test.name])
            .output()
            .expect("run a test");
        let (verdict, place) = match output.status.code() {
            Some(0) => ("PASS", 0),
            Some(SKIPPED) => ("SKIP", 2),
            _ => ("FAIL", 1),
        };
        counts[place] += 1;
        println!("{verdict} {}", test.name);
        if place != 0 {
            print!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts[0], counts[1], counts[2]
    );
    if counts[1] == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_here(all: &[Test], name: &str) -> ExitCode {
    let test = all.iter().find(|t| t.name == name).expect("a test of this name");
    match (test.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:?}");
            ExitCode::FAILURE
        }
    }
}
