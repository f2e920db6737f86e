//! Records of VPSs, in one SQLite database that many `condo` processes share.
//!
//! ```text
//! condo.db          user_version = 1 (a database of another version is refused)
//!   vps           name PK | id UNIQUE | uid_base UNIQUE | address UNIQUE | uuid | config (JSON) | created (unix seconds)
//!   last_exit     name PK -> vps | reason | status | signal | at (unix seconds)
//!   pair          a, b -> vps, a < b: these two may talk to each other
//!   rename        new -> vps | old: its folders may still go by the old name
//!   kept          kind, name PK | text: what other tools keep here
//!   networks      name PK | number UNIQUE | settings (JSON)
//!   interface     vps -> vps, number | network | address UNIQUE | address6 UNIQUE | mac UNIQUE
//!   turns         network | the address of it that was handed out last
//!   door          transport, first, host PK | last | name -> vps: ports of the host that lead to a VPS
//!   project       name PK | limits (JSON) | created
//!   traffic       name, month PK -> vps | bytes and packets of both directions
//!   counter       name, link PK -> vps | the same as interfaces had them when they were read last
//! condo.db-journal  kept, see schema
//! condo.db.lock     flock while a new database is set up
//! condo.db.damaged  one that could not be read any more
//! condo.db.network  a copy of the networks
//! condo.db.projects a copy of the projects
//! vps/NAME/record.json      a copy of a record
//! ```
//! What must be unique is claimed in one immediate transaction: the loser of a race waits for the winner's commit and then
//! sees it, and a process killed in the middle has claimed nothing.
//!
//! A database that is lost, emptied or cannot be read is made anew out of the copies: a record is worth as much as the VPS.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::attachment::Attachment;
use super::config::VpsConfig;
use super::folders::Folders;
use super::name::Name;
use crate::error::{During, Error, Result};
use crate::namespaces::ranges;
use crate::net::ipam::Taken;

mod claim;
mod copies;
mod doors;
mod kept;
mod mend;
mod network;
mod projects;
mod rename;
mod rows;
mod schema;
mod traffic;

pub use rows::{ExitReason, LastExit, NewVps, Record};

pub(in crate::vps) use claim::random_uuid;
use claim::{claimed, has_range};
use network::{interfaces, pair, put_interface};
use rows::sql;

/// Host uids of one VPS; a root user in it is the first of its range.
pub const UIDS: u32 = ranges::SIZE;
/// The open database. One per process; not for sharing between threads.
#[derive(Debug)]
pub struct Store {
    db: RefCell<Connection>,
    folders: Folders,
    /// The project whose VPSs are meant by their names, if it is only one.
    project: Option<Name>,
}

/// What a new VPS is given, chosen while its claim is made, so that nobody else is given the same.
#[expect(missing_debug_implementations, reason = "functions")]
pub struct Picks<'a> {
    /// Not asked when a VPS wants a certain address.
    pub address: PickAddress<'a>,
    /// The first of its user ids, by its number; the function it gets says whether another VPS of this instance has a range.
    pub uids: &'a dyn Fn(u32, IsTaken<'_>) -> Result<u32>,
}

/// Chooses an address on the network of an attachment that is not among those taken.
pub type PickAddress<'a> = &'a dyn Fn(&Attachment, &Taken) -> Result<Ipv4Addr>;

/// Whether a VPS has the range of user ids that begins here.
pub type IsTaken<'a> = &'a dyn Fn(u32) -> bool;

impl Store {
    /// Opens the database of an instance, setting it up when it is new.
    pub fn open(folders: &Folders) -> Result<Self> {
        let db = schema::connect(folders).during(|| format!("open `{}`", folders.database().display()))?;
        Ok(Self {
            db: RefCell::new(db),
            folders: folders.clone(),
            project: None,
        })
    }

    /// The same, which knows by their names only the VPSs of a project.
    pub(super) fn within(self, project: Option<Name>) -> Self {
        Self { project, ..self }
    }

    /// The project whose VPSs are meant, if it is only one.
    pub(super) fn project_meant(&self) -> Option<&Name> {
        self.project.as_ref()
    }

