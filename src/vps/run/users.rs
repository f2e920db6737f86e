//! Users of a VPS, looked up in its own `/etc/passwd` and `/etc/group`, which are the tenant's and so not to be trusted.

use std::path::Path;

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::files::Root;
use crate::process::credentials;

/// Most that is read of a tenant's file.
const MAX_FILE: u64 = 1 << 20;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Login name, where there is one.
    pub(super) name: Option<String>,
    /// User id.
    pub(super) uid: u32,
    /// Primary group.
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: Vec<u32>,
    /// Home directory, or `/` where it is not there.
    pub(super) home: String,
}

/// Looks up `NAME` or `UID`, with `:GROUP` or `:GID` behind it or without; root when absent.
pub(super) fn find(root: &Root, wanted: Option<&str>) -> Result<User> {
    let read = |path: &str| {
        let bytes = root.read(Path::new(path), MAX_FILE).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut user = choose(&read("/etc/passwd"), &read("/etc/group"), wanted.unwrap_or("0"))?;
    // As login(1) does it: a home that is not there, as that of nobody, locks nobody out.
    let home = Path::new(&user.home);
    if !home.is_absolute() || root.get(home, OFlags::PATH | OFlags::DIRECTORY).is_err() {
        user.home = "/".into();
    }
    Ok(user)
}

fn choose(passwd: &str, group: &str, wanted: &str) -> Result<User> {
    let (who, gid) = wanted
        .split_once(':')
        .map_or((wanted, None), |(who, gid)| (who, Some(gid)));
    let unknown = || {
        Error::invalid(
            "--user",
            wanted,
            "is not a user of the VPS: use NAME or UID, and :GROUP or :GID behind it",
        )
    };
    let gid = gid
        .map(|gid| {
            credentials::id(gid)
                .or_else(|| gid_of(group, gid))
                .ok_or_else(unknown)
        })
        .transpose()?;
    let entry = passwd
        .lines()
        .filter_map(Entry::read)
        .find(|e| e.name == who || credentials::id(who) == Some(e.uid));
    let mut user = match entry {
        Some(e) => User {
            name: Some(e.name.into()),
            uid: e.uid,
            gid: e.gid,
            groups: member_of(group, e.name),
            home: e.home.into(),
        },
        // A number needs no entry.
        None => {
            let uid = credentials::id(who).ok_or_else(unknown)?;
            User {
                name: None,
                uid,
                gid: 0,
                groups: Vec::new(),
                home: "/".into(),
            }
        }
    };
    user.gid = gid.unwrap_or(user.gid);
    Ok(user)
}

/// A line of `passwd(5)`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            name,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: if home.is_empty() { "/" } else { home },
        })
    }
}

/// The number of a group of `group(5)`.
fn gid_of(group: &str, name: &str) -> Option<u32> {
    let mut lines = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find_map(|fields| match fields.as_slice() {
        [found, _, gid, ..] if *found == name => gid.parse().ok(),
        _ => None,
    })
}

/// The groups of `group(5)` that list the user.
fn member_of(group: &str, name: &str) -> Vec<u32> {
    group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members, ..] = fields.as_slice() else {
                return None;
            };
            members
                .split(',')
                .any(|m| m == name)
                .then(|| gid.parse().ok())
                .flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1000:1001::/home/web:/bin/sh\n";
    const GROUP: &str = "adm:x:4:web,root\nnobody:x:5:\n";

    #[test]
    fn names_and_numbers_are_found_with_their_groups() {
        let web = choose(PASSWD, GROUP, "web").unwrap();
        assert_eq!(
            (web.uid, web.gid, web.groups.as_slice(), web.home.as_str()),
            (1000, 1001, &[4][..], "/home/web")
        );
        assert_eq!(choose(PASSWD, GROUP, "1000").unwrap(), web);
        assert_eq!(choose(PASSWD, GROUP, "0:7").unwrap().gid, 7);
        assert_eq!(choose(PASSWD, GROUP, "web:adm").unwrap().gid, 4);
        assert_eq!(choose("", "", "0").unwrap().uid, 0);
    }

    #[test]
    fn junk_is_refused() {
        for bad in ["", "nobody", "1000x", "0:", "0:x", "-1", "4294967295"] {
            assert!(choose(PASSWD, GROUP, bad).is_err(), "{bad}");
        }
    }
}
