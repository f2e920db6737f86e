//! Security module labels that take effect at exec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{During, Error, Result};
use crate::process::Process;

/// A label that waits to be written at the very end.
#[derive(Debug)]
pub struct Label {
    file: OwnedFd,
    value: String,
}

impl Label {
    /// Opens the attribute files while the host's `/proc` is still in sight: a container's could be fake and swallow
    /// the label (CVE-2019-19921).
    pub fn open_all(process: &Process) -> Result<Vec<Self>> {
        let mut labels = Vec::new();
        if let Some(profile) = process.apparmor_profile.as_deref().filter(|p| *p != "unconfined") {
            if !Path::new("/sys/kernel/security/apparmor").exists() {
                return Err(Error::invalid(
                    "process.apparmorProfile",
                    profile,
                    "needs AppArmor, which is not enabled here",
                ));
            }
            let file = open("/proc/self/attr/apparmor/exec").or_else(|_| open("/proc/self/attr/exec"))?;
            labels.push(Self {
                file,
                value: format!("exec {profile}"),
            });
        }
        if let Some(label) = &process.selinux_label {
            need_selinux("process.selinuxLabel", label)?;
            labels.push(Self {
                file: open("/proc/self/attr/exec")?,
                value: label.clone(),
            });
        }
        Ok(labels)
    }

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

fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| format!("open `{path}`"))
}
