//! What a VPS's root disk is given before its first start: its name, its neighbours' names, its resolvers, its identity, and what
//! its owner asked for.
//!
//! Only once: from then on the files are the tenant's. Of the names only that is followed later which is still as condo wrote it.

mod access;
mod clock;
mod resolvers;
mod script;

use std::net::Ipv4Addr;
use std::path::Path;

use rustix::fs::AtFlags;

use super::identity::{self, Key};
use crate::error::{During, Error, Result};
use crate::files::{self, Root};
use crate::image::Image;
use crate::sys::cred::FsIdentity;
use crate::vps::record::first_boot::FirstBoot;
use crate::vps::record::folders::Seat;
use crate::vps::record::store::Record;

/// Most that is read of a file of the tenant's.
const LARGEST: u64 = 1 << 20;
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
/// How the script of the first boot is written down among what is to be done.
const SCRIPT: &str = "script\n";

/// What is to be done inside before the system begins.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// Host keys to be made before it.
    pub(super) keys: Vec<Key>,
    /// Those that are made when it is up.
    pub(super) late_keys: Vec<Key>,
    /// Whether the owner's script is to run. systemd runs it by itself.
    pub(super) script: bool,
}

impl Pending {
    /// The command line of an init before which all that is done. Process 1 stays the same; that something fails keeps no system
    /// from coming up.
    pub(super) fn before(&self, init: &[String]) -> Vec<String> {
        if *self == Self::default() {
            return init.to_vec();
        }
        let mut lines = identity::lines_to_make(&self.keys);
        if self.script {
            lines.push_str(script::LINE);
        }
        lines.push_str(&identity::lines_to_make_later(&self.late_keys));
        // What a shell adds to the environment is none of the init's.
        let text = format!("umask 022; {lines}unset PWD OLDPWD SHLVL; exec \"$0\" \"$@\"");
        let shell = ["/bin/sh".to_owned(), "-c".to_owned(), text];
        shell.into_iter().chain(init.iter().cloned()).collect()
    }
}

/// Refuses what a system of this image could not be given.
pub(super) fn check(image: &Image, given: &FirstBoot) -> Result<()> {
    given.validate()?;
    let has = |path: &Path| {
        let layers = image.layers.iter();
        layers
            .map(|layer| Root::open(layer))
            .any(|root| root.is_ok_and(|root| root.has(path)))
    };
    if let Some(data) = &given.user_data
        && !data.starts_with("#!")
        && !has(Path::new(script::CLOUD_INIT))
    {
        let problem = format!(
            "is the first line and begins no script (`#!`), and image `{}` has no cloud-init to read it",
            image.name
        );
        return Err(Error::invalid(
            "--user-data",
            data.lines().next().unwrap_or_default(),
            problem,
        ));
    }
    if let Some(zone) = &given.timezone {
        let path = Path::new(clock::ZONES).join(zone);
        if !path.is_file() && !has(&path) {
            let problem = format!("is no time zone, for image `{}` or for this host", image.name);
            return Err(Error::invalid("--timezone", zone, problem));
        }
    }
    Ok(())
}

/// Writes the files into the mounted disk, unless it was done at an earlier start. Returns what the system has to do before it
/// begins.
pub(super) fn first_start(
    record: &Record,
    resolvers: &[Ipv4Addr],
    seat: &Seat,
    mounted: &Path,
) -> Result<Pending> {
    let root = Root::open(mounted)?;
    // The disk's owners are shifted: real root has no number there.
    let identity =
        FsIdentity::assume(record.uid_base, record.uid_base).during(|| "become the VPS's root for files")?;
    let hostname = record.hostname();
    if files::exists(&seat.provisioned()) {
        follow_name(record, seat, &root)?;
        resolvers::follow(resolvers, seat, &root)?;
        drop(identity);
        files::remove_file(&seat.first_boot())?;
        return left_to_do(&root, &seat.provisioned());
    }
    let given = FirstBoot::load(&seat.first_boot())?;
    root.write(Path::new(HOSTNAME), format!("{hostname}\n").as_bytes(), 0o644)?;
    root.write(Path::new(HOSTS), hosts(hostname, record).as_bytes(), 0o644)?;
    let resolvers = resolvers::give(&root, resolvers)?;
    let removed = identity::renew(&root, &record.uuid)?;
    let mut text: String = removed.iter().map(|key| key.path() + "\n").collect();
    let (keys, late_keys) = Key::by_haste(removed, &root);
    let pending = Pending {
        keys,
        late_keys,
        script: give(&root, record, &given).during(|| "set up the first boot")?,
    };
    drop(identity);
    if pending.script {
        text.push_str(SCRIPT);
    }
    files::write_atomic(&seat.hostname(), hostname.as_bytes(), 0o600)?;
    files::write_atomic(&seat.resolvers(), resolvers.as_bytes(), 0o600)?;
    files::write_atomic(&seat.provisioned(), text.as_bytes(), 0o600)?;
    // Only now: a start that was killed before begins anew.
    files::remove_file(&seat.first_boot())?;
    Ok(pending)
}

