//! All files of a tree given to other owners, as an id map would show them: where a file system cannot be mounted through one.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Stat};

use super::super::IdRange;
use super::node::{Attributes, Node, attributes, dress, list, look};
use super::walk::{Step, Walk};
use crate::error::{During, Result};

/// Access lists of files, which name users and groups (`acl(5)`).
const LISTS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];
/// Of a list's parts, those that name one (`ACL_USER` and `ACL_GROUP` of `linux/posix_acl.h`). Others have an id without a meaning.
const NAMING: [u16; 2] = [0x02, 0x08];
/// The capabilities of a program, and where those of a user namespace have the user who is root of it (`vfs_ns_cap_data` of
/// `linux/capability.h`). Others have no more bytes.
const CAPABILITIES: &CStr = c"security.capability";
const ROOT: std::ops::Range<usize> = 20..24;
/// Bytes before the parts of a list, and of each: tag, permissions, id (`linux/posix_acl_xattr.h`).
const HEADER: usize = 4;
const PART: usize = 8;

/// Gives what belongs to the ids from `from` on to those of `to`, one by one, which are others. The top is the last, so its owner tells
/// whether it was done; what was done half is taken up. What belongs to none of them stays.
///
/// # Errors
/// The kernel's, with the place in the tree.
pub fn hand_over(top: OwnedFd, from: u32, to: IdRange) -> Result<()> {
    let heirs = Heirs { from, to };
    let mut walk = Walk::new([Some(top)]);
    loop {
        match walk.step()? {
            Step::Entered => {
                let dir = walk.first()?;
                let mut dirs = Vec::new();
                for name in list(dir)? {
                    let node = Node::new(dir, &name);
                    match node.status()? {
                        Some(status) if look(&status) == FileType::Directory => dirs.push(name),
                        Some(status) => heirs.take(node, &status)?,
                        None => {}
                    }
                }
                walk.will_visit(dirs);
            }
            Step::Leaving => {
                let node = Node::new(walk.first()?, c".");
                if let Some(status) = node.status()? {
                    heirs.take(node, &status)?;
                }
                if walk.leave()? == Step::Over {
                    return Ok(());
                }
            }
            Step::Over => return Ok(()),
        }
    }
}

/// Who has what belongs to others.
#[derive(Debug, Clone, Copy)]
pub struct Heirs {
    /// The first of the others' ids, of which there are as many.
    pub from: u32,
    /// Their own.
    pub to: IdRange,
}

impl Heirs {
    /// Takes one file, unless it was taken before: by another of its names, or by whoever was interrupted.
    fn take(self, node: Node<'_>, status: &Stat) -> Result<()> {
        let is_own = |id: u32| {
            id.checked_sub(self.to.base)
                .is_some_and(|offset| offset < self.to.size)
        };
        if is_own(status.st_uid) || is_own(status.st_gid) {
            return Ok(());
        }
        let (status, attributes) = self.of(status, attributes(node)?);
        dress(node, &status, &attributes)
            .during(|| format!("give `{}` to its new owner", node.name.to_string_lossy()))
    }

    /// A file's status and attributes as they are when it is theirs.
    pub(super) fn of(self, status: &Stat, mut attributes: Attributes) -> (Stat, Attributes) {
        let mut taken = *status;
        (taken.st_uid, taken.st_gid) = (self.id(status.st_uid), self.id(status.st_gid));
        for (name, value) in &mut attributes {
            if LISTS.contains(&name.as_c_str()) {
                self.list(value);
            } else if name.as_c_str() == CAPABILITIES
                && let Some(root) = value.get_mut(ROOT)
            {
                self.written(root);
            }
        }
        (taken, attributes)
    }

    fn id(self, id: u32) -> u32 {
        match id.checked_sub(self.from) {
            Some(offset) if offset < self.to.size => self.to.base + offset,
            _ => id,
        }
    }

    fn list(self, list: &mut [u8]) {
        for part in list.get_mut(HEADER..).unwrap_or_default().chunks_exact_mut(PART) {
            let [a, b, _, _, id @ ..] = part else { continue };
            if NAMING.contains(&u16::from_le_bytes([*a, *b])) {
                self.written(id);
            }
        }
    }

    /// An id as attributes have it.
    fn written(self, place: &mut [u8]) {
        if let Ok(bytes) = <[u8; 4]>::try_from(&*place) {
            place.copy_from_slice(&self.id(u32::from_le_bytes(bytes)).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEIRS: Heirs = Heirs {
        from: 0,
        to: IdRange {
            base: 65_536,
            size: 131_072,
        },
    };

    #[test]
    fn each_id_has_its_heir() {
        for (id, wanted) in [
            (0, 65_536),
            (1000, 66_536),
            (65_536, 131_072),
            (131_071, 196_607),
            (131_072, 131_072),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(HEIRS.id(id), wanted, "{id}");
        }
    }

    #[test]
    fn named_users_and_groups_of_a_list_are_others() {
        let part = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let list = |user: u32, group: u32| {
            let parts = [
                part(1, u32::MAX),
                part(2, user),
                part(8, group),
                part(0x10, u32::MAX),
            ];
            [&2_u32.to_le_bytes()[..], &parts.concat()].concat()
        };
        let mut given = list(1000, 5);
        HEIRS.list(&mut given);
        assert_eq!(given, list(66_536, 65_541));
        let mut broken = vec![2, 0, 0];
        HEIRS.list(&mut broken);
        assert_eq!(broken, [2, 0, 0]);
    }
}
