//! Snapshots as they lie on disk: a folder each, beside the VPS's own disk and outside of its limits.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config::VpsConfig;
use super::instance::Condo;
use super::name::Name;
use super::pending;
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::storage;

/// Longest name: with what condo puts before it, it is a file name.
const MAX: usize = 64;
const DESCRIPTION: &str = "snapshot.json";

/// The name of a snapshot: letters, digits, `.`, `_` and `-`, of which the first is a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

impl FromStr for SnapshotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem| Err(Error::invalid("SNAPSHOT", text, problem));
        let ours = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        match text.as_bytes() {
            [] => refuse("is empty; a snapshot needs a name"),
            bytes if bytes.len() > MAX => refuse("is longer than 64 characters"),
            [first, ..] if !first.is_ascii_alphanumeric() => refuse("must begin with a letter or a digit"),
            bytes if !bytes.iter().all(|b| ours(*b)) => {
                refuse("may hold only letters, digits, `.`, `_` and `-`")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> Self {
        name.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is known of a snapshot; the JSON of `snapshot list` and `show` is this type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// What tells it from all others, on any host.
    pub id: String,
    /// When it was begun, in seconds since 1970.
    pub created: i64,
    /// How long the VPS stood still for it, in milliseconds; nothing for one that did not run.
    pub frozen_ms: Option<f64>,
    /// Files that had changed since the snapshot before and were copied.
    pub files: u64,
    /// Bytes that were copied for them; none for blocks that the file system shares.
    pub bytes: u64,
    /// Whether it goes by itself when there are enough later ones (`--keep`).
    pub rotates: bool,
    /// Whether the VPS had started before.
    pub started: bool,
    /// The VPS's configuration at that time.
    pub config: VpsConfig,
}

impl Condo {
    /// The VPS's snapshots, the oldest first.
    pub fn snapshots(&self, vps: &Name) -> Result<Vec<Snapshot>> {
        let dir = self.folders.snapshots(vps);
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read `{}`", dir.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            match name.map(|name| self.snapshot(vps, &name)) {
                // Removed since.
                Some(Err(e)) if e.is_gone() => {}
                Some(snapshot) => found.push(snapshot?),
                None => {}
            }
        }
        found.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(found)
    }

    /// One of them, or [`Error::NotFound`].
    pub fn snapshot(&self, vps: &Name, name: &SnapshotName) -> Result<Snapshot> {
        let path = self.snapshot_dir(vps, name).join(DESCRIPTION);
        match files::read(&path) {
            Err(e) if e.is_gone() => Err(Error::NotFound {
                kind: "snapshot",
                name: name.to_string(),
            }),
            other => serde_json::from_slice(&other?).during(|| format!("read `{}`", path.display())),
        }
    }

    /// Writes what is known of a snapshot into its folder.
    pub(in crate::vps) fn describe_snapshot(&self, dir: &Path, snapshot: &Snapshot) -> Result<()> {
        files::write_atomic(
            &dir.join(DESCRIPTION),
            &serde_json::to_vec_pretty(snapshot)?,
            0o600,
        )
    }

    /// Where a snapshot is.
    pub(in crate::vps) fn snapshot_dir(&self, vps: &Name, name: &SnapshotName) -> PathBuf {
        self.folders.snapshots(vps).join(&name.0)
    }

    /// Sees to it that nobody copies the VPS, which is about to go.
    pub(in crate::vps) fn no_copies(&self, vps: &Name) -> Result<Option<Lock>> {
        match Lock::now(&self.folders.copies_lock(vps)) {
            // It has no folder any more: an earlier delete was interrupted.
            Err(e) if e.is_gone() => Ok(None),
            Err(Error::Busy(_)) => Err(Error::Busy("its disk".into())),
            other => other.map(Some),
        }
    }

    /// Removes all snapshots of a VPS that goes, and unfinished ones.
    pub(in crate::vps) fn remove_snapshots(&self, vps: &Name) -> Result<()> {
        each_in(&self.folders.snapshots(vps), remove_copies)
    }

    /// Held by whoever makes, changes or uses the VPS's snapshots. Taken before the VPS's own lock.
    pub(in crate::vps) fn lock_copies(&self, vps: &Name) -> Result<Lock> {
        // Nothing is made for one that is not there, or not any more.
        pending::refuse_half_deleted(&self.store.get(vps)?)?;
        Lock::wait(&self.folders.copies_lock(vps))
    }
}

/// Removes a folder of copies of layers.
pub(in crate::vps) fn remove_copies(dir: &Path) -> Result<()> {
    each_in(dir, storage::remove_copy)?;
    files::remove_tree(dir)
}

/// For each path in a folder, if there is one.
fn each_in(dir: &Path, work: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.during(|| format!("read `{}`", dir.display()))?,
    };
    entries.flatten().try_for_each(|entry| work(&entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_harmless_path_component() {
        for good in ["a", "2026-11-28", "before.upgrade_2", &"a".repeat(64)] {
            assert!(good.parse::<SnapshotName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".new",
            "-a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<SnapshotName>(r#""../x""#).is_err());
    }
}
