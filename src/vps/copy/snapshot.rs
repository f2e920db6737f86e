//! A VPS as it was: taken, brought back, compared, removed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::error::{During, Error, Result};
use crate::files::{self, Lock, Root};
use crate::storage::tree::{Change, Direction, changes, is_whiteout, open_dir};
use crate::undo::Undo;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::{self, Pending};
use crate::vps::record::snapshots::{Snapshot, SnapshotName, remove_copies};
use crate::vps::record::store::{now, random_uuid};
use crate::vps::record::view::VpsStatus;

use super::capture::{Captured, at};

/// The copy of the layer in a snapshot's folder.
pub(super) const LAYER: &str = "layer";
/// Before the name of what is not whole yet, or not any more.
const UNFINISHED: &str = ".unfinished-";

/// What a snapshot is to be besides its name.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotOptions {
    /// Makes it one of those of which only so many stay: the oldest beyond that go.
    pub keep: Option<usize>,
}

impl Condo {
    /// Takes a snapshot. A VPS that runs is frozen for the end of it.
    ///
    /// # Errors
    /// [`Error::Exists`], and [`Error::Status`] for a VPS that is not whole.
    pub fn snapshot_create(
        &self,
        vps: &Name,
        name: &SnapshotName,
        options: SnapshotOptions,
    ) -> Result<Snapshot> {
        let _lock = self.lock_copies(vps)?;
        self.sweep_copies(vps)?;
        pending::refuse(&self.store.get(vps)?)?;
        if files::exists(&self.snapshot_dir(vps, name)) {
            return Err(Error::Exists {
                kind: "snapshot",
                name: name.to_string(),
            });
        }
        let snapshot = self.take(vps, name, options.keep.is_some())?;
        if let Some(keep) = options.keep {
            self.rotate(vps, keep)?;
        }
        Ok(snapshot)
    }

    /// The caller holds the lock of copies, and there is none of this name.
    pub(super) fn take(&self, vps: &Name, name: &SnapshotName, rotates: bool) -> Result<Snapshot> {
        let created = now();
        let unfinished = self.unfinished(vps, name);
        files::create_dir_all(&unfinished, 0o700)?;
        let older = self.snapshots(vps)?.pop();
        let older = older.map(|older| self.snapshot_dir(vps, &older.name).join(LAYER));
        let captured = self.capture(vps, &unfinished.join(LAYER), older.as_deref());
        let captured = captured.inspect_err(|_| {
            let _ = remove_copies(&unfinished);
        })?;
        let snapshot = Snapshot {
            name: name.clone(),
            id: random_uuid()?,
            created,
            frozen_ms: captured.frozen.map(|time| time.as_secs_f64() * 1000.0),
            files: captured.copied.files,
            bytes: captured.copied.bytes,
            rotates,
            started: captured.started,
            config: captured.record.config,
        };
        self.describe_snapshot(&unfinished, &snapshot)?;
        at(&unfinished).and_then(|dir| Ok(rustix::fs::fsync(dir)?))?;
        std::fs::rename(&unfinished, self.snapshot_dir(vps, name))
            .during(|| format!("name the snapshot `{name}`"))?;
        at(&self.folders.snapshots(vps)).and_then(|dir| Ok(rustix::fs::fsync(dir)?))?;
        Ok(snapshot)
    }

    /// The VPSs whose schedule says that another snapshot is due, and how many of them stay. Time is in seconds since 1970.
    pub fn snapshots_due(&self, time: i64) -> Result<Vec<(Name, Option<usize>)>> {
        let mut due = Vec::new();
        for record in self.members()? {
            let schedule = record.config.schedule.unwrap_or_default();
            let mut rotating = self.snapshots(&record.name)?;
            rotating.retain(|snapshot| snapshot.rotates);
            if schedule.is_due(rotating.last().map(|last| last.created), time) {
                due.push((record.name, Some(schedule.keep)));
            }
        }
        Ok(due)
    }

    /// Removes a snapshot.
    pub fn snapshot_delete(&self, vps: &Name, name: &SnapshotName) -> Result<()> {
        let _lock = self.lock_copies(vps)?;
        self.sweep_copies(vps)?;
        let record = self.store.get(vps)?;
        if let Some(pending @ Pending::Restoring { snapshot, .. }) = &record.config.pending
            && snapshot == name
        {
            return Err(Error::Status(pending.remedy(&record)));
        }
        self.snapshot(vps, name)?;
        self.drop_snapshot(vps, name)?;
        // Gone with the last one.
        let _ = std::fs::remove_dir(self.folders.snapshots(vps));
        Ok(())
    }

