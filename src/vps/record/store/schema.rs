//! The database file: its tables, set up once although many processes may come first, its reserve for a full disk, and what
//! becomes of one that cannot be read.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::super::folders::Folders;
use super::rows::sql;
use super::{copies, doors, kept, network, projects, rename, traffic};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};

/// Version of the layout below, kept in SQLite's `user_version`; 0 is a new database.
///
/// A table that is [`ADDED`], and a field of a configuration, need no other version: the next condo finds the database as it was,
/// and an older one stops at the first configuration with a field that it does not know. A change of a table that is there
/// needs one, with the step from the version before; `tests/data/database` keeps what each step has to start from.
const VERSION: u32 = 1;

/// Size of a page, SQLite's default.
const PAGE: u64 = 4096;
/// Pages that are kept free. To remove a VPS changes about twenty.
const RESERVE: u32 = 64;

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

/// Tables that databases of this version may lack, because they came later: each subject's are beside its functions.
const ADDED: &[&str] = &[
    network::TABLES,
    kept::TABLES,
    projects::TABLES,
    rename::TABLES,
    doors::TABLES,
    traffic::TABLES,
];

/// How long to wait for another process's transaction, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens the database, setting it up when it is new and making it anew when it cannot be read.
pub(super) fn connect(folders: &Folders) -> Result<Connection> {
    match open(folders) {
        Err(e) if matches!(e.root(), Error::Damaged(_)) => make_anew(folders, &e),
        other => other,
    }
}

fn open(folders: &Folders) -> Result<Connection> {
    let db = raw(&folders.database())?;
    let mut found = Found::look(&db)?;
    if found.version == 0 {
        create(&db, folders)?;
        found = Found::look(&db)?;
    }
    match found.version {
        VERSION if found.is_whole() => {}
        VERSION => db.execute_batch(&ADDED.concat()).map_err(sql)?,
        other => {
            return Err(Error::Corrupt(format!(
                "a newer condo made the database: it is of version {other}, this condo knows version {VERSION}; \
                 use the condo that made it, or a newer one"
            )));
        }
    }
    Ok(db)
}

/// What is in a database file.
struct Found {
    version: u32,
    names: Vec<String>,
}

impl Found {
    /// In one transaction: each takes a dozen system calls, and every command does this.
    fn look(db: &Connection) -> Result<Self> {
        let reading = db.unchecked_transaction().map_err(sql)?;
        let mut query = reading.prepare("SELECT name FROM sqlite_schema").map_err(sql)?;
        let names = query.query_map([], |row| row.get(0)).map_err(sql)?;
        Ok(Self {
            version: version(&reading)?,
            names: names.collect::<rusqlite::Result<_>>().map_err(sql)?,
        })
    }

    /// Whether it has what was [`ADDED`].
    fn is_whole(&self) -> bool {
        let added = ADDED.iter().flat_map(|text| text.split("IF NOT EXISTS ").skip(1));
        added
            .filter_map(|rest| rest.split_whitespace().next())
            .all(|name| self.names.iter().any(|there| there == name))
    }
}

/// A connection with its settings.
///
/// The journal stays beside the database and is written over, so that on a full disk it has its room already. Not WAL: that
/// maps a file into memory whose blocks may not be there, which ends a process by SIGBUS, and makes files anew at every open.
fn raw(path: &Path) -> Result<Connection> {
    let db = Connection::open(path).map_err(sql)?;
    db.busy_timeout(PATIENCE).map_err(sql)?;
    db.pragma_update(None, "foreign_keys", true).map_err(sql)?;
    // Scratch files would need room as well.
    db.pragma_update(None, "temp_store", "MEMORY").map_err(sql)?;
    match db
        .query_row("PRAGMA journal_mode = PERSIST", [], |_| Ok(()))
        .map_err(sql)
    {
        // One that an earlier condo made, with others at work on it: the next command changes it.
        Err(Error::Busy(_)) => {}
        other => other?,
    }
    Ok(db)
}

/// Under a lock of our own: what is not there yet cannot be locked.
fn create(db: &Connection, folders: &Folders) -> Result<()> {
    let _lock = lock(folders)?;
    if version(db)? != 0 {
        return Ok(());
    }
    let script = format!(
        "BEGIN IMMEDIATE; {TABLES} {} PRAGMA user_version = {VERSION};",
        ADDED.concat()
    );
    let made = db
        .execute_batch(&script)
        .map_err(sql)
        .and_then(|()| copies::restore(db, folders));
    match made {
        Ok(restored) => {
            db.execute_batch("COMMIT").map_err(sql)?;
            if restored > 0 {
                log::warn!(
                    "the database `{}` was lost: made anew from the copies of {restored} records",
                    folders.database().display()
                );
            }
            reserve(db, folders)
        }
        Err(e) => {
            let _ = db.execute_batch("ROLLBACK");
            Err(e)
        }
    }
}

/// Puts a damaged database aside and makes a new one of the copies of records.
pub(super) fn make_anew(folders: &Folders, why: &Error) -> Result<Connection> {
    let path = folders.database();
    {
        let _lock = lock(folders)?;
        // Another invocation may have been here first.
        if !is_sound(&path)? {
            let aside = path.with_extension("db.damaged");
            log::warn!("{why}; it is kept as `{}`", aside.display());
            std::fs::rename(&path, &aside).during(|| format!("put `{}` aside", path.display()))?;
            // They belong to it: a journal would be played back into the new one.
            for end in ["db-journal", "db-wal", "db-shm"] {
                files::remove_file(&path.with_extension(end))?;
            }
        }
    }
    open(folders)
}

pub(super) fn is_sound(path: &Path) -> Result<bool> {
    let check = || -> Result<String> {
        let db = raw(path)?;
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(sql)
    };
    match check() {
        Err(e) if matches!(e.root(), Error::Damaged(_)) => Ok(false),
        other => Ok(other? == "ok"),
    }
}

/// Sees to it that there are free pages in the database, and a journal long enough to change many: then a VPS can be stopped and
/// deleted, and its end recorded, on a disk that is full. What is written over takes no new room.
///
/// # Errors
/// One with [`Error::is_full`] when there is no room for the reserve itself.
pub(super) fn top_up(db: &Connection, folders: &Folders) -> Result<()> {
    let free: u32 = db
        .query_row("PRAGMA freelist_count", [], |row| row.get(0))
        .map_err(sql)?;
    let journal = folders.database().with_extension("db-journal");
    let long = std::fs::metadata(journal).map_or(0, |status| status.len());
    if free >= RESERVE / 2 && long >= u64::from(RESERVE) * PAGE {
        return Ok(());
    }
    let _lock = lock(folders)?;
    reserve(db, folders)
}

/// Fills pages, changes them all, which writes each into the journal, and frees them. The caller holds the lock.
fn reserve(db: &Connection, folders: &Folders) -> Result<()> {
    let fill = format!(
        "BEGIN IMMEDIATE;
         DROP TABLE IF EXISTS reserve;
         CREATE TABLE reserve (filler BLOB) STRICT;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {RESERVE})
             INSERT INTO reserve SELECT randomblob(3500) FROM n;
         COMMIT;
         UPDATE reserve SET filler = randomblob(3500);
         DROP TABLE reserve;"
    );
    db.execute_batch(&fill)
        .map_err(|e| {
            let _ = db.execute_batch("ROLLBACK");
            sql(e)
        })
        .during(|| format!("keep some room in `{}`", folders.database().display()))
}

fn lock(folders: &Folders) -> Result<Lock> {
    Lock::wait(&folders.database().with_extension("db.lock"))
}

fn version(db: &Connection) -> Result<u32> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sql)
}
