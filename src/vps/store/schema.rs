//! The tables, and setting them up once although many processes may come first.

use std::path::Path;

use rusqlite::Connection;

use super::rows::sql;
use crate::error::{Error, Result};
use crate::files::Lock;

/// Version of the layout below, kept in SQLite's `user_version`; 0 is a new database.
const VERSION: u32 = 1;

/// `STRICT`: a value of the wrong type is an error, not a guess.
const TABLES: &str = "
CREATE TABLE vps (
    name     TEXT PRIMARY KEY,
    id       INTEGER NOT NULL UNIQUE,
    uid_base INTEGER NOT NULL UNIQUE,
    address  TEXT NOT NULL UNIQUE,
    uuid     TEXT NOT NULL UNIQUE,
    config   TEXT NOT NULL,
    created  INTEGER NOT NULL
) STRICT;
CREATE TABLE last_exit (
    name   TEXT PRIMARY KEY REFERENCES vps ON DELETE CASCADE,
    reason TEXT NOT NULL,
    status INTEGER,
    signal INTEGER,
    at     INTEGER NOT NULL
) STRICT;
CREATE TABLE pair (
    a TEXT NOT NULL REFERENCES vps ON DELETE CASCADE,
    b TEXT NOT NULL REFERENCES vps ON DELETE CASCADE,
    PRIMARY KEY (a, b),
    CHECK (a < b)
) STRICT;
CREATE INDEX pair_b ON pair (b);
CREATE TABLE network (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    bridge    TEXT NOT NULL,
    nft_table TEXT NOT NULL,
    subnet    TEXT NOT NULL
) STRICT;
";

/// Makes a connection ready: pragmas of the connection, and the tables when the database is new.
pub(super) fn prepare(db: &Connection, path: &Path) -> Result<()> {
    db.pragma_update(None, "foreign_keys", true).map_err(sql)?;
    if version(db)? == 0 {
        create(db, path)?;
    }
    match version(db)? {
        VERSION => Ok(()),
        other => Err(Error::Corrupt(format!(
            "the database is of version {other}, this condo knows version {VERSION}; use the condo that made it"
        ))),
    }
}

/// Under a lock of our own: the change to WAL does not wait for other connections, it fails.
fn create(db: &Connection, path: &Path) -> Result<()> {
    let _lock = Lock::wait(&path.with_extension("db.lock"))?;
    if version(db)? != 0 {
        return Ok(());
    }
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .map_err(sql)?;
    let script = format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
    db.execute_batch(&script).map_err(sql)
}

fn version(db: &Connection) -> Result<u32> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sql)
}
