//! How the owner gets in: keys and password of root.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::super::users;
use super::LARGEST;
use crate::error::{During, Result};
use crate::files::{NewFile, Root};
use crate::vps::record::first_boot::FirstBoot;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
/// Where sshd reads pieces of its configuration, first come first served (`sshd_config(5)`).
const SSHD: &str = "/etc/ssh/sshd_config.d";
/// Debian's sshd takes no password of root's by itself.
const BY_PASSWORD: &str = "# Root was given a password, and no key, when this system was made.\n\
                           PermitRootLogin yes\nPasswordAuthentication yes\n";

pub(super) fn let_in(root: &Root, given: &FirstBoot) -> Result<()> {
    if !given.ssh_keys.is_empty() {
        put_keys(root, &given.ssh_keys)?;
    }
    let Some(hash) = &given.password else {
        return Ok(());
    };
    put_password(root, hash)?;
    // With a key there is no need to open a door for guessing.
    if given.ssh_keys.is_empty() && root.has(Path::new(SSHD)) {
        let path = Path::new(SSHD).join("50-condo.conf");
        root.write(&path, BY_PASSWORD.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn text(root: &Root, path: &Path) -> String {
    let bytes = root.read(path, LARGEST).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Adds keys to those that the image has for root. sshd takes none from a place that others may write to.
fn put_keys(root: &Root, keys: &[String]) -> Result<()> {
    let home = match users::find(root, None)?.home {
        home if home == "/" => "/root".to_owned(),
        home => home,
    };
    let dir = Path::new(&home).join(".ssh");
    root.create_dir_all(&dir, 0o700)?;
    let opened = root.get(&dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    rustix::fs::fchmod(&opened, Mode::RWXU).during(|| format!("close `{}` to others", dir.display()))?;
    let path = dir.join("authorized_keys");
    let content = with_keys(&text(root, &path), keys);
    root.write(&path, content.as_bytes(), 0o600)
}

fn with_keys(before: &str, keys: &[String]) -> String {
    let mut lines: Vec<&str> = before.lines().collect();
    for key in keys {
        if !lines.contains(&key.as_str()) {
            lines.push(key);
        }
    }
    lines.join("\n") + "\n"
}

fn put_password(root: &Root, hash: &str) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shadow = text(root, Path::new(SHADOW));
    let day = since.as_secs() / 86_400;
    replace(root, SHADOW, &with_password(&shadow, hash, day), 0o600)?;
    let passwd = text(root, Path::new(PASSWD));
    let after = pointing_to_shadow(&passwd);
    if after != passwd {
        replace(root, PASSWD, &after, 0o644)?;
    }
    Ok(())
}

/// `shadow(5)` with this hash for root, set on this day since 1970.
fn with_password(shadow: &str, hash: &str, day: u64) -> String {
    let mut found = false;
    let mut lines: Vec<String> = Vec::new();
    for line in shadow.lines() {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() != Some(&"root") {
            lines.push(line.to_owned());
            continue;
        }
        found = true;
        let day = day.to_string();
        fields.resize(fields.len().max(9), "");
        (fields[1], fields[2]) = (hash, &day);
        lines.push(fields.join(":"));
    }
    if !found {
        lines.insert(0, format!("root:{hash}:{day}:0:99999:7:::"));
    }
    lines.join("\n") + "\n"
}

/// `passwd(5)` whose line of root says that the password is in the other file.
fn pointing_to_shadow(passwd: &str) -> String {
    let line = |line: &str| match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
        Some((_, rest)) => format!("root:x:{rest}"),
        None => line.to_owned(),
    };
    passwd.split_inclusive('\n').map(line).collect()
}

/// Replaces a file and keeps its owner and mode, if there is one: `shadow` belongs to a group that may read it.
fn replace(root: &Root, path: &str, content: &str, mode: u32) -> Result<()> {
    let work = || -> Result<()> {
        let (dir, name) = root.follow(Path::new(path))?;
        let mut new = NewFile::begin(dir.as_fd())?;
        new.file.write_all(content.as_bytes())?;
        let mode = match root.get(Path::new(path), OFlags::PATH) {
            Ok(before) => {
                let before = rustix::fs::fstat(before)?;
                let (uid, gid) = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
                rustix::fs::fchown(&new, Some(uid), Some(gid))?;
                before.st_mode & 0o777
            }
            Err(_) => mode,
        };
        rustix::fs::fchmod(&new, Mode::from_raw_mode(mode))?;
        new.finish(&name)
    };
    work().during(|| format!("write `{path}` in the root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_takes_the_place_of_the_lock() {
        let shadow = "daemon:*:1::::::\nroot:*:19000:0:99999:7:::\n";
        assert_eq!(
            with_password(shadow, "$6$x", 20_000),
            "daemon:*:1::::::\nroot:$6$x:20000:0:99999:7:::\n"
        );
        assert_eq!(with_password("root::\n", "$6$x", 7), "root:$6$x:7::::::\n");
        assert_eq!(with_password("", "$6$x", 7), "root:$6$x:7:0:99999:7:::\n");
    }

    #[test]
    fn a_system_without_shadow_gets_one() {
        let passwd = "root::0:0:root:/root:/bin/sh\nrooty:y:1:1::/:/bin/sh\n";
        assert_eq!(
            pointing_to_shadow(passwd),
            passwd.replacen("root::", "root:x:", 1)
        );
        assert_eq!(pointing_to_shadow("root:x:0:0::/:/x\n"), "root:x:0:0::/:/x\n");
    }

    #[test]
    fn keys_are_added_once() {
        let keys = ["ssh-ed25519 A".to_owned(), "ssh-ed25519 B".to_owned()];
        assert_eq!(with_keys("", &keys), "ssh-ed25519 A\nssh-ed25519 B\n");
        assert_eq!(
            with_keys("# x\nssh-ed25519 B\n", &keys),
            "# x\nssh-ed25519 B\nssh-ed25519 A\n"
        );
    }
}
