//! A look at restored processes before they run: are they where the config says?
//!
//! The images decide what processes there are. A damaged or forged one shall not bring processes that share a namespace of the
//! host's which the config does not share, or that may do more than the config allows.

use std::path::Path;

use super::super::plan::Plan;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::files;
use crate::namespaces::Kind;

/// Checks all processes in the container's cgroup but CRIU's own: it was started there, and has children.
///
/// # Errors
/// They name the process and what is wrong with it.
pub(super) fn all(plan: &Plan, cgroup: &Cgroup, init: i32, criu: i32) -> Result<()> {
    let pids = cgroup.pids()?;
    if !pids.contains(&init) {
        return Err(wrong(init, "is not in the container's cgroup"));
    }
    let own = namespace(init, Kind::User)?;
    pids.into_iter().try_for_each(|pid| {
        let check = || {
            if descends(pid, criu)? {
                Ok(())
            } else {
                one(plan, pid, &own)
            }
        };
        match check() {
            // It has ended since.
            Err(e) if e.is_gone() || e.errno() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            other => other,
        }
    })
}

/// Whether a process is `ancestor` or below it. Init is CRIU's sibling.
fn descends(pid: i32, ancestor: i32) -> Result<bool> {
    let mut pid = pid;
    while pid > 0 && pid != ancestor {
        let parent = field(&status(pid)?, "PPid:").and_then(|text| text.parse().ok());
        pid = parent.unwrap_or(0);
    }
    Ok(pid == ancestor)
}

fn status(pid: i32) -> Result<String> {
    files::read_text(Path::new(&format!("/proc/{pid}/status")))
}

fn one(plan: &Plan, pid: i32, users: &Path) -> Result<()> {
    let host = i32::try_from(std::process::id()).unwrap_or(0);
    for kind in Kind::ALL {
        if plan.namespaces.is_new(kind) && namespace(pid, kind)? == namespace(host, kind)? {
            return Err(wrong(pid, &format!("is in the host's {} namespace", kind.file())));
        }
    }
    let status = status(pid)?;
    // In a user namespace of its own making a process has all capabilities, over that namespace.
    let more = capabilities(&status) & !plan.process.capabilities.bounding;
    if namespace(pid, Kind::User)? == users && more != 0 {
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

fn namespace(pid: i32, kind: Kind) -> Result<std::path::PathBuf> {
    Ok(std::fs::read_link(format!("/proc/{pid}/ns/{}", kind.file()))?)
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
    fn a_child_descends_from_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = field(&status(own).unwrap(), "PPid:").unwrap().parse().unwrap();
        assert!(descends(own, own).unwrap() && descends(own, parent).unwrap());
        assert!(!descends(parent, own).unwrap());
    }
}
