//! What makes a system itself and not one more copy of its image: the machine's id, and ssh's host keys.
//!
//! Whoever has one VPS of an image has its keys, and could pass for all others. New keys are made inside, by the system's own
//! program and within the VPS's limits, before its init begins.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::files::Root;

/// Where a machine's id is: systemd's and D-Bus's.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// Longest machine id that is looked at; a real one has 33 bytes.
const LONGEST: u64 = 64;

/// A host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Its directory and name.
    dir: &'static str,
    name: &'static str,
    /// What makes one: the program, and its arguments but for the file.
    program: &'static str,
    arguments: &'static str,
}

const SSH: &str = "/etc/ssh";
const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";
const DROPBEAR: &str = "/etc/dropbear";
const DROPBEARKEY: &str = "/usr/bin/dropbearkey";

const KEYS: [Key; 6] = [
    openssh("ssh_host_rsa_key", "-q -N '' -t rsa -f"),
    openssh("ssh_host_ecdsa_key", "-q -N '' -t ecdsa -f"),
    openssh("ssh_host_ed25519_key", "-q -N '' -t ed25519 -f"),
    dropbear("dropbear_rsa_host_key", "-t rsa -f"),
    dropbear("dropbear_ecdsa_host_key", "-t ecdsa -f"),
    dropbear("dropbear_ed25519_host_key", "-t ed25519 -f"),
];

/// Keys that nobody makes any more, and what belongs to others: they go as well.
const OBSOLETE: [(&str, &str); 2] = [(SSH, "ssh_host_dsa_key"), (DROPBEAR, "dropbear_dss_host_key")];
const ALONGSIDE: [&str; 3] = ["", ".pub", "-cert.pub"];

const fn openssh(name: &'static str, arguments: &'static str) -> Key {
    Key {
        dir: SSH,
        name,
        program: SSH_KEYGEN,
        arguments,
    }
}

const fn dropbear(name: &'static str, arguments: &'static str) -> Key {
    Key {
        dir: DROPBEAR,
        name,
        program: DROPBEARKEY,
        arguments,
    }
}

impl Key {
    /// Its path inside, which is also how it is written down.
    pub(super) fn path(self) -> String {
        format!("{}/{}", self.dir, self.name)
    }

    /// Those of a list of paths, a line each.
    pub(super) fn listed(paths: &str) -> Vec<Self> {
        KEYS.into_iter()
            .filter(|key| paths.lines().any(|path| path == key.path()))
            .collect()
    }

    /// Whether there is one.
    pub(super) fn is_in(self, root: &Root) -> bool {
        root.has(Path::new(&self.path()))
    }
}

/// Gives a copy of an image a machine id of its own and takes the host keys away of which new ones can be made; which these are.
pub(super) fn renew(root: &Root, uuid: &str) -> Result<Vec<Key>> {
    let id = format!("{}\n", uuid.replace('-', ""));
    for path in MACHINE_IDS.map(Path::new) {
        // An empty one, or `uninitialized`, the system itself fills at its first boot, with the id it is handed.
        let has_one = |text: &[u8]| text.trim_ascii().len() == 32;
        if is_file(root, path)? && root.read(path, LONGEST).is_ok_and(|text| has_one(&text)) {
            root.write(path, id.as_bytes(), 0o444)?;
        }
    }
    let can_make = |program: &str| root.has(Path::new("/bin/sh")) && root.has(Path::new(program));
    let mut removed = Vec::new();
    for key in KEYS.into_iter().filter(|key| can_make(key.program)) {
        if remove(root, key.dir, key.name)? {
            removed.push(key);
        }
    }
    for (dir, name) in OBSOLETE {
        if removed.iter().any(|key| key.dir == dir) {
            remove(root, dir, name)?;
        }
    }
    Ok(removed)
}

/// Whether there is a regular file, and no link to one.
fn is_file(root: &Root, path: &Path) -> Result<bool> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let dir = match root.get(dir, OFlags::PATH | OFlags::DIRECTORY) {
        Err(e) if e.is_gone() || e.errno() == Some(Errno::NOTDIR.raw_os_error()) => return Ok(false),
        other => other?,
    };
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        other => Ok(FileType::from_raw_mode(other?.st_mode) == FileType::RegularFile),
    }
}

/// Removes a key, its public half and its certificate; whether there was one.
fn remove(root: &Root, dir: &str, name: &str) -> Result<bool> {
    if !is_file(root, &Path::new(dir).join(name))? {
        return Ok(false);
    }
    let dir = root.get(Path::new(dir), OFlags::PATH | OFlags::DIRECTORY)?;
    for end in ALONGSIDE {
        match rustix::fs::unlinkat(&dir, format!("{name}{end}"), AtFlags::empty()) {
            Err(Errno::NOENT | Errno::ISDIR) => {}
            other => other.during(|| format!("remove the image's `{name}{end}`"))?,
        }
    }
    Ok(true)
}

/// The lines of a shell that make these keys.
pub(super) fn lines_to_make(keys: &[Key]) -> String {
    let make = |key: &Key| {
        format!(
            "{} {} {} < /dev/null > /dev/null; ",
            key.program,
            key.arguments,
            key.path()
        )
    };
    keys.iter().map(make).collect()
}
