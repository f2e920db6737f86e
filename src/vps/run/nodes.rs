//! The device nodes of a VPS.
//!
//! Only the host's root makes nodes, and a node that is bound from the host's `/dev` is the host's inode: a lock (`flock(2)`)
//! that a tenant takes on it blocks others, and a watch (`inotify(7)`) on it sees them. So each VPS gets nodes of its own, made in a
//! tmpfs that nobody but it sees, with its root as their owner.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, Uid};
use rustix::mount::MountFlags;

use crate::error::{During, Result};
use crate::files;
use crate::vps::record::permit::Permit;

/// A character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it is below `/dev`.
    pub(super) name: &'static str,
    /// Number of the driver.
    pub(super) major: u32,
    /// Number of the device.
    pub(super) minor: u32,
}

const fn node(name: &'static str, major: u32, minor: u32) -> Node {
    Node { name, major, minor }
}

/// What every program expects (config-linux.md, "Default Devices"). Terminals come with their own file system.
const STANDARD: [Node; 6] = [
    node("null", 1, 3),
    node("zero", 1, 5),
    node("full", 1, 7),
    node("random", 1, 8),
    node("urandom", 1, 9),
    node("tty", 5, 0),
];

/// The nodes of a VPS with these permits.
pub(super) fn of(permits: &BTreeSet<Permit>) -> impl Iterator<Item = Node> {
    let permitted = permits.iter().filter_map(|permit| match permit {
        Permit::Fuse => Some(node("fuse", 10, 229)),
        Permit::Tun => Some(node("net/tun", 10, 200)),
        Permit::PacketRings | Permit::Socketcall => None,
    });
    STANDARD.into_iter().chain(permitted)
}

/// Makes the nodes below `dir`, in a tmpfs that is mounted there. The caller is in a mount namespace of its own.
///
/// `root` is the VPS's root, as the host numbers it.
pub(super) fn make(dir: &Path, permits: &BTreeSet<Permit>, root: u32) -> Result<()> {
    files::create_dir_all(dir, 0o700)?;
    let work = || -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        rustix::mount::mount(
            "tmpfs",
            dir,
            "tmpfs",
            flags,
            Some(c"size=64k,nr_inodes=32,mode=700"),
        )?;
        of(permits).try_for_each(|node| node.make(dir, root))
    };
    work().during(|| format!("make device nodes in `{}`", dir.display()))
}

impl Node {
    fn make(self, dir: &Path, root: u32) -> Result<()> {
        let path = dir.join(self.name);
        if let Some(parent) = path.parent() {
            files::create_dir_all(parent, 0o700)?;
        }
        let number = rustix::fs::makedev(self.major, self.minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, number)?;
        rustix::fs::chmod(&path, mode)?;
        rustix::fs::chown(&path, Some(Uid::from_raw(root)), Some(Gid::from_raw(root)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_bring_their_nodes() {
        let names = |permits: &[Permit]| -> Vec<&str> {
            let permits = permits.iter().copied().collect();
            of(&permits).map(|node| node.name).skip(STANDARD.len()).collect()
        };
        assert!(names(&[Permit::Socketcall, Permit::PacketRings]).is_empty());
        assert_eq!(names(&[Permit::Tun, Permit::Fuse]), ["fuse", "net/tun"]);
    }
}
