//! Another name for a VPS, in all tables that name it.

use rusqlite::{Connection, OptionalExtension, params};

use super::network::pair;
use super::rows::{self, Record, sql};
use super::{Store, begin, copies, exists, get, missing};
use crate::error::Result;
use crate::vps::record::name::Name;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS rename (
    new TEXT PRIMARY KEY REFERENCES vps ON DELETE CASCADE,
    old TEXT NOT NULL
) STRICT;
";

impl Store {
    /// Gives a VPS another name, and notes that its folders have to follow; its record as it is then.
    ///
    /// # Errors
    /// [`crate::error::Error::Exists`] when a VPS has that name, or had it a moment ago and its folders are still to be moved.
    pub fn rename(&self, old: &Name, new: &Name) -> Result<Record> {
        self.with(|db| {
            let claim = begin(db)?;
            // Rows of other tables name it until all are changed.
            claim
                .pragma_update(None, "defer_foreign_keys", true)
                .map_err(sql)?;
            if get(&claim, new)?.is_some() || is_pending(&claim, new)? || is_pending(&claim, old)? {
                return Err(exists("VPS", new));
            }
            let peers = unpair(&claim, old)?;
            let values = params![old.as_str(), new.as_str()];
            if claim
                .execute("UPDATE vps SET name = ?2 WHERE name = ?1", values)
                .map_err(sql)?
                == 0
            {
                return Err(missing(old));
            }
            for (table, column) in naming(&claim)? {
                let text = format!("UPDATE \"{table}\" SET \"{column}\" = ?2 WHERE \"{column}\" = ?1");
                claim.execute(&text, values).map_err(sql)?;
            }
            for peer in &peers {
                pair(&claim, new, peer)?;
            }
            let changed = allow_by_new_name(&claim, old, new)?;
            claim
                .execute("INSERT INTO rename (old, new) VALUES (?1, ?2)", values)
                .map_err(sql)?;
            let record = get(&claim, new)?.ok_or_else(|| missing(new))?;
            claim.commit().map_err(sql)?;
            for other in changed.iter().filter(|other| other.name != *new) {
                copies::write(&self.folders, other)?;
            }
            Ok(record)
        })
    }

    /// Renames whose folders may not have followed: old and new names.
    pub fn renames(&self) -> Result<Vec<(Name, Name)>> {
        self.with(|db| {
            let mut query = db.prepare_cached("SELECT old, new FROM rename").map_err(sql)?;
            let rows = query
                .query_map([], |row| Ok((rows::name(row, 0), rows::name(row, 1))))
                .map_err(sql)?;
            rows.map(|row| {
                let (old, new) = row.map_err(sql)?;
                Ok((old?, new?))
            })
            .collect()
        })
    }

    /// The folders have followed.
    pub fn end_rename(&self, record: &Record) -> Result<()> {
        copies::write(&self.folders, record)?;
        self.with(|db| {
            db.execute("DELETE FROM rename WHERE new = ?1", [record.name.as_str()])
                .map_err(sql)?;
            Ok(())
        })
    }
}

fn is_pending(db: &Connection, name: &Name) -> Result<bool> {
    let text = "SELECT 1 FROM rename WHERE old = ?1 OR new = ?1";
    let found = db
        .query_row(text, [name.as_str()], |_| Ok(()))
        .optional()
        .map_err(sql)?;
    Ok(found.is_some())
}

/// Takes a VPS out of its pairs, which are kept in the order of the names; with whom it was paired.
fn unpair(db: &Connection, name: &Name) -> Result<Vec<Name>> {
    let text = "DELETE FROM pair WHERE a = ?1 OR b = ?1 RETURNING CASE WHEN a = ?1 THEN b ELSE a END";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let rows = query
        .query_map([name.as_str()], |row| Ok(rows::name(row, 0)))
        .map_err(sql)?;
    rows.map(|row| row.map_err(sql)?).collect()
}

/// The columns that name a VPS: tables and columns, asked of the database, so that no table is forgotten.
fn naming(db: &Connection) -> Result<Vec<(String, String)>> {
    let text = "SELECT m.name, f.\"from\" FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f
                WHERE m.type = 'table' AND f.\"table\" = 'vps'";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(sql)?;
    rows.map(|row| row.map_err(sql)).collect()
}

/// Puts the new name into the configurations that allow the old one: of these a lost database is made anew. The records that changed.
fn allow_by_new_name(db: &Connection, old: &Name, new: &Name) -> Result<Vec<Record>> {
    let mut changed = Vec::new();
    for mut record in super::all(db)? {
        if record.config.allow.remove(old) {
            record.config.allow.insert(new.clone());
            let values = params![record.name.as_str(), serde_json::to_string(&record.config)?];
            db.execute("UPDATE vps SET config = ?2 WHERE name = ?1", values)
                .map_err(sql)?;
            changed.push(record);
        }
    }
    Ok(changed)
}
