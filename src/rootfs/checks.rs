//! Mistakes in `mounts` of the spec, found before anything is touched.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount};

use super::Facts;
use super::entry::Entry;
use crate::error::{Error, Result};

/// Where other mounts than procfs may appear below `/proc`: files that programs like lxcfs replace by a container's own
/// numbers, and nothing whose meaning a security decision rests on (CVE-2019-16884, CVE-2023-27561).
pub(super) const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

pub(super) fn mappings(mount: &Mount) -> (&[LinuxIdMapping], &[LinuxIdMapping]) {
    (
        mount.uid_mappings().as_deref().unwrap_or_default(),
        mount.gid_mappings().as_deref().unwrap_or_default(),
    )
}

pub(super) fn idmap(entry: &Entry<'_>, bind: bool, facts: &Facts<'_>) -> Result<()> {
    let (uid, gid) = mappings(entry.mount);
    let field = entry.field;
    if uid.is_empty() != gid.is_empty() {
        let (missing, given) = if uid.is_empty() {
            ("uidMappings", "gidMappings")
        } else {
            ("gidMappings", "uidMappings")
        };
        return Err(Error::invalid(
            format!("{field}.{missing}"),
            "",
            format!("is needed where `{given}` is given"),
        ));
    }
    if entry.options.idmap.is_none() && uid.is_empty() {
        return Ok(());
    }
    if !bind || entry.options.remount {
        return Err(Error::invalid(
            format!("{field}.uidMappings"),
            entry.target.display(),
            "is no bind mount: only those can translate owners",
        ));
    }
    if !facts.host.caller.privileged {
        return Err(Error::unsupported(
            format!("{field}: an id-mapped mount"),
            "it takes privileges over the source's filesystem; run condo-runtime as root, or give the files to the ids they \
             shall have",
        ));
    }
    if uid.is_empty() && !facts.userns {
        return Err(Error::invalid(
            format!("{field}.options"),
            "idmap",
            "needs `uidMappings` and `gidMappings`, or a container with a user namespace",
        ));
    }
    Ok(())
}

/// The kernel ignores what a bind mount is told as a filesystem, a misspelt flag as well: an error, as with runc.
pub(super) fn bind_options(entry: &Entry<'_>) -> Result<()> {
    match entry.options.data.first() {
        None => Ok(()),
        Some(option) => Err(Error::invalid(
            format!("{}.options", entry.field),
            option,
            "is no option of bind mounts, which cannot have any filesystem-specific options applied; leave it out",
        )),
    }
}

/// A place in the tree as an absolute path without `.` and `..`, which are taken by the letter, as by runc, and end at the root; one
/// that is relative (deprecated by the spec) starts there.
pub(super) fn target(field: &str, destination: &Path) -> Result<PathBuf> {
    let mut target = PathBuf::from("/");
    for part in destination.components() {
        match part {
            Component::Normal(part) => target.push(part),
            Component::ParentDir => drop(target.pop()),
            _ => {}
        }
    }
    if target == Path::new("/") {
        return Err(Error::invalid(
            field,
            destination.display(),
            "is the root itself; use `root` of config.json",
        ));
    }
    Ok(target)
}

/// `/proc` is for procfs (also another's, by a bind mount that is checked later); below it only some files may be covered.
pub(super) fn place(entry: &Entry<'_>, fstype: &str, bind: bool) -> Result<()> {
    let target = entry.target.as_path();
    let allowed = if target == Path::new("/proc") {
        bind || fstype == "proc" || entry.options.remount
    } else {
        !target.starts_with("/proc") || entry.options.remount || (bind && is_proc_file(target))
    };
    if allowed {
        return Ok(());
    }
    Err(Error::invalid(
        format!("{}.destination", entry.field),
        target.display(),
        "is inside `/proc`, where only procfs itself and binds of a few files (such as `/proc/cpuinfo`) may be mounted",
    ))
}

/// Whether a file of procfs may be covered.
pub(super) fn is_proc_file(target: &Path) -> bool {
    PROC_FILES.iter().any(|file| Path::new(file) == target)
}
