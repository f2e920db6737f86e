//! A VPS gets another name, and all that goes by it.
//!
//! The records come first, in one transaction that also notes what is left to do; then the folders move, which can be repeated.
//! The next command, whichever it is, does what a killed one has left.

use serde_json::json;

use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::namespaces::ranges::Ranges;
use crate::vps::record::events::Kind;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

impl Condo {
    /// Renames a stopped VPS. Its host name follows at the next start, where it was its name and the tenant has not changed it.
    ///
    /// # Errors
    /// [`Error::Status`] for one that runs, [`Error::Exists`] when there is a VPS of the new name.
    pub fn rename(&self, old: &Name, new: &Name) -> Result<Record> {
        if old == new {
            return Err(Error::invalid("NEW", new, "is its name already"));
        }
        self.store.get(old)?;
        let result = self.rename_locked(old, new);
        if result.is_err() && self.store.get(new).is_err_and(|e| e.is_gone()) {
            // It was locked and there is no such VPS.
            self.forget(new)?;
        }
        result
    }

    fn rename_locked(&self, old: &Name, new: &Name) -> Result<Record> {
        let _locks = self.lock_both(old, new)?;
        let record = self.store.get(old)?;
        self.settle(&record)?;
        let status = self.status(old)?;
        if status != VpsStatus::Stopped {
            return Err(Error::Status(format!(
                "the VPS is {}: stop it first",
                status.as_str()
            )));
        }
        pending::refuse(&record)?;
        let _copies = self.no_copies(old)?;
        let record = self.finish_rebuild(record)?;
        self.refuse_remains(new)?;
        if let Some(there) = self.folders.of(new).into_iter().find(|path| files::exists(path)) {
            // Of a VPS that does not exist there is an empty folder at most.
            let _ = std::fs::remove_dir(&there);
        }
        let record = self.store.rename(&record.name, new)?;
        self.move_folders(old, &record)?;
        files::remove_file(&self.folders.lock(old))?;
        self.tell(&record, Kind::Renamed, json!({ "old": old }));
        Ok(record)
    }

    /// In the order of their names, as all who hold several.
    fn lock_both(&self, one: &Name, other: &Name) -> Result<(Lock, Lock)> {
        let (first, second) = (one.min(other), one.max(other));
        Ok((self.lock(first)?, self.lock(second)?))
    }

    /// Moves what lasts to where the new name says. Idempotent; the caller holds both locks.
    fn move_folders(&self, old: &Name, record: &Record) -> Result<()> {
        for (from, to) in self
            .folders
            .of(old)
            .into_iter()
            .zip(self.folders.of(&record.name))
        {
            files::rename_if_there(&from, &to)?;
        }
        let ranges = Ranges::open()?;
        ranges.release(&self.folders.vps(old), record.uid_base, record.config.ranges())?;
        ranges.keep(
            &self.folders.vps(&record.name),
            record.uid_base,
            record.config.ranges(),
        )?;
        self.store.end_rename(record)
    }

    /// Does what renames left that were killed. What one is at work on is left to it.
    pub(super) fn finish_renames(&self) -> Result<()> {
        for (old, new) in self.store.renames()? {
            let (first, second) = (old.clone().min(new.clone()), old.clone().max(new.clone()));
            let locked = Lock::now(&self.folders.lock(&first))
                .and_then(|first| Ok((first, Lock::now(&self.folders.lock(&second))?)));
            let _locks = match locked {
                Err(e) if matches!(e.root(), Error::Busy(_)) => continue,
                other => other?,
            };
            match self.store.get(&new) {
                Err(e) if e.is_gone() => {}
                other => self.move_folders(&old, &other?)?,
            }
            files::remove_file(&self.folders.lock(&old))?;
        }
        Ok(())
    }
}
