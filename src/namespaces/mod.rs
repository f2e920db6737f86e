//! The eight kinds of namespace: which are new, which are joined by path, which are shared with the host.
//!
//! The spec's list becomes a [`Namespaces`] value; [`enter`] holds the joined ones around a clone, [`user`] deals with id maps,
//! [`subordinate`] with those of an ordinary user, [`ranges`] with who on this machine may map which ids.

pub mod enter;
pub mod ranges;
mod span;
pub mod subordinate;
pub mod user;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};

/// A kind of namespace (`namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// User and group ids.
    User,
    /// Mounts.
    Mount,
    /// Host and domain name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Processes.
    Pid,
    /// Network stack.
    Network,
    /// The cgroup root.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Mount,
        Self::Uts,
        Self::Ipc,
        Self::Pid,
        Self::Network,
        Self::Cgroup,
        Self::Time,
    ];

    /// The `CLONE_NEW*` flag.
    pub const fn flag(self) -> u64 {
        match self {
            Self::Time => 0x80,
            Self::Mount => 0x2_0000,
            Self::Cgroup => 0x200_0000,
            Self::Uts => 0x400_0000,
            Self::Ipc => 0x800_0000,
            Self::User => 0x1000_0000,
            Self::Pid => 0x2000_0000,
            Self::Network => 0x4000_0000,
        }
    }

    /// Its file below `/proc/PID/ns`.
    pub const fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

impl From<LinuxNamespaceType> for Kind {
    fn from(typ: LinuxNamespaceType) -> Self {
        match typ {
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Network => Self::Network,
            LinuxNamespaceType::Time => Self::Time,
        }
    }
}

/// The namespaces of one container; a kind that is absent is shared with the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    new: Vec<Kind>,
    joined: Vec<(Kind, PathBuf)>,
}

impl Namespaces {
    /// Reads `linux.namespaces`. A kind named twice, or a relative path, is refused.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let mut found = Self::default();
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for (index, entry) in listed.into_iter().flatten().enumerate() {
            let kind = Kind::from(entry.typ());
            let field = || format!("linux.namespaces[{index}]");
            if found.has(kind) {
                return Err(Error::invalid(field(), kind.file(), "is listed twice"));
            }
            match entry.path() {
                None => found.new.push(kind),
                Some(path) if path.as_os_str().is_empty() => found.new.push(kind),
                Some(path) if path.is_absolute() => found.joined.push((kind, path.clone())),
                Some(path) => {
                    return Err(Error::invalid(
                        field(),
                        path.display(),
                        "must be an absolute path",
                    ));
                }
            }
        }
        Ok(found)
    }

    /// Whether the container does not share this kind with the host.
    pub fn has(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.joined(kind).is_some()
    }

    /// Whether a new namespace of this kind is made.
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// The path by which a namespace of this kind is joined.
    pub fn joined(&self, kind: Kind) -> Option<&Path> {
        self.joined
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, path)| path.as_path())
    }

    /// All that are joined.
    pub fn all_joined(&self) -> impl Iterator<Item = (Kind, &Path)> {
        self.joined.iter().map(|(kind, path)| (*kind, path.as_path()))
    }

    /// The kinds the container does not share with the host.
    pub fn own(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.has(*kind)).collect()
    }

    /// The flags for the clone that makes init. A new time namespace is made by the parent, unless init makes it itself, because
    /// its offsets must be set before anybody lives in it.
    pub fn clone_flags(&self) -> u64 {
        self.new
            .iter()
            .filter(|kind| **kind != Kind::Time && !self.is_late(**kind))
            .fold(0, |flags, kind| flags | kind.flag())
    }

    /// The new ones that init makes by itself, once it is in its cgroup and root of its user namespace.
    pub fn late(&self) -> impl Iterator<Item = Kind> {
        self.new.iter().copied().filter(|kind| self.is_late(*kind))
    }

    /// The root of a cgroup namespace is the cgroup of whoever makes it; the root directory of an IPC namespace's message queues
    /// belongs to whoever makes that: before init is root, to nobody; and a time namespace that the parent made belongs to the
    /// parent's user namespace, which may even lack the right to make one.
    pub fn is_late(&self, kind: Kind) -> bool {
        let owned = matches!(kind, Kind::Ipc | Kind::Time) && self.is_new(Kind::User);
        self.is_new(kind) && (kind == Kind::Cgroup || owned)
    }
}

/// The processes in the same namespace of this kind as the process `pid`, itself included. Of processes the caller may not
/// look into it cannot be told; they are left out, as are those in namespaces below.
///
/// # Errors
/// Without `/proc`.
pub fn members(pid: i32, kind: Kind) -> Result<Vec<i32>> {
    let inode =
        |pid: i32| rustix::fs::stat(format!("/proc/{pid}/ns/{}", kind.file())).map(|found| found.st_ino);
    let Ok(wanted) = inode(pid) else {
        return Ok(vec![pid]);
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").during(|| "read `/proc`")? {
        let name = entry.during(|| "read `/proc`")?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && inode(pid) == Ok(wanted)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        let json = format!(r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":{namespaces}}}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn new_joined_and_shared_are_told_apart() {
        let json = r#"[{"type":"pid"},{"type":"network","path":"/run/netns/a"},{"type":"cgroup"},{"type":"mount","path":""}]"#;
        let namespaces = Namespaces::from_spec(&spec(json)).unwrap();
        assert!(namespaces.is_new(Kind::Pid) && namespaces.is_new(Kind::Mount));
        assert_eq!(namespaces.joined(Kind::Network), Some(Path::new("/run/netns/a")));
        assert!(!namespaces.has(Kind::User));
        assert_eq!(namespaces.clone_flags(), Kind::Pid.flag() | Kind::Mount.flag());
        assert_eq!(namespaces.late().collect::<Vec<_>>(), [Kind::Cgroup]);
    }

    #[test]
    fn init_makes_those_that_belong_to_its_root() {
        let ipc = Namespaces::from_spec(&spec(r#"[{"type":"ipc"}]"#)).unwrap();
        assert_eq!((ipc.clone_flags(), ipc.late().count()), (Kind::Ipc.flag(), 0));
        let mapped =
            Namespaces::from_spec(&spec(r#"[{"type":"ipc"},{"type":"time"},{"type":"user"}]"#)).unwrap();
        assert_eq!(mapped.clone_flags(), Kind::User.flag());
        assert_eq!(mapped.late().collect::<Vec<_>>(), [Kind::Ipc, Kind::Time]);
        assert!(!ipc.is_late(Kind::Cgroup));
    }

    #[test]
    fn duplicates_and_relative_paths_are_refused() {
        let twice = Namespaces::from_spec(&spec(r#"[{"type":"pid"},{"type":"pid"}]"#)).unwrap_err();
        assert_eq!(twice.to_string(), "linux.namespaces[1]: `pid` is listed twice");
        assert!(Namespaces::from_spec(&spec(r#"[{"type":"pid","path":"ns/pid"}]"#)).is_err());
    }

    #[test]
    fn a_process_is_among_those_of_its_namespace() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(members(own, Kind::Pid).unwrap().contains(&own));
    }
}
