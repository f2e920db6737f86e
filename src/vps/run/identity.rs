//! What makes a system itself and not one more copy of its image: the machine's id, and ssh's host keys.
//!
//! Whoever has one VPS of an image has its keys, and could pass for all others. New keys are made inside, by the system's own
//! program and within the VPS's limits, before its init begins. One for RSA takes as long as all the rest of a first boot, and no
//! client needs it where there is another: it is made when the system is up.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::files::Root;

/// Where a machine's id is: systemd's and D-Bus's.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// Seconds after which a system is up that was given little time.
const UP: u8 = 5;
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
const SSH_RSA: &str = "ssh_host_rsa_key";
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_MORE: &str = "/etc/ssh/sshd_config.d";
const INCLUDES_MORE: &str = " /etc/ssh/sshd_config.d/*.conf";
/// Most that is read of one of its files.
const LONGEST_CONFIG: u64 = 1 << 16;
const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";
const DROPBEAR: &str = "/etc/dropbear";
const DROPBEARKEY: &str = "/usr/bin/dropbearkey";

const KEYS: [Key; 6] = [
    openssh(SSH_RSA, "-q -N '' -t rsa -f"),
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

    /// Those of this system's that are made before its init begins, and those that can wait. sshd until 9.7 reads its keys at each
    /// connection, and a later one at its start.
    pub(super) fn by_haste(keys: Vec<Self>, root: &Root) -> (Vec<Self>, Vec<Self>) {
        let is_slow = |key: &Self| key.name == SSH_RSA;
        let has_other = keys.iter().any(|key| key.dir == SSH && !is_slow(key));
        let can_wait = has_other && keys.iter().any(is_slow) && !chooses_keys(root);
        keys.into_iter().partition(|key| !(can_wait && is_slow(key)))
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

/// Whether sshd may have been told which keys it is to have, and so which it cannot do without (`sshd_config(5)`).
fn chooses_keys(root: &Root) -> bool {
    let more = root.get(Path::new(SSHD_CONFIG_MORE), OFlags::RDONLY | OFlags::DIRECTORY);
    let more = more.ok().and_then(|dir| rustix::fs::Dir::read_from(dir).ok());
    let more = more.into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().to_str().ok()?;
        name.ends_with(".conf")
            .then(|| Path::new(SSHD_CONFIG_MORE).join(name))
    });
    let mut all = more.chain([Path::new(SSHD_CONFIG).to_owned()]);
    all.any(|path| {
        let text = root.read(&path, LONGEST_CONFIG).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| {
            line.starts_with("hostkey") || line.starts_with("include") && !line.ends_with(INCLUDES_MORE)
        })
    })
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

/// Commands of a shell that make these keys.
pub(super) fn lines_to_make(keys: &[Key]) -> String {
    let make = |key: &Key| format!("{} {} {}; ", key.program, key.arguments, key.path());
    let lines: String = keys.iter().map(make).collect();
    match lines.as_str() {
        "" => lines,
        lines => format!("{{ {lines}}} < /dev/null > /dev/null; "),
    }
}

/// The same without waiting for it, once the system is up. Who takes over the console hangs up on all that have it.
pub(super) fn lines_to_make_later(keys: &[Key]) -> String {
    match lines_to_make(keys).as_str() {
        "" => String::new(),
        lines => format!("(trap '' HUP; sleep {UP}; {lines}) < /dev/null > /dev/null 2>&1 & "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_key_can_wait_where_it_is_not_alone() {
        let top = std::env::temp_dir().join(format!("condo-keys-{}", std::process::id()));
        let (config, more) = (top.join("etc/ssh/sshd_config"), top.join("etc/ssh/sshd_config.d"));
        std::fs::create_dir_all(&more).unwrap();
        let root = Root::open(&top).unwrap();
        let late = |paths: &str| {
            let (now, later) = Key::by_haste(Key::listed(paths), &root);
            assert_eq!(now.len() + later.len(), paths.lines().count());
            later.into_iter().map(Key::path).collect::<Vec<_>>()
        };
        let rsa = "/etc/ssh/ssh_host_rsa_key\n";
        assert!(late(rsa).is_empty());
        // dropbear reads its keys at its start alone.
        let dropbear = "/etc/dropbear/dropbear_rsa_host_key\n/etc/dropbear/dropbear_ed25519_host_key\n";
        assert!(late(&format!("{rsa}{dropbear}")).is_empty());
        let all = format!("{rsa}/etc/ssh/ssh_host_ecdsa_key\n");
        assert_eq!(late(&all), [rsa.trim()]);
        // Debian's.
        std::fs::write(
            &config,
            "#HostKey x\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22\n",
        )
        .unwrap();
        assert_eq!(late(&all), [rsa.trim()]);
        std::fs::write(
            more.join("own.conf"),
            "Port 22\n hostkey /etc/ssh/ssh_host_rsa_key\n",
        )
        .unwrap();
        assert!(late(&all).is_empty());
        std::fs::remove_file(more.join("own.conf")).unwrap();
        std::fs::write(&config, "Include /etc/own\n").unwrap();
        assert!(late(&all).is_empty());
        std::fs::remove_dir_all(&top).unwrap();
    }
}
