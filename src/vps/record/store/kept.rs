//! Texts that other tools keep here, by kind and name. condo makes nothing of them.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::rows::sql;
use super::{Store, exists};
use crate::error::{Error, Result};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
";

impl Store {
    /// All texts of a kind, by name.
    pub fn kept(&self, kind: &str) -> Result<BTreeMap<String, String>> {
        self.with(|db| {
            let mut query = db
                .prepare_cached("SELECT name, text FROM kept WHERE kind = ?1")
                .map_err(sql)?;
            let rows = query
                .query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))
                .map_err(sql)?;
            rows.map(|row| row.map_err(sql)).collect()
        })
    }

    /// Keeps a text, in the place of an earlier one of this kind and name.
    pub fn keep(&self, kind: &str, name: &str, text: &str) -> Result<()> {
        self.with(|db| put(db, "REPLACE", kind, name, text).map(drop))
    }

    /// Keeps a new text.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one of this kind and name.
    pub fn keep_new(&self, kind: &'static str, name: &str, text: &str) -> Result<()> {
        match self.with(|db| put(db, "IGNORE", kind, name, text))? {
            0 => Err(exists(kind, &name)),
            _ => Ok(()),
        }
    }

    /// Forgets a text.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of this kind and name.
    pub fn let_go(&self, kind: &'static str, name: &str) -> Result<()> {
        let gone = self.with(|db| {
            db.execute("DELETE FROM kept WHERE kind = ?1 AND name = ?2", [kind, name])
                .map_err(sql)
        })?;
        match gone {
            0 => Err(Error::NotFound {
                kind,
                name: name.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

fn put(db: &Connection, or: &str, kind: &str, name: &str, text: &str) -> Result<usize> {
    let statement = format!("INSERT OR {or} INTO kept (kind, name, text) VALUES (?1, ?2, ?3)");
    db.execute(&statement, params![kind, name, text]).map_err(sql)
}
