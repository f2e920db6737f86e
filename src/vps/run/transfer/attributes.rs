//! Extended attributes on their way: those of users, access lists, file capabilities. On the way users and groups have the numbers
//! that they have inside of the VPS.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::file::{Ids, NOBODY};
use crate::error::{During, Error, Result};

/// Bytes that one file may have in them: an archive takes no more either.
const MOST: usize = 1 << 20;
/// The longest list of names and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 65_536;
/// Which programs get which capabilities.
const CAPABILITY: &str = "security.capability";
/// Access lists: a version, then entries of a tag, permissions and a number (`posix_acl_xattr.h`).
const LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
const LIST_VERSION: u32 = 2;
/// The tags whose number is a user's or a group's.
const NAMED: [u16; 2] = [0x02, 0x08];
/// Revisions of file capabilities (`capabilities(7)`): those of the host's root, and those of the root with the number at their end.
const OF_ROOT: (u32, usize) = (0x0200_0000, 20);
const OF_ANOTHER: (u32, usize) = (0x0300_0000, 24);
const REVISION: u32 = 0xff00_0000;

/// What a file has beside content, owner, mode and time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, Vec<u8>)>);

impl Attributes {
    /// None at all.
    #[cfg(test)]
    pub(super) const NONE: Self = Self(Vec::new());

    /// Those of an open file of a side. What means nothing elsewhere is left out.
    pub(super) fn of(file: BorrowedFd<'_>, ids: Ids) -> Result<Self> {
        let mut names = Vec::with_capacity(1024);
        match rustix::fs::flistxattr(file, spare_capacity(&mut names)) {
            Err(Errno::OPNOTSUPP) => return Ok(Self::default()),
            Err(Errno::RANGE) => {
                names = Vec::with_capacity(LONGEST);
                rustix::fs::flistxattr(file, spare_capacity(&mut names))?;
            }
            other => drop(other?),
        }
        let mut found = Self::default();
        let mut left = MOST;
        for name in names.split(|byte| *byte == 0) {
            let Some(name) = std::str::from_utf8(name).ok().filter(|name| travels(name)) else {
                continue;
            };
            let Some(value) = value(file, name)? else { continue };
            left = left.checked_sub(name.len() + value.len()).ok_or_else(|| {
                Error::unsupported(
                    "a file with more than 1M of extended attributes",
                    "copy it without them, by an archive made inside",
                )
            })?;
            let value = match name {
                CAPABILITY => capability_inside(&value, ids),
                _ if LISTS.contains(&name) => Some(list_with(value, |id| named_inside(id, ids))?),
                _ => Some(value),
            };
            found.0.extend(value.map(|value| (name.to_owned(), value)));
        }
        found.0.sort_unstable();
        Ok(found)
    }

    /// Those of a file in an archive.
    pub(super) fn listed(listed: &[(String, Vec<u8>)]) -> Self {
        Self(listed.iter().filter(|(name, _)| travels(name)).cloned().collect())
    }

    /// Each with its name, as inside.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Gives them to a file of a side, whose owner and mode are final: a change of owner takes capabilities away.
    pub(super) fn put(&self, file: impl AsFd, ids: Ids) -> Result<()> {
        for (name, value) in self.iter() {
            let value = match name {
                CAPABILITY => match capability_of(value, ids) {
                    Some(value) => value,
                    None => continue,
                },
                _ if LISTS.contains(&name) => {
                    list_with(value.to_vec(), |id| ids.outside(id).unwrap_or(NOBODY))?
                }
                _ => value.to_vec(),
            };
            rustix::fs::fsetxattr(&file, name, &value, XattrFlags::empty())
                .during(|| format!("set the attribute `{name}`, which only --archive copies"))?;
        }
        Ok(())
    }
}

/// The number inside of somebody whom an access list names. overlayfs before Linux 6.2 tells the numbers of its layers, which are
/// those inside already. A VPS's numbers on the host begin above all that it has, so that both are told apart.
fn named_inside(id: u32, ids: Ids) -> u32 {
    if id < ids.count.min(ids.base) {
        return id;
    }
    ids.inside(id)
}

/// Takes away the access lists that a new file has inherited from its folder (`acl(5)`: the default list).
pub(super) fn clear_lists(file: impl AsFd) -> Result<()> {
    for name in LISTS {
        match rustix::fs::fremovexattr(&file, name) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            other => other.during(|| format!("remove the attribute `{name}`"))?,
        }
    }
    Ok(())
}

