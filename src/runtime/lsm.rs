//! Security module labels that take effect at exec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{During, Error, Result};
use crate::files;
use crate::process::Process;

/// The labels that a process is to have, before the process is there.
#[derive(Debug)]
pub(super) struct Labels {
    /// The host's `/proc`; absent where there is no label.
    proc: Option<OwnedFd>,
    /// Files below `/proc`, and what is written into them.
    wanted: Vec<(&'static str, String)>,
    /// What SELinux calls the process, and all that is to be its own.
    selinux: Option<String>,
}

impl Labels {
    /// Holds on to the host's `/proc` while it is in sight: a container's could be fake and swallow the label
    /// (CVE-2019-19921).
    pub(super) fn of(process: &Process) -> Result<Self> {
        let mut wanted = Vec::new();
        if let Some(profile) = process.apparmor_profile.as_deref().filter(|p| *p != "unconfined") {
            if !has_apparmor() {
                return Err(Error::invalid(
                    "process.apparmorProfile",
                    profile,
                    "needs AppArmor, which is not enabled here",
                ));
            }
            // Since 5.8 it does not share the file with other security modules.
            let file = match Path::new("/proc/self/attr/apparmor").is_dir() {
                true => "self/attr/apparmor/exec",
                false => "self/attr/exec",
            };
            wanted.push((file, format!("exec {profile}")));
        }
        if let Some(label) = &process.selinux_label {
            need_selinux("process.selinuxLabel", label)?;
            wanted.push(("self/attr/exec", label.clone()));
        }
        let proc = match wanted.is_empty() {
            true => None,
            false => Some(open(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY)?),
        };
        Ok(Self {
            proc,
            wanted,
            selinux: process.selinux_label.clone(),
        })
    }

    /// Keys that the calling process makes from here on are those of the program: with the runtime's label it could not even
    /// search its own session keyring.
    pub(super) fn label_keys(&self) -> Result<()> {
        let (Some(proc), Some(label)) = (&self.proc, &self.selinux) else {
            return Ok(());
        };
        let file = open(proc.as_fd(), "self/attr/keycreate", OFlags::WRONLY)?;
        rustix::io::write(&file, label.as_bytes()).during(|| format!("set label `{label}` for keys"))?;
        Ok(())
    }

    /// Opens the files of the calling process, which is to be the program: nobody else may write to them, no child either. Lets
    /// go of the host's `/proc`.
    pub(super) fn open(self) -> Result<Vec<Label>> {
        let Some(proc) = &self.proc else {
            return Ok(Vec::new());
        };
        let label = |(path, value)| {
            let file = open(proc.as_fd(), path, OFlags::WRONLY)?;
            Ok(Label { file, value })
        };
        self.wanted.into_iter().map(label).collect()
    }
}

/// A label that waits to be written at the very end.
#[derive(Debug)]
pub struct Label {
    file: OwnedFd,
    value: String,
}

impl Label {
    /// The attribute file.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sets the label for the next exec.
    pub fn apply(&self) -> Result<()> {
        rustix::io::write(&self.file, self.value.as_bytes())
            .during(|| format!("set label `{}`", self.value))?;
        Ok(())
    }
}

/// Refuses `linux.mountLabel` where no file system would take it.
pub(super) fn check_mount_label(linux: Option<&Linux>) -> Result<()> {
    let label = linux.and_then(|l| l.mount_label().as_deref());
    match label.filter(|l| !l.is_empty()) {
        Some(label) => need_selinux("linux.mountLabel", label),
        None => Ok(()),
    }
}

/// Asks the module itself: its folder in securityfs may be out of sight (Podman unmounts that before it makes a container
/// with a user namespace).
fn has_apparmor() -> bool {
    let enabled = files::read_text(Path::new("/sys/module/apparmor/parameters/enabled"));
    enabled.is_ok_and(|text| text.trim() == "Y")
}

fn need_selinux(field: &str, label: &str) -> Result<()> {
    if Path::new("/sys/fs/selinux").exists() {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        label,
        "needs SELinux, which is not enabled here",
    ))
}

fn open(dir: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(dir, path, flags | OFlags::CLOEXEC, Mode::empty()).during(|| format!("open `{path}`"))
}
