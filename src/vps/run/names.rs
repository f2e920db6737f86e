//! Names of VPSs that may talk to each other: `NAME.condo` and below the network's domain, in a marked block of each one's `/etc/hosts`.
//!
//! The block is condo's, the rest of the file its tenant's. It is written when a VPS starts, and in one that runs whenever one that it
//! may talk to comes or goes. Nobody learns the name or the address of a VPS that it may not talk to: a name server for all would
//! tell them.

use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{During, Error, Result};
use crate::files::{self, Lock, Root, mountinfo};
use crate::sys::cred::FsIdentity;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::wire::network;

const HOSTS: &str = "/etc/hosts";
const BEGIN: &str =
    "# Begin of condo's names: VPSs that this one may talk to. Changes between here and the end are lost.";
const END: &str = "# End of condo's names.";
/// A longer file is left alone.
const LONGEST: u64 = 1 << 20;

/// Brings the names in a root up to date. The caller holds nothing: two at once would write what was true at either moment.
pub(super) fn write(condo: &Condo, record: &Record, root: &Root) -> Result<()> {
    let _lock = Lock::wait(&condo.folders.run().join("names.lock"))?;
    let _identity =
        FsIdentity::assume(record.uid_base, record.uid_base).during(|| "become the VPS's root for files")?;
    let before = match root.read(Path::new(HOSTS), LONGEST) {
        Err(e) if e.is_gone() => Vec::new(),
        other => other?,
    };
    if before.len() as u64 == LONGEST {
        return Err(Error::Status(format!(
            "its {HOSTS} is longer than {LONGEST} bytes"
        )));
    }
    // Whatever it is written in: only our own lines are looked for.
    let before = String::from_utf8(before).map_err(|_| Error::Status(format!("its {HOSTS} is no text")))?;
    let after = with_block(&before, &block(condo, record)?);
    match after == before {
        true => Ok(()),
        false => root.write(Path::new(HOSTS), after.as_bytes(), 0o644),
    }
}

/// Remembers which mount the root of a VPS is, before there is a program in it that could put another in its place.
pub(super) fn remember_root(condo: &Condo, name: &Name, init: i32) -> Result<()> {
    let (_, mark) = root_of(init)?;
    files::write_atomic(&marked(condo, name), mark.as_bytes(), 0o600)
}

/// Brings the names of running VPSs up to date. One that cannot be written has them at its next start.
pub(super) fn tell(condo: &Condo, names: &[Name]) {
    for name in names {
        if let Err(e) = tell_one(condo, name) {
            log::debug!("the names in `{name}` are those of its last start: {e}");
        }
    }
}

fn tell_one(condo: &Condo, name: &Name) -> Result<()> {
    let record = condo.store.get(name)?;
    let init = condo
        .container(name)?
        .and_then(|container| container.state().init);
    let Some(init) = init.filter(|init| init.is_alive()) else {
        return Ok(());
    };
    let (root, mark) = root_of(init.pid)?;
    // A file system of the tenant's own making would answer when it likes.
    if files::read_text(&marked(condo, name))? != mark {
        return Err(Error::Status(
            "its root is not the one it was started with".into(),
        ));
    }
    write(condo, &record, &Root::of_one_mount(root))
}

fn marked(condo: &Condo, name: &Name) -> PathBuf {
    condo.folders.run_of(name).join("root-mount")
}

/// The root of a process, and what distinguishes its mount from others. Nothing is asked of the file system itself.
fn root_of(pid: i32) -> Result<(OwnedFd, String)> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty()).during(|| format!("open `{path}`"))?;
    let info = files::read_text(Path::new(&format!(
        "/proc/self/fdinfo/{}",
        root.as_fd().as_raw_fd()
    )))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id: u64 = id.and_then(|id| id.trim().parse().ok()).ok_or(Errno::NODATA)?;
    let mounts = mountinfo::of(&pid.to_string())?;
    let mounted = mounts
        .into_iter()
        .find(|mount| mount.id == id)
        .ok_or(Errno::NOENT)?;
    let mark = format!(
        "{id} {} {} {}",
        mounted.device,
        mounted.kind,
        mounted.root.display()
    );
    Ok((root, mark))
}

/// Those that a VPS may talk to, an address and a name each line.
fn block(condo: &Condo, record: &Record) -> Result<String> {
    let mut lines = String::new();
    for (name, _) in condo.store.peers(&record.name)? {
        for (network, port) in network::ports(condo, &condo.store.get_any(&name)?)? {
            for address in port.addresses() {
                let _ = writeln!(lines, "{address}\t{}", network.names_of(&name));
            }
        }
    }
    Ok(lines)
}

/// The text with these lines in our block, which is at the end where there was none, and none where there are no lines.
fn with_block(text: &str, lines: &str) -> String {
    let mut kept = String::new();
    let mut ours = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => ours = true,
            END if ours => ours = false,
            _ if ours => {}
            _ => kept.push_str(line),
        }
    }
    if lines.is_empty() {
        return kept;
    }
    if !kept.is_empty() && !kept.ends_with('\n') {
        kept.push('\n');
    }
    format!("{kept}{BEGIN}\n{lines}{END}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_ours() {
        let own = "127.0.0.1\tlocalhost\n10.0.0.9\tprinter\n";
        let with = with_block(own, "10.0.0.2\tdb.condo\n");
        assert_eq!(with, format!("{own}{BEGIN}\n10.0.0.2\tdb.condo\n{END}\n"));
        assert_eq!(with_block(&with, "10.0.0.2\tdb.condo\n"), with);
        assert_eq!(with_block(&with, ""), own);
        let more = format!("{with}10.0.0.8\tscanner\n");
        assert_eq!(with_block(&more, ""), format!("{own}10.0.0.8\tscanner\n"));
        // A file without its last newline, an empty one, and an end that is nobody's.
        assert!(with_block("a", "b\n").starts_with("a\n# Begin"));
        assert!(with_block("", "b\n").starts_with("# Begin"));
        assert_eq!(with_block(&format!("{END}\nx\n"), ""), format!("{END}\nx\n"));
    }
}
