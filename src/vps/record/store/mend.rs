//! Records that are lost while their copies are there, and a database that is damaged where nobody has read it yet.

use super::rows::{Record, sql};
use super::{Store, add, begin, copies, doors, get, pair, schema};
use crate::error::{Error, Result};
use crate::files;
use crate::vps::record::name::Name;

impl Store {
    /// VPSs that have a disk and a copy of their record beside it, and no record.
    pub fn lost(&self) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        for name in copies::names(&self.folders)? {
            let has_both =
                files::exists(&self.folders.record(&name)) && files::exists(&self.folders.disk(&name));
            if has_both && self.get(&name).is_err_and(|e| e.is_gone()) {
                found.push(name);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Takes the record of a VPS from its copy, with the ports that lead to it and its neighbours.
    ///
    /// # Errors
    /// Also where somebody else has its number, its address or a port of it by now; then nothing is changed.
    pub fn adopt(&self, name: &Name) -> Result<()> {
        self.with(|db| {
            let claim = begin(db)?;
            if get(&claim, name)?.is_some() {
                return Ok(());
            }
            let record: Record = copies::read(&self.folders, name)?;
            add(&claim, &record)?;
            doors::take(&claim, &record)?;
            for peer in &record.config.allow {
                if get(&claim, peer)?.is_some() {
                    pair(&claim, name, peer)?;
                }
            }
            claim.commit().map_err(sql)
        })
    }

    /// Reads all of the database, and makes it anew of the copies where that cannot be done; whether it was.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn mend(&self) -> Result<bool> {
        if schema::is_sound(&self.folders.database())? {
            return Ok(false);
        }
        let why = Error::Damaged("the database is damaged".to_owned());
        let anew = schema::make_anew(&self.folders, &why)?;
        *self.db.borrow_mut() = anew;
        Ok(true)
    }
}