/// Whether an attribute means the same elsewhere; not overlayfs' marks and the labels of security modules.
fn travels(name: &str) -> bool {
    name == CAPABILITY
        || LISTS.contains(&name)
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

fn value(file: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(LONGEST);
    match rustix::fs::fgetxattr(file, name, spare_capacity(&mut value)) {
        // Gone while we looked.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        other => Ok(other.map(|_| Some(value))?),
    }
}

/// An access list with other numbers.
fn list_with(mut list: Vec<u8>, number: impl Fn(u32) -> u32) -> Result<Vec<u8>> {
    let broken = || Error::invalid("access list", list_shown(&list), "is none that this condo knows");
    let Some((version, entries)) = list.split_at_checked(4) else {
        return Err(broken());
    };
    if version != LIST_VERSION.to_le_bytes() || !entries.len().is_multiple_of(8) {
        return Err(broken());
    }
    for entry in list[4..].chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if NAMED.contains(&tag) {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..].copy_from_slice(&number(id).to_le_bytes());
        }
    }
    Ok(list)
}

fn list_shown(list: &[u8]) -> String {
    format!("{:02x?}", &list[..list.len().min(16)])
}

/// File capabilities as the root inside sees its own. Those of another root mean nothing there.
fn capability_inside(value: &[u8], ids: Ids) -> Option<Vec<u8>> {
    let (revision, owner) = read(value)?;
    (owner == ids.base).then(|| written(value, revision, None))
}

/// The other way around. On the host, what a tenant made gives nobody any.
fn capability_of(value: &[u8], ids: Ids) -> Option<Vec<u8>> {
    let (revision, owner) = read(value)?;
    (owner == 0 && ids.base != 0).then(|| written(value, revision, Some(ids.base)))
}

/// Revision and flags of file capabilities, and whose root they are for.
fn read(value: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?));
    let head = word(0)?;
    let owner = match (head & REVISION, value.len()) {
        OF_ROOT => 0,
        OF_ANOTHER => word(20)?,
        _ => return None,
    };
    Some((head, owner))
}

fn written(value: &[u8], head: u32, owner: Option<u32>) -> Vec<u8> {
    let revision = if owner.is_some() { OF_ANOTHER.0 } else { OF_ROOT.0 };
    let mut written = ((head & !REVISION) | revision).to_le_bytes().to_vec();
    written.extend_from_slice(&value[4..20]);
    written.extend(owner.into_iter().flat_map(u32::to_le_bytes));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: Ids = Ids {
        base: 7000,
        count: 1 << 16,
    };
    const HOST: Ids = Ids {
        base: 0,
        count: u32::MAX,
    };

    /// `cap_net_raw=ep`, of the host's root and of another.
    fn raw(owner: Option<u32>) -> Vec<u8> {
        let mut value = if owner.is_some() {
            0x0300_0001_u32
        } else {
            0x0200_0001
        }
        .to_le_bytes()
        .to_vec();
        value.extend_from_slice(&[0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        value.extend(owner.into_iter().flat_map(u32::to_le_bytes));
        value
    }

    #[test]
    fn capabilities_are_those_of_the_root_inside() {
        assert_eq!(capability_inside(&raw(Some(7000)), INSIDE), Some(raw(None)));
        assert_eq!(capability_of(&raw(None), INSIDE), Some(raw(Some(7000))));
        assert_eq!(capability_inside(&raw(None), HOST), Some(raw(None)));
        assert_eq!(capability_inside(&raw(Some(9)), INSIDE), None, "another's");
        assert_eq!(capability_inside(&raw(None), INSIDE), None, "the host's");
        assert_eq!(capability_of(&raw(None), HOST), None, "a tenant's, on the host");
        assert_eq!(capability_of(&raw(Some(0)), INSIDE), Some(raw(Some(7000))));
        for broken in [&b""[..], b"\0\0\0\x02", &[0; 20], &[0; 24]] {
            assert_eq!(capability_inside(broken, INSIDE), None);
        }
    }

    #[test]
    fn lists_name_the_same_users_elsewhere() {
        let entry = |tag: u16, id: u32| {
            let mut entry = [tag.to_le_bytes(), 6_u16.to_le_bytes()].concat();
            entry.extend_from_slice(&id.to_le_bytes());
            entry
        };
        let list = |id: u32| {
            [
                vec![2, 0, 0, 0],
                entry(0x01, u32::MAX),
                entry(0x02, id),
                entry(0x20, u32::MAX),
            ]
            .concat()
        };
        assert_eq!(list_with(list(7033), |id| INSIDE.inside(id)).unwrap(), list(33));
        assert_eq!(list_with(list(9), |id| INSIDE.inside(id)).unwrap(), list(NOBODY));
        for (said, inside) in [(7033, 33), (33, 33), (80_000, NOBODY)] {
            assert_eq!(named_inside(said, INSIDE), inside);
        }
        assert_eq!(named_inside(33, HOST), 33);
        for broken in [&b""[..], &[1, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert!(list_with(broken.to_vec(), |id| id).is_err());
        }
    }

    #[test]
    fn only_what_means_the_same_travels() {
        for name in ["user.note", "security.capability", "system.posix_acl_default"] {
            assert!(travels(name), "{name}");
        }
        for name in [
            "user.overlay.opaque",
            "trusted.overlay.opaque",
            "security.selinux",
            "system.nfs4_acl",
            "",
        ] {
            assert!(!travels(name), "{name}");
        }
    }
}
