//! What a test left behind: the difference between the machine before and after it.
//!
//! Only one test runs at a time on a machine (the runner holds a lock), so what is new is the test's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long things that are going away (a dying cgroup, a network namespace's links, an exiting process) may take.
fn grace() -> Duration {
    Duration::from_secs(1 + super::timeout_factor().min(9) / 3)
}

/// Begins the line of a cgroup.
const CGROUP: &str = "cgroup ";

/// The things a test could leave, each as a line for the report.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the machine.
    pub fn take() -> Self {
        let mut found = BTreeSet::new();
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut found);
        names("/sys/class/net", "link", |_| true, &mut found);
        names("/tmp", "file", |n| n.starts_with("condo-test"), &mut found);
        names("/dev/shm", "file", |n| n.starts_with("condo"), &mut found);
        for root in ["/run", "/var/lib"] {
            for dir in ["condo", "condo-ids", "condo-runtime"] {
                names(&format!("{root}/{dir}"), "file", |_| true, &mut found);
            }
        }
        mounts(&mut found);
        loop_devices(&mut found);
        tables(&mut found);
        Self(found)
    }

    /// What is here now and was not then, after giving it time to go. Call it when nothing of the test lives any more: a
    /// cgroup somebody lives in is then of another condo at work on this machine, which knows nothing of our lock.
    pub fn new_since(&self) -> Vec<String> {
        let deadline = Instant::now() + grace();
        loop {
            let mut new: Vec<String> = Self::take().0.difference(&self.0).cloned().collect();
            new.retain(|line| {
                !line
                    .strip_prefix(CGROUP)
                    .is_some_and(|dir| is_lived_in(Path::new(dir)))
            });
            if new.is_empty() || Instant::now() > deadline {
                return new;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// cgroups named by us: anything else could be a daemon of the machine at work.
fn cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        if depth > 0 && entry.file_name().to_string_lossy().contains("condo-") {
            found.insert(format!("{CGROUP}{}", entry.path().display()));
        }
        if depth < 4 {
            cgroups(&entry.path(), depth + 1, found);
        }
    }
}

/// Whether a process is in a cgroup or below.
fn is_lived_in(dir: &Path) -> bool {
    let entries = || fs::read_dir(dir).into_iter().flatten().flatten();
    fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
        || entries().any(|e| e.file_type().is_ok_and(|t| t.is_dir()) && is_lived_in(&e.path()))
}

fn names(dir: &str, kind: &str, ours: fn(&str) -> bool, found: &mut BTreeSet<String>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    found.extend(names.filter(|n| ours(n)).map(|n| format!("{kind} {dir}/{n}")));
}

/// Where a service manager mounts on its own account, at any time.
const NOT_OURS: &[&str] = &["/run/user/", "/run/credentials/", "/proc/sys/fs/binfmt_misc"];

/// `proc_pid_mountinfo(5)`: the mount point is the fifth field.
fn mounts(found: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split(' ').nth(4));
    for point in points.filter(|p| !NOT_OURS.iter().any(|n| p.starts_with(n))) {
        let mut line = format!("mount {point}");
        // One on top of another: a prime for each.
        while !found.insert(line.clone()) {
            line.push('\'');
        }
    }
}

fn loop_devices(found: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            found.insert(format!("loop device of {}", file.trim()));
        }
    }
}

fn tables(found: &mut BTreeSet<String>) {
    let Some(nft) = super::machine::program("nft".as_ref()) else {
        return;
    };
    if let Ok(output) = Command::new(nft).args(["list", "tables"]).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(text.lines().map(|l| format!("nft {l}")));
    }
}

/// Kills and reaps all that lives below this process, which is a subreaper: nothing a test started can get away from it.
/// Returns those that were not about to end by themselves.
pub fn survivors() -> Vec<String> {
    let deadline = Instant::now() + grace();
    loop {
        reap();
        let alive = descendants();
        if alive.is_empty() {
            return Vec::new();
        }
        if Instant::now() > deadline {
            return end_all(&alive);
        }
        sleep(Duration::from_millis(5));
    }
}

fn end_all(alive: &[(i32, String)]) -> Vec<String> {
    kill_descendants();
    alive
        .iter()
        .map(|(pid, name)| format!("process {pid} ({name})"))
        .collect()
}

/// Kills and reaps until nothing lives below this process.
pub fn kill_descendants() {
    let deadline = Instant::now() + grace();
    loop {
        reap();
        let alive = descendants();
        if alive.is_empty() || Instant::now() > deadline {
            return;
        }
        for (pid, _) in &alive {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        sleep(Duration::from_millis(5));
    }
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// The processes below this one, each with what it waits for in the kernel.
pub fn what_runs() -> String {
    let line = |(pid, name): (i32, String)| {
        let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let (waits, place) = (read("wchan"), read("syscall"));
        let number = String::from_utf8_lossy(&place)
            .split(' ')
            .next()
            .map(str::to_owned);
        format!(
            "    {pid} ({name}) {words}: {}, system call {}\n",
            String::from_utf8_lossy(&waits),
            number.unwrap_or_default().trim()
        )
    };
    descendants().into_iter().map(line).collect()
}

/// Removes what is left of a test whose files were in this directory, so that the next ones do not find it. A claim of user ids names
/// its owner: one that another condo on this machine has made meanwhile stays.
pub fn clear(left: &[String], dir: &Path) {
    for line in left {
        if let Some(cgroup) = line.strip_prefix(CGROUP) {
            remove_cgroup(Path::new(cgroup));
        } else if let Some(file) = line.strip_prefix("file ")
            && fs::read_link(file).is_ok_and(|owner| owner.starts_with(dir))
        {
            let _ = fs::remove_file(file);
        }
    }
}

fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Processes whose chain of parents leads here, with their command names.
fn descendants() -> Vec<(i32, String)> {
    let mut all = Vec::new();
    let mut parents = vec![std::process::id().to_string()];
    while let Some(parent) = parents.pop() {
        let lists = fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in lists {
            // proc_tid_children(5); in every kernel with CONFIG_PROC_CHILDREN, which CRIU and all distributions want.
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
                all.push((child.parse().unwrap_or(0), name.trim().to_owned()));
                parents.push(child.to_owned());
            }
        }
    }
    all.retain(|(pid, _)| *pid > 1);
    all
}