    /// In one step it is no snapshot any more; then its files go.
    pub(super) fn drop_snapshot(&self, vps: &Name, name: &SnapshotName) -> Result<()> {
        let unfinished = self.unfinished(vps, name);
        remove_copies(&unfinished)?;
        std::fs::rename(self.snapshot_dir(vps, name), &unfinished)
            .during(|| format!("remove the snapshot `{name}`"))?;
        remove_copies(&unfinished)
    }

    /// Removes the oldest of those that rotate.
    fn rotate(&self, vps: &Name, keep: usize) -> Result<()> {
        let mut rotating = self.snapshots(vps)?;
        rotating.retain(|snapshot| snapshot.rotates);
        let surplus = rotating.len().saturating_sub(keep);
        rotating[..surplus]
            .iter()
            .try_for_each(|snapshot| self.drop_snapshot(vps, &snapshot.name))
    }

    /// Brings a VPS's disk back to a snapshot, at a cost that grows with what has changed since. Name, address, limits and identity
    /// stay. One that runs is refused, or stopped and started again with `force`.
    ///
    /// Killed in the middle, the VPS does not start until the same is run again, which finishes it, and starts it if it ran.
    pub fn snapshot_restore(
        &self,
        vps: &Name,
        name: &SnapshotName,
        force: Option<Duration>,
    ) -> Result<Snapshot> {
        let _lock = self.lock_copies(vps)?;
        self.sweep_copies(vps)?;
        let snapshot = self.snapshot(vps, name)?;
        if self.bring_back(vps, &snapshot, force)? {
            self.see_start(vps)?;
        }
        Ok(snapshot)
    }

    /// Whether the VPS ran, now or when a killed restore began.
    fn bring_back(&self, vps: &Name, snapshot: &Snapshot, force: Option<Duration>) -> Result<bool> {
        let (record, _lock) = self.hold_settled(vps)?;
        let ran = match &record.config.pending {
            None | Some(Pending::Starting) => self.is_to_run(&record)?,
            Some(Pending::Restoring { ran, .. }) => *ran,
            Some(other) => return Err(Error::Status(other.remedy(&record))),
        };
        let status = self.status(vps)?;
        let runs = status != VpsStatus::Stopped;
        if runs && force.is_none() {
            let text = format!("the VPS is {}: stop it first, or use --force", status.as_str());
            return Err(Error::Status(text));
        }
        // A snapshot keeps its image from being removed.
        self.images().get(&snapshot.config.image)?;
        // Before it is stopped: killed after that, nobody else knows that it ran.
        let restoring = Pending::Restoring {
            snapshot: snapshot.name.clone(),
            ran,
        };
        self.set_pending(vps, Some(&restoring))?;
        if runs
            && let Err(e) = self
                .shut_down(&record, force)
                .and_then(|()| self.take_down(&record))
        {
            // The disk is as it was.
            self.set_starting(vps, self.status(vps)? == VpsStatus::Stopped)?;
            return Err(e);
        }
        let record = self.store.reconfigure(vps, &|config| {
            config.image.clone_from(&snapshot.config.image);
            Ok(())
        })?;
        let copy = self.snapshot_dir(vps, &snapshot.name).join(LAYER);
        if !self
            .volume(&record)
            .copy_from(&copy, &record.config.disk.quota())?
        {
            self.bring(&record, &at(&copy)?, Direction::Bring)?;
        }
        if !snapshot.started {
            files::remove_file(&self.folders.seat(vps).provisioned())?;
        }
        self.set_starting(vps, ran)?;
        Ok(ran)
    }

