//! Records of VPSs, in one SQLite database that many `condo` processes share.
//!
//! ```text
//! condo.db          user_version = 1 (a database of another version is refused)
//!   vps           name PK | id UNIQUE | uid_base UNIQUE | address UNIQUE | uuid | config (JSON) | created (unix seconds)
//!   last_exit     name PK -> vps | reason | status | signal | at (unix seconds)
//!   pair          a, b -> vps, a < b: these two may talk to each other
//!   network       one row: bridge | nft_table | subnet
//!   turn          one row: the address that was handed out last
//! condo.db-journal  kept, see schema
//! condo.db.lock     flock while a new database is set up
//! condo.db.damaged  one that could not be read any more
//! condo.db.network  a copy of the network's settings
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

use super::folders::Folders;
use super::name::Name;
use crate::error::{During, Error, Result};
use crate::files;
use crate::image;
use crate::namespaces::ranges;
use crate::net::ipam::Taken;

mod copies;
mod rows;
mod schema;

pub use rows::{ExitReason, LastExit, NetworkSettings, NewVps, Record};

use rows::sql;

/// Host uids of one VPS; a root user in it is the first of its range.
pub const UIDS: u32 = ranges::SIZE;
const _: () = assert!(UIDS == image::OWNERS, "an image's owners are those of a VPS");
/// The highest number of a VPS: five digits fit into the name of its interface.
const HIGHEST_ID: u32 = 99_999;

/// The open database. One per process; not for sharing between threads.
#[derive(Debug)]
pub struct Store {
    db: RefCell<Connection>,
    folders: Folders,
}

/// What a new VPS is given, chosen while its claim is made, so that nobody else is given the same.
#[expect(missing_debug_implementations, reason = "functions")]
pub struct Picks<'a> {
    /// Not asked when a VPS wants a certain address.
    pub address: PickAddress<'a>,
    /// The first of its user ids, by its number; the function it gets says whether another VPS of this instance has a range.
    pub uids: &'a dyn Fn(u32, IsTaken<'_>) -> Result<u32>,
}

/// Chooses an address that is not among those taken.
pub type PickAddress<'a> = &'a dyn Fn(&Taken) -> Result<Ipv4Addr>;

/// Whether a VPS has the range of user ids that begins here.
pub type IsTaken<'a> = &'a dyn Fn(u32) -> bool;