    /// Refuses a VPS that is not meant. It is there, which is another thing than one that is gone: nothing of it is cleared away.
    fn must_be_meant(&self, record: Record) -> Result<Record> {
        match &self.project {
            Some(project) if record.project() != project.as_str() => Err(Error::Elsewhere {
                name: record.name.to_string(),
                project: project.to_string(),
            }),
            _ => Ok(record),
        }
    }

    /// Works with the database, and once more with a new one if it turns out to be damaged.
    fn with<T>(&self, work: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        let result = work(&self.db.borrow());
        match result {
            Err(e) if matches!(e.root(), Error::Damaged(_)) => {
                let anew = schema::make_anew(&self.folders, &e)?;
                *self.db.borrow_mut() = anew;
                work(&self.db.borrow())
            }
            other => other,
        }
    }

    /// Claims name, id, uid range and address for a new VPS and records it.
    ///
    /// `new.wanted_ip` must have been found to be inside the subnet. Fails with [`Error::Exists`] for a taken name (`VPS`) or
    /// address (`address`), and with [`Error::NotFound`] when a VPS of `config.allow` is not there.
    pub fn insert(&self, new: &NewVps, picks: &Picks<'_>) -> Result<Record> {
        self.with(|db| schema::top_up(db, &self.folders))?;
        self.with(|db| {
            let claim = begin(db)?;
            let record = claimed(&claim, new, picks)?;
            projects::admit(&claim, None, &record)?;
            add(&claim, &record)?;
            for peer in &record.config.allow {
                if get(&claim, peer)?.is_none() || *peer == record.name {
                    return Err(Error::NotFound {
                        kind: "VPS",
                        name: peer.to_string(),
                    });
                }
                pair(&claim, &record.name, peer)?;
            }
            doors::take(&claim, &record)?;
            let first_boot = self.folders.seat(&record.name).first_boot();
            let written =
                copies::write(&self.folders, &record).and_then(|()| new.first_boot.save(&first_boot));
            written
                .and_then(|()| claim.commit().map_err(sql))
                .inspect_err(|_| copies::remove(&self.folders, &record.name))?;
            Ok(record)
        })
    }

