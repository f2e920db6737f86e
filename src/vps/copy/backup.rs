//! Archives of VPSs in a folder, made again and again: whole ones, and between them what has changed; old ones go.
//!
//! ```text
//! DIR/NAME/20261128-053217.condo            whole
//! DIR/NAME/20261129-053212.changes.condo    since the one before
//! ```
//! The VPS keeps a snapshot of the last one, `backup`, which the next is compared with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::snapshots::SnapshotName;

use super::archive::Header;
use super::export::{ExportOptions, UNFINISHED};
use super::import::header_of;
use super::snapshot::SnapshotOptions;

/// The snapshots that backups are compared with: one that is being written, and that of the last one.
const NEXT: &str = "backup-next";
const LAST: &str = "backup";
const END: &str = ".condo";
const DAY: i64 = 86_400;

/// Which backups stay. One that a later one builds on stays with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of the last.
    pub last: usize,
    /// The last of each of so many days that have one.
    pub daily: usize,
    /// The same for weeks.
    pub weekly: usize,
    /// After so many with changes comes a whole one.
    pub changes: usize,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it has only what has changed.
    pub changes: bool,
    /// Files that were removed.
    pub removed: usize,
}

/// A backup in the folder.
#[derive(Debug, Clone)]
struct Kept {
    path: PathBuf,
    id: String,
    since: Option<String>,
    created: i64,
}

impl Condo {
    /// Makes a backup of a VPS and removes those that need not stay. `stamp` is the time as it is to be part of the name.
    pub fn backup(&self, vps: &Name, dir: &Path, stamp: &str, retention: Retention) -> Result<Backup> {
        // Nothing is made for one that is not there.
        self.store.get(vps)?;
        let dir = dir.join(vps);
        files::create_dir_all(&dir, 0o700)?;
        let _lock = Lock::now(&dir.join(".lock"))?;
        remove_unfinished(&dir)?;
        let (next, last) = (snapshot(NEXT)?, snapshot(LAST)?);
        if self.snapshot(vps, &next).is_ok() {
            self.snapshot_delete(vps, &next)?;
        }
        self.snapshot_create(vps, &next, SnapshotOptions::default())?;
        let all = kept(&dir)?;
        let since = self.since(vps, &last, &all, retention.changes);
        let changes = since.is_some();
        let name = format!("{stamp}{}{END}", if changes { ".changes" } else { "" });
        let path = dir.join(name);
        if files::exists(&path) {
            return Err(Error::Exists {
                kind: "backup",
                name: path.display().to_string(),
            });
        }
        let options = ExportOptions {
            snapshot: Some(next.clone()),
            since,
            without_image: false,
        };
        let done = self.export(vps, &options, &path)?;
        // It is on disk: from here on the next one is compared with it.
        self.rename_snapshot(vps, &next, &last)?;
        let removed = surplus(&kept(&dir)?, retention);
        for old in &removed {
            files::remove_file(&old.path)?;
        }
        Ok(Backup {
            path,
            bytes: done.bytes,
            changes,
            removed: removed.len(),
        })
    }

    /// The snapshot to compare with, if there is a backup of it here that is not yet the last of a long row.
    fn since(&self, vps: &Name, last: &SnapshotName, all: &[Kept], most: usize) -> Option<SnapshotName> {
        let snapshot = self.snapshot(vps, last).ok()?;
        let image = &self.store.get(vps).ok()?.config.image;
        let row = row(all, &snapshot.id)?;
        (row.len() <= most && snapshot.config.image == *image).then(|| last.clone())
    }
}

fn snapshot(name: &str) -> Result<SnapshotName> {
    name.parse()
}

/// Removes what killed commands have left. The caller holds the folder's lock.
fn remove_unfinished(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).during(|| format!("read `{}`", dir.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The backups in a folder, the oldest first. Files that are none are left alone.
fn kept(dir: &Path) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).during(|| format!("read `{}`", dir.display()))? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(END) {
            continue;
        }
        match header_of(&path) {
            Ok(Header {
                id, since, created, ..
            }) => all.push(Kept {
                path,
                id,
                since,
                created,
            }),
            Err(e) => log::warn!("`{}` is no backup: {e}", path.display()),
        }
    }
    all.sort_by(|a, b| (a.created, &a.path).cmp(&(b.created, &b.path)));
    Ok(all)
}