impl Store {
    /// Opens the database of an instance, setting it up when it is new.
    pub fn open(folders: &Folders) -> Result<Self> {
        let db = schema::connect(folders).during(|| format!("open `{}`", folders.database().display()))?;
        Ok(Self {
            db: RefCell::new(db),
            folders: folders.clone(),
        })
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
            let written = copies::write(&self.folders, &record);
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
            copies::write_network(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// One VPS, or [`Error::NotFound`].
    pub fn get(&self, name: &Name) -> Result<Record> {
        self.with(|db| get(db, name))?.ok_or_else(|| missing(name))
    }

    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<Record>> {
        self.with(|db| {
            let text = format!("{} ORDER BY vps.name", rows::SELECT);
            let mut query = db.prepare_cached(&text).map_err(sql)?;
            let rows = query.query_map([], |row| Ok(Record::read(row))).map_err(sql)?;
            rows.map(|row| row.map_err(sql)?).collect()
        })
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

    /// The network this instance chose, once it has.
    pub fn network(&self) -> Result<Option<NetworkSettings>> {
        self.with(network)
    }

    /// Stores the network unless another process was first; returns the one that holds.
    pub fn set_network_if_absent(&self, wanted: &NetworkSettings) -> Result<NetworkSettings> {
        self.with(|db| set_network(db, wanted))?;
        let settings = self
            .network()?
            .ok_or_else(|| Error::Corrupt("the network settings are gone".into()))?;
        self.with(|db| copies::write_network(&self.folders, db))?;
        Ok(settings)
    }

    /// Whom a VPS may talk to: names and addresses.
    pub fn peers(&self, name: &Name) -> Result<Vec<(Name, Ipv4Addr)>> {
        let text = "SELECT name, address FROM vps JOIN pair ON (a = ?1 AND b = name) OR (b = ?1 AND a = name) ORDER BY name";
        self.with(|db| {
            let mut query = db.prepare_cached(text).map_err(sql)?;
            let rows = query
                .query_map([name.as_str()], |row| {
                    Ok((rows::name(row, 0), rows::address(row, 1)))
                })
                .map_err(sql)?;
            rows.map(|row| {
                let (name, address) = row.map_err(sql)?;
                Ok((name?, address?))
            })
            .collect()
        })
    }
}

fn begin(db: &Connection) -> Result<Transaction<'_>> {
    Transaction::new_unchecked(db, TransactionBehavior::Immediate).map_err(sql)
}

/// The record of a new VPS, with all that is its own.
fn claimed(claim: &Connection, new: &NewVps, picks: &Picks<'_>) -> Result<Record> {
    if get(claim, &new.name)?.is_some() {
        return Err(exists("VPS", &new.name));
    }
    let taken = taken(claim)?;
    let address = match new.wanted_ip {
        Some(ip) => ip,
        None => (picks.address)(&taken)?,
    };
    if new.wanted_ip.is_none() {
        take_turn(claim, address)?;
    }
    if taken.by_others.contains(&address) {
        return Err(exists("address", &address));
    }
    let id = free_id(claim)?;
    Ok(Record {
        name: new.name.clone(),
        id,
        address,
        uuid: random_uuid()?,
        config: new.config.clone(),
        created: now(),
        last_exit: None,
        uid_base: (picks.uids)(id, &|base| has_range(claim, base))?,
    })
}

/// Whether a VPS has the range of user ids that begins here; also when that cannot be found out.
fn has_range(db: &Connection, base: u32) -> bool {
    let text = "SELECT count(*) FROM vps WHERE uid_base = ?1";
    db.query_row(text, [base], |row| row.get::<_, u32>(0)) != Ok(0)
}

fn missing(name: &Name) -> Error {
    Error::NotFound {
        kind: "VPS",
        name: name.to_string(),
    }
}

fn network(db: &Connection) -> Result<Option<NetworkSettings>> {
    let text = "SELECT bridge, nft_table, subnet FROM network";
    db.query_row(text, [], NetworkSettings::read)
        .optional()
        .map_err(sql)
}

fn set_network(db: &Connection, settings: &NetworkSettings) -> Result<()> {
    let text = "INSERT OR IGNORE INTO network (one, bridge, nft_table, subnet) VALUES (1, ?1, ?2, ?3)";
    let values = params![settings.bridge, settings.table, settings.subnet];
    db.execute(text, values).map_err(sql)?;
    Ok(())
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
        .transpose()
}

fn taken(db: &Connection) -> Result<Taken> {
    let mut query = db.prepare_cached("SELECT address FROM vps").map_err(sql)?;
    let rows = query
        .query_map([], |row| Ok(rows::address(row, 0)))
        .map_err(sql)?;
    let last = db
        .query_row("SELECT address FROM turn", [], |row| Ok(rows::address(row, 0)))
        .optional()
        .map_err(sql)?;
    Ok(Taken {
        by_others: rows.map(|row| row.map_err(sql)?).collect::<Result<_>>()?,
        last: last.transpose()?,
    })
}

fn take_turn(db: &Connection, address: Ipv4Addr) -> Result<()> {
    let text = "INSERT OR REPLACE INTO turn (one, address) VALUES (1, ?1)";
    db.execute(text, [address.to_string()]).map_err(sql)?;
    Ok(())
}

/// The smallest number from 1 that no VPS has. It is part of interface names.
fn free_id(db: &Connection) -> Result<u32> {
    let text = "SELECT min(id) + 1 FROM (SELECT 0 AS id UNION ALL SELECT id FROM vps) AS used
                WHERE NOT EXISTS (SELECT 1 FROM vps WHERE vps.id = used.id + 1)";
    let id: u32 = db.query_row(text, [], |row| row.get(0)).map_err(sql)?;
    if id > HIGHEST_ID {
        let why = format!("there are {HIGHEST_ID} already; delete one");
        return Err(Error::unsupported("another VPS", why));
    }
    Ok(id)
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
    Ok(())
}

/// These two may talk to each other.
fn pair(db: &Connection, one: &Name, other: &Name) -> Result<()> {
    let (a, b) = (one.min(other), one.max(other));
    db.execute(
        "INSERT OR IGNORE INTO pair (a, b) VALUES (?1, ?2)",
        [a.as_str(), b.as_str()],
    )
    .map_err(sql)?;
    Ok(())
}

fn random_uuid() -> Result<String> {
    let text = files::read_text(std::path::Path::new("/proc/sys/kernel/random/uuid"))?;
    Ok(text.trim().to_owned())
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