    /// Gives a VPS another range of user ids.
    pub fn move_uids(&self, name: &Name, pick: &dyn Fn(IsTaken<'_>) -> Result<u32>) -> Result<Record> {
        self.with(|db| {
            let claim = begin(db)?;
            let uid_base = pick(&|base| has_range(&claim, base))?;
            claim
                .execute(
                    "UPDATE vps SET uid_base = ?2 WHERE name = ?1",
                    params![name.as_str(), uid_base],
                )
                .map_err(sql)?;
            let record = get(&claim, name)?.ok_or_else(|| missing(name))?;
            // An earlier condo made no copies.
            copies::write(&self.folders, &record)?;
            copies::write_networks(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// Changes a VPS's configuration in one transaction; returns the record as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`], and whatever `change` says, in which case nothing is changed.
    pub fn reconfigure(&self, name: &Name, change: &dyn Fn(&mut VpsConfig) -> Result<()>) -> Result<Record> {
        self.with(|db| {
            let claim = begin(db)?;
            let before = self.must_be_meant(get(&claim, name)?.ok_or_else(|| missing(name))?)?;
            let mut record = before.clone();
            change(&mut record.config)?;
            projects::admit(&claim, Some(&before), &record)?;
            set_config(&claim, &record)?;
            copies::write(&self.folders, &record)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// Remembers that the deletion of a VPS has begun, which somebody has to finish. The copy of its record, which goes with its
    /// folder next, is left as it is.
    ///
    /// # Errors
    /// What the database says.
    pub fn set_deleting(&self, record: &Record) -> Result<()> {
        let mut record = record.clone();
        record.config.deleting = true;
        self.with(|db| set_config(db, &record))
    }

    /// One VPS.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Elsewhere`] for one of another project than is worked in.
    pub fn get(&self, name: &Name) -> Result<Record> {
        self.must_be_meant(self.get_any(name)?)
    }

    /// One VPS, whatever project it is in: a neighbour of one that is meant.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get_any(&self, name: &Name) -> Result<Record> {
        self.with(|db| get(db, name))?.ok_or_else(|| missing(name))
    }

    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<Record>> {
        self.with(all)
    }

    /// Whether there is no VPS at all.
    pub fn is_empty(&self) -> Result<bool> {
        let text = "SELECT NOT EXISTS (SELECT 1 FROM vps)";
        self.with(|db| db.query_row(text, [], |row| row.get(0)).map_err(sql))
    }

    /// Gives up a VPS's claims and forgets it; one that is gone already counts as removed.
    pub fn remove(&self, name: &Name) -> Result<()> {
        self.with(|db| {
            db.execute("DELETE FROM vps WHERE name = ?1", [name.as_str()])
                .map_err(sql)?;
            Ok(())
        })
    }

    /// Records how a VPS ended, in place of its earlier end. A VPS deleted meanwhile is none of our business.
    pub fn record_exit(&self, name: &Name, exit: &LastExit) -> Result<()> {
        let text = "INSERT OR REPLACE INTO last_exit (name, reason, status, signal, at)
                    SELECT name, ?2, ?3, ?4, ?5 FROM vps WHERE name = ?1";
        let values = params![
            name.as_str(),
            exit.reason.as_str(),
            exit.status,
            exit.signal,
            exit.at
        ];
        self.with(|db| {
            db.execute(text, values).map_err(sql)?;
            Ok(())
        })
    }
}

fn begin(db: &Connection) -> Result<Transaction<'_>> {
    Transaction::new_unchecked(db, TransactionBehavior::Immediate).map_err(sql)
}

/// For several questions at one moment; it ends with what is returned.
fn look(db: &Connection) -> Result<Transaction<'_>> {
    Transaction::new_unchecked(db, TransactionBehavior::Deferred).map_err(sql)
}

fn missing(name: &Name) -> Error {
    Error::NotFound {
        kind: "VPS",
        name: name.to_string(),
    }
}

fn exists(kind: &'static str, name: &dyn std::fmt::Display) -> Error {
    Error::Exists {
        kind,
        name: name.to_string(),
    }
}

fn get(db: &Connection, name: &Name) -> Result<Option<Record>> {
    db.prepare_cached(&format!("{} WHERE vps.name = ?1", rows::SELECT))
        .map_err(sql)?
        .query_row([name.as_str()], |row: &Row<'_>| Ok(Record::read(row)))
        .optional()
        .map_err(sql)?
        .transpose()?
        .map(|record| {
            let own = interfaces(db, Some(name))?
                .into_iter()
                .map(|(_, interface)| interface);
            Ok(record.with_interfaces(own.collect()))
        })
        .transpose()
}

fn set_config(db: &Connection, record: &Record) -> Result<()> {
    let text = "UPDATE vps SET config = ?2 WHERE name = ?1";
    let config = serde_json::to_string(&record.config)?;
    db.execute(text, params![record.name.as_str(), config])
        .map_err(sql)?;
    Ok(())
}

fn all(db: &Connection) -> Result<Vec<Record>> {
    let text = format!("{} ORDER BY vps.name", rows::SELECT);
    let mut query = db.prepare_cached(&text).map_err(sql)?;
    let rows = query.query_map([], |row| Ok(Record::read(row))).map_err(sql)?;
    let mut owned = interfaces(db, None)?.into_iter().peekable();
    rows.map(|row| {
        let record = row.map_err(sql)??;
        let mut own = Vec::new();
        // Both are sorted by name.
        while let Some((_, interface)) = owned.next_if(|(name, _)| *name <= record.name) {
            own.push(interface);
        }
        Ok(record.with_interfaces(own))
    })
    .collect()
}

fn add(db: &Connection, record: &Record) -> Result<()> {
    let text = "INSERT INTO vps (name, id, uid_base, address, uuid, config, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let config = serde_json::to_string(&record.config)?;
    let values = params![
        record.name.as_str(),
        record.id,
        record.uid_base,
        record.address.to_string(),
        record.uuid,
        config,
        record.created
    ];
    db.execute(text, values).map_err(sql)?;
    record
        .interfaces
        .iter()
        .try_for_each(|interface| put_interface(db, &record.name, interface))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
