//! The device nodes of a VPS.
//!
//! Only the host's root makes nodes, and a node that is bound from the host's `/dev` is the host's inode: a lock (`flock(2)`)
//! that a tenant takes on it blocks others, and a watch (`inotify(7)`) on it sees them. So each VPS gets nodes of its own, made in a
//! tmpfs that nobody but it sees, with its root as their owner. Where condo is in a VPS itself nobody makes nodes, and a VPS in it gets that
//! one's.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, Uid};
use rustix::mount::MountFlags;

use crate::error::{During, Result};
use crate::files;
use crate::host::in_first_user_namespace;
use crate::vps::record::config::VpsConfig;
use crate::vps::record::device::Number;
use crate::vps::record::permit::{self, Permit};

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it is below `/dev`.
    pub(super) name: PathBuf,
    /// What it stands for.
    pub(super) number: Number,
}

fn node(name: &str, major: u32, minor: u32) -> Node {
    Node {
        name: name.into(),
        number: Number {
            block: false,
            major,
            minor,
        },
    }
}

/// What every program expects (config-linux.md, "Default Devices"). Terminals come with their own file system.
const STANDARD: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The nodes that every VPS has.
pub(super) fn standard() -> Vec<Node> {
    STANDARD
        .map(|(name, major, minor)| node(name, major, minor))
        .to_vec()
}

/// The node that is permitted, where it is one: both are among the miscellaneous devices (10).
pub(super) fn permitted(permit: Permit) -> Option<Node> {
    match permit {
        Permit::Fuse => Some(node("fuse", 10, 229)),
        Permit::Tun => Some(node("net/tun", 10, 200)),
        Permit::LargeBuffers | Permit::LargeTables | Permit::PacketRings | Permit::Socketcall => None,
    }
}

/// The nodes of a VPS. Devices of the host's are looked at now: what they were when the VPS was created may be another's today.
///
/// # Errors
/// As [`Device::find`](crate::vps::record::device::Device::find).
pub(super) fn of(config: &VpsConfig) -> Result<Vec<Node>> {
    let mut all = standard();
    all.extend(
        permit::effective(&config.permit, config.nesting)
            .into_iter()
            .filter_map(permitted),
    );
    for device in &config.devices {
        let name = device.name().to_owned();
        if all.iter().all(|node| node.name != name) {
            let number = device.find()?;
            all.push(Node { name, number });
        }
    }
    Ok(all)
}

/// The directory beside the nodes for a whole procfs and sysfs, which only the VPS's root may see.
pub(super) const WHOLE: &str = ".whole";

/// Makes the nodes below `dir`, in a tmpfs that is mounted there. The caller is in a mount namespace of its own.
///
/// `root` is the VPS's root, as the host numbers it.
pub(super) fn make(dir: &Path, nodes: &[Node], root: u32) -> Result<()> {
    files::create_dir_all(dir, 0o700)?;
    let work = || -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        rustix::mount::mount(
            "tmpfs",
            dir,
            "tmpfs",
            flags,
            Some(c"size=64k,nr_inodes=256,mode=700"),
        )?;
        nodes.iter().try_for_each(|node| node.make(dir, root))?;
        make_whole(&dir.join(WHOLE), root)
    };
    work().during(|| format!("make device nodes in `{}`", dir.display()))
}

fn make_whole(dir: &Path, root: u32) -> Result<()> {
    for (place, mode) in [
        (dir.to_owned(), 0o700),
        (dir.join("proc"), 0o555),
        (dir.join("sys"), 0o555),
    ] {
        rustix::fs::mkdir(&place, Mode::from_raw_mode(mode))?;
        rustix::fs::chown(&place, Some(Uid::from_raw(root)), Some(Gid::from_raw(root)))?;
    }
    Ok(())
}

impl Node {
    fn make(&self, dir: &Path, root: u32) -> Result<()> {
        let path = dir.join(&self.name);
        if let Some(parent) = path.parent() {
            files::create_dir_all(parent, 0o700)?;
        }
        if !in_first_user_namespace() {
            return self.bind(&path);
        }
        let number = rustix::fs::makedev(self.number.major, self.number.minor);
        let mode = Mode::from_raw_mode(0o666);
        let kind = match self.number.block {
            true => FileType::BlockDevice,
            false => FileType::CharacterDevice,
        };
        rustix::fs::mknodat(CWD, &path, kind, mode, number)?;
        rustix::fs::chmod(&path, mode)?;
        rustix::fs::chown(&path, Some(Uid::from_raw(root)), Some(Gid::from_raw(root)))?;
        Ok(())
    }

    fn bind(&self, path: &Path) -> Result<()> {
        let own = Path::new("/dev").join(&self.name);
        std::fs::write(path, "")?;
        rustix::mount::mount_bind(&own, path).during(|| format!("bind `{}`", own.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_bring_their_nodes() {
        let names = |permits: &[Permit], nesting: bool, devices: &[&str]| -> Vec<String> {
            let config = VpsConfig {
                permit: permits.iter().copied().collect(),
                devices: devices.iter().map(|device| device.parse().unwrap()).collect(),
                nesting,
                ..VpsConfig::new("busybox")
            };
            let nodes = of(&config).unwrap().into_iter().skip(STANDARD.len());
            nodes.map(|node| node.name.display().to_string()).collect()
        };
        assert!(names(&[Permit::Socketcall, Permit::PacketRings], false, &[]).is_empty());
        assert_eq!(
            names(&[Permit::Tun, Permit::Fuse], false, &[]),
            ["fuse", "net/tun"]
        );
        assert_eq!(names(&[Permit::Tun], true, &["fuse"]), ["fuse", "net/tun"]);
    }
}
