//! Users, groups and umask of a process.

use oci_spec::runtime::User;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::error::{During, Error, Result};

/// The umask of a process whose spec names none, as the field does it.
const DEFAULT_UMASK: u32 = 0o022;

/// Who a process is, by ids inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
}

impl Credentials {
    /// Root with no further groups.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        umask: DEFAULT_UMASK,
    };

    /// Reads `process.user`.
    ///
    /// # Errors
    /// Names the field with the id that is none: `setresuid(2)` would leave the process what it is, which is root.
    pub fn from_spec(user: &User) -> Result<Self> {
        let groups = user.additional_gids().clone().unwrap_or_default();
        let further = groups.iter().enumerate();
        let named = [("uid".to_owned(), user.uid()), ("gid".to_owned(), user.gid())];
        let mut ids = named
            .into_iter()
            .chain(further.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid)));
        if let Some((name, id)) = ids.find(|(_, id)| *id == u32::MAX) {
            let problem = "means no change to the kernel; ids end at 4294967294";
            return Err(Error::invalid(format!("process.user.{name}"), id, problem));
        }
        Ok(Self {
            uid: user.uid(),
            gid: user.gid(),
            groups,
            umask: user.umask().unwrap_or(DEFAULT_UMASK),
        })
    }

    /// Becomes this user, keeping the permitted capabilities for the steps that follow.
    pub fn assume(&self) -> Result<()> {
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        rustix::thread::set_keep_capabilities(true)?;
        self.switch()?;
        // Cleared by the kernel at exec as well; cleared here so that nothing depends on that.
        rustix::thread::set_keep_capabilities(false)?;
        Ok(())
    }

    /// Takes on the supplementary groups alone.
    pub fn adopt_groups(&self) -> Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace made without privileges denies it even to its root, for good (user_namespaces(7)).
            Err(Errno::PERM) if may_change_groups() && groups.is_empty() => Ok(()),
            Err(Errno::PERM) if may_change_groups() => Err(self.denied()),
            other => other.during(|| format!("set the groups {:?}", self.groups)),
        }
    }

    fn switch(&self) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        self.adopt_groups()?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| format!("become group {}", self.gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| format!("become user {}", self.uid))
    }
}

impl Credentials {
    fn denied(&self) -> Error {
        Error::invalid(
            "process.user.additionalGids",
            format!("{:?}", self.groups),
            "cannot be set: the user namespace denies it, unless its group map was written by `newgidmap`",
        )
    }
}

/// Whether the process has the capability that changing groups takes.
fn may_change_groups() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SETGID))
}

/// Reads a user or group id: digits and nothing else. Junk behind a number once made a runtime run as root (crun,
/// CVE-2026-30892); the highest number means "no change" to the kernel.
pub fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id != u32::MAX)
}

/// Reads `UID[:GID]`, each as [`id`] does.
pub fn user_and_group(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Some((id(text)?, None)),
        Some((uid, gid)) => Some((id(uid)?, Some(id(gid)?))),
    }
}

/// Becomes root of the user namespace the process is in: whoever it was outside is not mapped there.
pub fn become_root() -> Result<()> {
    Credentials::ROOT
        .switch()
        .during(|| "become root of the user namespace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_digits_and_nothing_else() {
        assert_eq!(user_and_group("1000"), Some((1000, None)));
        assert_eq!(user_and_group("0:5"), Some((0, Some(5))));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "1000x",
            "1000 ",
            "+1",
            "-1",
            "1:2:3",
            "4294967295",
            "4294967296",
            "0x1",
            "root",
        ] {
            assert_eq!(user_and_group(bad), None, "{bad}");
        }
    }
}