    /// What has changed since a snapshot, up to another one or now.
    pub fn snapshot_diff(
        &self,
        vps: &Name,
        before: &SnapshotName,
        now: Option<&SnapshotName>,
        tell: &mut dyn FnMut(Change) -> Result<()>,
    ) -> Result<()> {
        let _lock = self.lock_copies(vps)?;
        let snapshot = self.snapshot(vps, before)?;
        let taken = snapshot.created;
        let image = self.images().get(&snapshot.config.image)?;
        let layers = image.layers.iter().map(|layer| Root::open(layer));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let copy = |name: &SnapshotName| at(&self.snapshot_dir(vps, name).join(LAYER));
        let later = match now {
            Some(name) => self.snapshot(vps, name).and_then(|_| copy(name))?,
            None => self.layer(&self.hold_settled(vps)?.0)?,
        };
        let before = copy(before)?;
        changes(
            &open_dir(&before, "upper")?,
            &open_dir(&later, "upper")?,
            taken,
            &|path| in_image(&layers, path),
            tell,
        )
    }

    /// Removes what killed commands have left. The caller holds the lock of copies.
    pub(in crate::vps) fn sweep_copies(&self, vps: &Name) -> Result<()> {
        self.unfinished_copies(vps)?
            .iter()
            .try_for_each(|path| remove_copies(path))
    }

    /// Whether killed commands have left some. Whoever is at work on one holds the lock of copies.
    pub(in crate::vps) fn has_unfinished_copies(&self, vps: &Name) -> Result<bool> {
        Ok(!self.unfinished_copies(vps)?.is_empty() && Lock::now(&self.folders.copies_lock(vps)).is_ok())
    }

    fn unfinished_copies(&self, vps: &Name) -> Result<Vec<PathBuf>> {
        let dir = self.folders.snapshots(vps);
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read `{}`", dir.display()))?,
        };
        let is_unfinished = |name: &OsStr| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        let found = entries
            .flatten()
            .filter(|entry| is_unfinished(&entry.file_name()));
        Ok(found.map(|entry| entry.path()).collect())
    }

    /// Works with a copy of a VPS that nobody needs afterwards. The caller holds the lock of copies.
    pub(super) fn with_passing<T>(
        &self,
        vps: &Name,
        work: impl FnOnce(&Path, &Captured) -> Result<T>,
    ) -> Result<T> {
        let older = self.snapshots(vps)?.pop();
        let older = older.map(|older| self.snapshot_dir(vps, &older.name).join(LAYER));
        let dir = self.passing(vps);
        let undo = Undo::of(|| {
            remove_copies(&dir)?;
            // Gone with the last one.
            let _ = std::fs::remove_dir(self.folders.snapshots(vps));
            Ok(())
        });
        let captured = self.capture(vps, &dir.join(LAYER), older.as_deref())?;
        let result = work(&dir.join(LAYER), &captured)?;
        undo.run()?;
        Ok(result)
    }

    /// Where copies are that nobody keeps.
    pub(super) fn passing(&self, vps: &Name) -> PathBuf {
        self.folders.snapshots(vps).join(format!("{UNFINISHED}passing"))
    }

    /// Gives a snapshot the name of another, which goes.
    pub(super) fn rename_snapshot(&self, vps: &Name, from: &SnapshotName, to: &SnapshotName) -> Result<()> {
        let _lock = self.lock_copies(vps)?;
        let mut snapshot = self.snapshot(vps, from)?;
        if files::exists(&self.snapshot_dir(vps, to)) {
            self.drop_snapshot(vps, to)?;
        }
        snapshot.name.clone_from(to);
        let dir = self.snapshot_dir(vps, from);
        self.describe_snapshot(&dir, &snapshot)?;
        std::fs::rename(dir, self.snapshot_dir(vps, to)).during(|| format!("name the snapshot `{to}`"))
    }

    /// Where a snapshot is made and where it goes.
    pub(super) fn unfinished(&self, vps: &Name, name: &SnapshotName) -> PathBuf {
        self.folders.snapshots(vps).join(format!("{UNFINISHED}{name}"))
    }
}

/// What the image has at a path, the uppermost of its layers first.
fn in_image(layers: &[Root], path: &[u8]) -> Result<Option<Stat>> {
    let none = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
    for layer in layers {
        match layer.get(
            Path::new(OsStr::from_bytes(path)),
            OFlags::PATH | OFlags::NOFOLLOW,
        ) {
            Err(e) if none.iter().any(|none| e.errno() == Some(none.raw_os_error())) => {}
            found => {
                let status = rustix::fs::fstat(found?)?;
                return Ok(Some(status).filter(|status| !is_whiteout(status)));
            }
        }
    }
    Ok(None)
}
