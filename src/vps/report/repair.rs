//! What killed commands, a lost power and a lost database have left: found without changing anything, and mended one by one.
//!
//! Only what needs no decision of anybody's is mended. A disk whose record is lost altogether is somebody's data: `condo doctor` names it.

use std::fmt;
use std::path::PathBuf;

use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::namespaces::ranges::Ranges;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;

/// Something that was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A deletion that was not carried out to its end.
    Deletion(Name),
    /// A run whose end nobody saw: its mounts, its cgroup and its interfaces may still be there.
    Run(Name),
    /// A rebuild that was decided and not carried out.
    Rebuild(Name),
    /// Snapshots that are not whole.
    Snapshots(Name),
    /// A record that has no copy beside its disk.
    Copy(Name),
    /// A copy beside a disk, whose record is not in the database.
    Record(Name),
    /// What an import has read and made no VPS of.
    Arrival(PathBuf),
    /// User ids of a VPS that is not there.
    Ids(PathBuf),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deletion(name) => write!(f, "the deletion of `{name}` that was interrupted"),
            Self::Run(name) => write!(f, "what a run of `{name}` left whose end nobody saw"),
            Self::Rebuild(name) => write!(f, "the rebuild of `{name}` that was not carried out"),
            Self::Snapshots(name) => write!(f, "snapshots of `{name}` that are not whole"),
            Self::Copy(name) => write!(f, "the record of `{name}` that has no copy beside its disk"),
            Self::Record(name) => write!(f, "the record of `{name}` that is lost, and has a copy"),
            Self::Arrival(path) => write!(f, "what an import left in `{}`", path.display()),
            Self::Ids(owner) => write!(f, "user ids of `{}`, which is not there", owner.display()),
        }
    }
}

impl Condo {
    /// What was left behind. Whoever is at work at this moment has left nothing: VPSs that are being changed are passed over.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found: Vec<Leftover> = self.store.lost()?.into_iter().map(Leftover::Record).collect();
        for record in self.members()? {
            match Lock::now(&self.folders.lock(&record.name)) {
                Ok(_lock) => found.extend(self.leftovers_of(&record)?),
                Err(e) if matches!(e.root(), Error::Busy(_)) => {}
                Err(e) => return Err(e),
            }
        }
        found.extend(self.arrivals()?.into_iter().map(Leftover::Arrival));
        let below = self.folders.all();
        let owners = Ranges::open()?.owners()?;
        let is_left = |owner: &PathBuf| owner.starts_with(&below) && !files::exists(owner);
        found.extend(owners.into_iter().filter(is_left).map(Leftover::Ids));
        Ok(found)
    }

    /// The caller holds the lock of the VPS.
    fn leftovers_of(&self, record: &Record) -> Result<Vec<Leftover>> {
        let name = &record.name;
        if record.config.deleting {
            return Ok(vec![Leftover::Deletion(name.clone())]);
        }
        let mut found = Vec::new();
        if self.is_left_running(record)? {
            found.push(Leftover::Run(name.clone()));
        }
        if files::exists(&self.folders.rebuild(name)) {
            found.push(Leftover::Rebuild(name.clone()));
        }
        if self.has_unfinished_copies(name)? {
            found.push(Leftover::Snapshots(name.clone()));
        }
        if !files::exists(&self.folders.record(name)) {
            found.push(Leftover::Copy(name.clone()));
        }
        Ok(found)
    }

    /// What imports have left that are not at work any more.
    fn arrivals(&self) -> Result<Vec<PathBuf>> {
        let dir = self.folders.arriving();
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read `{}`", dir.display()))?,
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let is_left = |path: &PathBuf| {
            path.extension().is_none_or(|end| end != "lock")
                && Lock::now(&path.with_extension("lock")).is_ok()
        };
        Ok(paths.filter(is_left).collect())
    }

    /// Looks the database through and makes it anew of the copies when it is damaged; whether it was. Whatever else is wrong with
    /// it has been found when the instance was opened.
    pub fn repair_database(&self) -> Result<bool> {
        self.store.mend()
    }

    /// Mends one of [`Condo::leftovers`].
    ///
    /// # Errors
    /// What kept it from being mended; nothing is worse then, and it can be tried again.
    pub fn mend(&self, leftover: &Leftover) -> Result<()> {
        match leftover {
            Leftover::Deletion(name) => self.delete(name, true),
            Leftover::Run(name) => {
                let (record, _lock) = self.hold(name)?;
                self.settle(&record)
            }
            Leftover::Rebuild(name) => {
                let (record, _lock) = self.hold(name)?;
                self.finish_rebuild(record).map(drop)
            }
            Leftover::Snapshots(name) => {
                let _lock = self.lock_copies(name)?;
                self.sweep_copies(name)
            }
            Leftover::Copy(name) => self.store.reconfigure(name, &|_| Ok(())).map(drop),
            Leftover::Record(name) => {
                let _lock = self.lock(name)?;
                self.store.adopt(name)
            }
            Leftover::Arrival(path) => {
                let lock = path.with_extension("lock");
                let held = Lock::now(&lock)?;
                files::remove_tree(path)?;
                files::remove_file(&lock)?;
                drop(held);
                let _ = std::fs::remove_dir(self.folders.arriving());
                Ok(())
            }
            Leftover::Ids(owner) => Ranges::open()?.release_all(owner),
        }
    }
}