/// A backup and those it builds on; nothing when one of them is missing.
fn row<'k>(all: &'k [Kept], id: &str) -> Option<Vec<&'k Kept>> {
    let mut row = vec![all.iter().find(|kept| kept.id == id)?];
    while let Some(since) = row.last().and_then(|kept| kept.since.as_ref()) {
        // No backup builds on itself.
        let before = all
            .iter()
            .find(|kept| kept.id == *since && row.len() <= all.len())?;
        row.push(before);
    }
    Some(row)
}

/// Those that need not stay.
fn surplus(all: &[Kept], retention: Retention) -> Vec<Kept> {
    let mut stay: BTreeSet<&str> = BTreeSet::new();
    let mut newest = all.iter().rev();
    for kept in newest.by_ref().take(retention.last.max(1)) {
        stay.insert(&kept.id);
    }
    for (length, most) in [(DAY, retention.daily), (7 * DAY, retention.weekly)] {
        let mut periods = BTreeSet::new();
        for kept in all.iter().rev() {
            // Weeks begin on Mondays; 1970 began on a Thursday.
            let period = (kept.created + 3 * DAY).div_euclid(length);
            if periods.len() < most && periods.insert(period) {
                stay.insert(&kept.id);
            }
        }
    }
    let needed: BTreeSet<&str> = stay
        .iter()
        .filter_map(|id| row(all, id))
        .flatten()
        .map(|kept| kept.id.as_str())
        .collect();
    all.iter()
        .filter(|kept| !needed.contains(kept.id.as_str()) && !stay.contains(kept.id.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backups(list: &[(&str, Option<&str>, i64)]) -> Vec<Kept> {
        let kept = |(id, since, day): &(&str, Option<&str>, i64)| Kept {
            path: id.into(),
            id: (*id).into(),
            since: since.map(Into::into),
            created: day * DAY,
        };
        list.iter().map(kept).collect()
    }

    fn gone(all: &[Kept], last: usize, daily: usize, weekly: usize) -> Vec<String> {
        let retention = Retention {
            last,
            daily,
            weekly,
            changes: 6,
        };
        surplus(all, retention).into_iter().map(|kept| kept.id).collect()
    }

    #[test]
    fn what_a_backup_builds_on_stays_with_it() {
        let all = backups(&[
            ("a", None, 0),
            ("b", Some("a"), 1),
            ("c", Some("b"), 2),
            ("d", None, 3),
            ("e", Some("d"), 4),
        ]);
        assert_eq!(gone(&all, 1, 0, 0), ["a", "b", "c"]);
        assert_eq!(gone(&all, 3, 0, 0), [""; 0]);
        assert_eq!(gone(&all, 1, 5, 0), [""; 0]);
    }

    #[test]
    fn days_and_weeks_keep_their_last() {
        let all: Vec<_> = (0..30).map(|day| (format!("{day}"), None, day)).collect();
        let all: Vec<_> = all
            .iter()
            .map(|(id, since, day)| (id.as_str(), *since, *day))
            .collect();
        let all = backups(&all);
        assert_eq!(gone(&all, 1, 2, 0).len(), 28);
        // Day 29 is a Friday; the Sundays before it are 24 and 17.
        let left: Vec<_> = (0..30)
            .map(|d| d.to_string())
            .filter(|d| !gone(&all, 1, 0, 3).contains(d))
            .collect();
        assert_eq!(left, ["17", "24", "29"]);
    }

    #[test]
    fn a_row_that_is_broken_is_none() {
        let all = backups(&[("b", Some("a"), 1), ("c", Some("c"), 1)]);
        assert!(row(&all, "b").is_none() && row(&all, "c").is_none());
    }
}
