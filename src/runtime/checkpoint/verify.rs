//! A look at restored processes before they run: are they where the config says?
//!
//! The images decide what processes there are. A damaged or forged one shall not bring processes that share a namespace of the
//! host's which the config does not share, or that may do more than the config allows.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::plan::Plan;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::files;
use crate::namespaces::Kind;

/// Our own directory in `proc(5)`.
const OWN: &str = "/proc/self";

/// Checks all processes in the container's cgroup but CRIU's own: it was started there, and has children.
///
/// # Errors
/// They name the process and what is wrong with it.
pub(super) fn all(plan: &Plan, cgroup: &Cgroup, init: i32, criu: i32) -> Result<()> {
    let pids = cgroup.pids()?;
    if !pids.contains(&init) {
        return Err(wrong(init, "is not in the container's cgroup"));
    }
    let users = users(plan, init)?;
    if namespace(&process(init), Kind::User)? != users {
        return Err(wrong(init, "is not in the config's user namespace"));
    }
    pids.into_iter().try_for_each(|pid| {
        let check = || {
            if descends(pid, criu)? {
                Ok(())
            } else {
                threads(pid)?
                    .iter()
                    .try_for_each(|thread| one(plan, pid, thread, users))
            }
        };
        match check() {
            // It has ended since.
            Err(e) if e.is_gone() || e.errno() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            other => other,
        }
    })
}

/// The user namespace of the config: a new one is what init has, but for the host's.
fn users(plan: &Plan, init: i32) -> Result<u64> {
    match plan.namespaces.joined(Kind::User) {
        Some(path) => inode(path),
        None if plan.namespaces.is_new(Kind::User) => namespace(&process(init), Kind::User),
        None => namespace(OWN.as_ref(), Kind::User),
    }
}

/// All threads of a process: each has its own capabilities, filters and, mostly, namespaces.
fn threads(pid: i32) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(process(pid).join("task"))?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

fn process(pid: i32) -> PathBuf {
    format!("/proc/{pid}").into()
}

/// Whether a process is `ancestor` or below it. Init is CRIU's sibling.
fn descends(pid: i32, ancestor: i32) -> Result<bool> {
    let mut pid = pid;
    while pid > 0 && pid != ancestor {
        let parent = field(&status(&process(pid))?, "PPid:").and_then(|text| text.parse().ok());
        pid = parent.unwrap_or(0);
    }
    Ok(pid == ancestor)
}

fn status(task: &Path) -> Result<String> {
    files::read_text(&task.join("status"))
}

/// Checks the thread with the directory `task`.
fn one(plan: &Plan, pid: i32, task: &Path, users: u64) -> Result<()> {
    for kind in Kind::ALL {
        if plan.namespaces.is_new(kind) && namespace(task, kind)? == namespace(OWN.as_ref(), kind)? {
            return Err(wrong(pid, &format!("is in the host's {} namespace", kind.file())));
        }
    }
    let status = status(task)?;
    // In a user namespace of its own making a process has all capabilities, over that namespace.
    let more = capabilities(&status) & !plan.process.capabilities.bounding;
    if namespace(task, Kind::User)? == users && more != 0 {
        return Err(wrong(
            pid,
            &format!("has capabilities that `process.capabilities.bounding` has not ({more:#x})"),
        ));
    }
    if plan.seccomp.is_some() && field(&status, "Seccomp:") == Some("0") {
        return Err(wrong(
            pid,
            "has no system call filter, but `linux.seccomp` has one",
        ));
    }
    Ok(())
}

fn wrong(pid: i32, problem: &str) -> Error {
    Error::Status(format!(
        "restored process {pid} {problem}: the checkpoint does not fit the config"
    ))
}

fn namespace(task: &Path, kind: Kind) -> Result<u64> {
    inode(&task.join("ns").join(kind.file()))
}

fn inode(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

/// What the process has or can come by.
fn capabilities(status: &str) -> u64 {
    let sets = ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    let sets = sets
        .iter()
        .filter_map(|name| u64::from_str_radix(field(status, name)?, 16).ok());
    sets.fold(0, |all, set| all | set)
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_sum_of_the_sets() {
        let text = "CapInh:\t00ff\nCapPrm:\t0001\nCapEff:\t0000\nCapBnd:\t0102\nCapAmb:\t0000\nSeccomp:\t2\n";
        assert_eq!(capabilities(text), 0x103);
        assert_eq!(field(text, "Seccomp:"), Some("2"));
    }

    #[test]
    fn every_thread_is_looked_at() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let found = threads(own).unwrap();
        assert!(found.len() > 1, "{found:?}");
        drop(stop);
        let _ = thread.join();
    }

    #[test]
    fn a_child_descends_from_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = field(&status(&process(own)).unwrap(), "PPid:")
            .unwrap()
            .parse()
            .unwrap();
        assert!(descends(own, own).unwrap() && descends(own, parent).unwrap());
        assert!(!descends(parent, own).unwrap());
    }
}
