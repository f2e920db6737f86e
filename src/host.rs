//! Facts about this host, probed once and passed by reference: the kernel's cgroup layout and the caller.

pub mod kernel_log;
pub mod kernel_types;

use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use crate::error::{During, Error, Result};
use crate::files;

/// Where cgroup filesystems are mounted, by the conventions of every distribution.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What the rest of condo wants to know about the machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// How cgroup controllers are reached.
    pub cgroups: CgroupLayout,
    /// Who runs condo.
    pub caller: Caller,
}

/// Who runs this process, and how far its privileges reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Whether it is root with `CAP_SYS_ADMIN` in its own user namespace.
    pub admin: bool,
    /// Whether that namespace is the machine's first: only there may one make devices, cgroups and mounts as one likes.
    pub privileged: bool,
}

impl Caller {
    /// Looks at this process.
    pub fn probe() -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let sets = rustix::thread::capabilities(None);
        let admin = uid == 0 && sets.is_ok_and(|s| s.effective.contains(CapabilitySet::SYS_ADMIN));
        Self {
            uid,
            gid,
            admin,
            privileged: admin && in_first_user_namespace(),
        }
    }

    /// An ordinary user, for tests.
    #[cfg(test)]
    pub const USER: Self = Self {
        uid: 1000,
        gid: 1000,
        admin: false,
        privileged: false,
    };

    /// Root of the machine.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        admin: true,
        privileged: true,
    };
}

/// What tells this boot from others (`random(4)`).
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn boot() -> Result<String> {
    let text = files::read_text(Path::new("/proc/sys/kernel/random/boot_id"))
        .during(|| "tell this boot from others")?;
    Ok(text.trim().to_owned())
}

/// Whether the user namespace is the one the kernel began with, whose number is fixed (`PROC_USER_INIT_INO`). In another, as in a VPS,
/// root may not load eBPF programs, translate owners of file systems or make device nodes, whatever its capabilities.
pub fn in_first_user_namespace() -> bool {
    const FIRST: u64 = 0xEFFF_FFFD;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|found| found.st_ino == FIRST)
}

/// Where condo mounts cgroup2 on a host that has v1 controllers alone.
pub const OWN_CGROUP2: &str = "/run/condo-cgroup2";

/// The three shapes `/sys/fs/cgroup` has in the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupLayout {
    /// One cgroup2 hierarchy with all controllers.
    Unified(PathBuf),
    /// v1 controllers, with or without a cgroup2 hierarchy beside them.
    Hybrid {
        /// The v1 hierarchies, one element each.
        v1: Vec<Hierarchy>,
        /// The cgroup2 mount, used to keep track of processes (and for the controllers it has).
        unified: Option<PathBuf>,
    },
}

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers (`cpu`, `cpuacct`), or `name=systemd`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

impl Hierarchy {
    /// The name of its directory below `/sys/fs/cgroup`, which is also its name inside a container.
    pub fn dir_name(&self) -> &std::ffi::OsStr {
        self.mount.file_name().unwrap_or_default()
    }

    /// The options that mount this hierarchy again: its controllers, comma separated.
    pub fn mount_options(&self) -> String {
        self.controllers.join(",")
    }
}

impl CgroupLayout {
    /// What of it can stop processes.
    pub fn freezers(&self) -> Self {
        match self {
            Self::Hybrid { unified, .. } => Self::Hybrid {
                v1: self.with_controller("freezer"),
                unified: unified.clone(),
            },
            whole => whole.clone(),
        }
    }

    /// What of it counts memory: who looks at many cgroups opens no more than that of each.
    pub fn memories(&self) -> Self {
        match self.with_controller("memory") {
            v1 if v1.is_empty() => self.clone(),
            v1 => Self::Hybrid { v1, unified: None },
        }
    }

    /// Hierarchies of version 1 with a controller.
    fn with_controller(&self, controller: &str) -> Vec<Hierarchy> {
        let Self::Hybrid { v1, .. } = self else {
            return Vec::new();
        };
        let has = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|name| name == controller);
        v1.iter().filter(has).cloned().collect()
    }
}

impl Host {
    /// Looks at the machine.
    pub fn probe() -> Result<Self> {
        let caller = Caller::probe();
        let cgroups = match CgroupLayout::probe() {
            // Whoever may mount one is told so; others can do without.
            Err(Error::Unsupported { .. }) if !caller.privileged => CgroupLayout::Hybrid {
                v1: Vec::new(),
                unified: None,
            },
            probed => probed?,
        };
        Ok(Self { cgroups, caller })
    }
}

impl Host {
    /// A machine that nobody looked at, for plans that nobody carries out: root's.
    pub fn imagined(cgroups: CgroupLayout) -> Self {
        Self {
            cgroups,
            caller: Caller::ROOT,
        }
    }
}

impl CgroupLayout {
    /// Looks at `/sys/fs/cgroup` and [`OWN_CGROUP2`], without reading the mount table (which grows with every container).
    pub fn probe() -> Result<Self> {
        let root = Path::new(CGROUP_ROOT);
        if is_cgroup2(root) {
            return Ok(Self::Unified(root.to_path_buf()));
        }
        let places = [root.join("unified"), OWN_CGROUP2.into()];
        let unified = places.into_iter().find(|place| is_cgroup2(place));
        let v1 = v1_hierarchies(
            &files::read_text(Path::new("/proc/self/cgroup"))?,
            root,
            &is_cgroup1,
        );
        if v1.is_empty() && unified.is_none() {
            return Err(Error::unsupported(
                "resource control",
                format!(
                    "no cgroup filesystem below `{CGROUP_ROOT}`; mount one: mount -t cgroup2 none {CGROUP_ROOT}"
                ),
            ));
        }
        Ok(Self::Hybrid { v1, unified })
    }

    /// The cgroup2 mount, if there is one.
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Self::Unified(mount) => Some(mount),
            Self::Hybrid { unified, .. } => unified.as_deref(),
        }
    }
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == libc_magic::CGROUP2)
}

/// A directory that only has a controller's name is no hierarchy.
fn is_cgroup1(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == libc_magic::CGROUP)
}

/// Filesystem magics of `linux/magic.h`.
mod libc_magic {
    pub(super) const CGROUP: rustix::fs::FsWord = 0x0027_e0eb;
    pub(super) const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
}

/// The mounted v1 hierarchies out of `/proc/self/cgroup` (`cgroups(7)`: `hierarchy-ID:controller-list:path`).
fn v1_hierarchies(proc_self_cgroup: &str, root: &Path, is_mounted: &dyn Fn(&Path) -> bool) -> Vec<Hierarchy> {
    proc_self_cgroup
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|controllers| !controllers.is_empty())
        .filter_map(|controllers| {
            let mount = root.join(controllers.strip_prefix("name=").unwrap_or(controllers));
            is_mounted(&mount).then(|| Hierarchy {
                controllers: controllers.split(',').map(Into::into).collect(),
                mount,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounted_hierarchies_count() {
        let mounted = |path: &Path| path == Path::new("/r/cpu,cpuacct") || path == Path::new("/r/systemd");
        let lines = "3:cpu,cpuacct:/a\n2:memory:/\n1:name=systemd:/\n0::/x\n";
        let found = v1_hierarchies(lines, Path::new("/r"), &mounted);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].mount_options(), "name=systemd");
        assert_eq!(found[1].dir_name(), "systemd");
        assert!(!is_cgroup1(&std::env::temp_dir()));
    }
}