/// What the owner asked for; whether a script is left to run before init.
fn give(root: &Root, record: &Record, given: &FirstBoot) -> Result<bool> {
    access::let_in(root, given)?;
    if let Some(zone) = &given.timezone {
        clock::set_zone(root, zone)?;
    }
    script::put(root, record, given.user_data.as_deref())
}

/// What the first start was to do and that is not done yet: it may have been killed before. Once all is done, it is the tenant's.
fn left_to_do(root: &Root, done: &Path) -> Result<Pending> {
    let listed = files::read_text(done)?;
    let (mut keys, mut late_keys) = Key::by_haste(Key::listed(&listed), root);
    for keys in [&mut keys, &mut late_keys] {
        keys.retain(|key| !key.is_in(root));
    }
    let script = listed.contains(SCRIPT) && root.has(Path::new(script::RUNNER));
    let pending = Pending {
        keys,
        late_keys,
        script,
    };
    if pending == Pending::default() && !listed.is_empty() {
        files::write_atomic(done, b"", 0o600)?;
    }
    Ok(pending)
}

/// A VPS that has another name since its last start: what condo wrote of it follows, what the tenant wrote stays.
fn follow_name(record: &Record, seat: &Seat, root: &Root) -> Result<()> {
    let wanted = record.hostname();
    let written = match files::read_text(&seat.hostname()) {
        // An earlier condo did not note it.
        Err(e) if e.is_gone() => wanted.to_owned(),
        other => other?,
    };
    if written != wanted {
        let read = |path: &str| {
            let bytes = root.read(Path::new(path), LARGEST).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        if read(HOSTNAME).trim() == written {
            root.write(Path::new(HOSTNAME), format!("{wanted}\n").as_bytes(), 0o644)?;
        }
        let before = read(HOSTS);
        let after = renamed(&before, &names_of(&written), &names_of(wanted));
        if after != before {
            root.write(Path::new(HOSTS), after.as_bytes(), 0o644)?;
        }
    }
    files::write_atomic(&seat.hostname(), wanted.as_bytes(), 0o600)
}

/// `/etc/hosts` with other names in the lines that have exactly the old ones.
fn renamed(hosts: &str, old: &str, new: &str) -> String {
    let line = |line: &str| match line.split_once('\t') {
        Some((address, names)) if names.trim_end() == old => format!("{address}\t{new}\n"),
        _ => line.to_owned(),
    };
    hosts.split_inclusive('\n').map(line).collect()
}

/// A host name as `/etc/hosts` has it: with its short form, if it has one.
fn names_of(hostname: &str) -> String {
    match hostname.split_once('.') {
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.to_owned(),
    }
}

/// The own name leads to the own address, as mail and database servers expect it, and not to the loopback.
fn hosts(hostname: &str, record: &Record) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{}\n",
        record.address,
        names_of(hostname)
    )
}

/// Makes a symbolic link, in place of what has its name.
fn put_link(root: &Root, path: &str, target: &str) -> Result<()> {
    let work = || -> Result<()> {
        let (dir, name) = root.parent(Path::new(path))?;
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            other => other?,
        }
        Ok(rustix::fs::symlinkat(target, &dir, name)?)
    };
    work().during(|| format!("link `{path}` in the root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_comes_before_the_init() {
        let init = ["/sbin/init".to_owned(), "3 4".to_owned()];
        assert_eq!(Pending::default().before(&init), init);
        let pending = Pending {
            keys: Key::listed("/etc/ssh/ssh_host_ed25519_key\n/etc/passwd\n"),
            late_keys: Vec::new(),
            script: true,
        };
        let line = pending.before(&init);
        assert_eq!(line[..2], ["/bin/sh", "-c"]);
        assert_eq!(line[3..], init);
        let make = "/usr/bin/ssh-keygen -q -N '' -t ed25519 -f /etc/ssh/ssh_host_ed25519_key";
        assert!(
            line[2].contains(make) && line[2].contains(script::RUNNER) && !line[2].contains("passwd"),
            "{}",
            line[2]
        );
        assert!(line[2].ends_with(r#"exec "$0" "$@""#));
    }

    #[test]
    fn a_new_name_takes_the_place_of_the_old_one_alone() {
        let hosts = "127.0.0.1\tlocalhost\n10.0.0.2\tshop.example shop\n10.0.0.3\tshop.example shop db\n10.0.0.4 shop.example shop\n";
        let after = renamed(hosts, &names_of("shop.example"), &names_of("web"));
        assert_eq!(after, hosts.replacen("shop.example shop\n", "web\n", 1));
    }
}
