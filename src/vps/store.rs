//! Records of VPSs, in one SQLite database that many `condo` processes share.
//!
//! ```text
//! condo.db        WAL, user_version = 1 (a database of another version is refused)
//!   vps           name PK | id UNIQUE | uid_base UNIQUE | address UNIQUE | uuid | config (JSON) | created (unix seconds)
//!   last_exit     name PK -> vps | reason | status | signal | at (unix seconds)
//!   pair          a, b -> vps, a < b: these two may talk to each other
//!   network       one row: bridge | nft_table | subnet
//! condo.db.lock   flock while a new database is set up
//! ```
//! What must be unique is claimed in one immediate transaction: the loser of a race waits for the winner's commit and then
//! sees it, and a process killed in the middle has claimed nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::folders::Folders;
use super::name::Name;
use crate::error::{During, Error, Result};
use crate::files;

mod rows;
mod schema;

pub use rows::{ExitReason, LastExit, NetworkSettings, NewVps, Record};

use rows::sql;

/// Host uids of one VPS; a root user in it is the first of its range.
pub const UIDS: u32 = 65_536;
/// Where ranges begin: above what distributions and directory services hand out.
const FIRST_UID: u32 = 1_000_000_000;
/// As many ranges as fit below 2^31, which some programs take for negative.
const RANGES: u32 = (2_147_000_000 - FIRST_UID) / UIDS;
/// How long to wait for another process's transaction, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The open database. One per process; not for sharing between threads.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    /// The first range of this instance: several condos on one host begin at different ones.
    first_range: u32,
}

impl Store {
    /// Opens the database of an instance, setting it up when it is new.
    pub fn open(folders: &Folders) -> Result<Self> {
        let path = folders.database();
        let open = || -> Result<Connection> {
            let db = Connection::open(&path).map_err(sql)?;
            db.busy_timeout(PATIENCE).map_err(sql)?;
            schema::prepare(&db, &path)?;
            Ok(db)
        };
        Ok(Self {
            db: open().during(|| format!("open `{}`", path.display()))?,
            first_range: first_range(folders.mark()),
        })
    }

    /// Claims name, id, uid range and address for a new VPS and records it.
    ///
    /// `pick` chooses an address given those taken; it is not asked when `new.wanted_ip` is set, which the caller must
    /// have found to be inside the subnet. Fails with [`Error::Exists`] for a taken name (`VPS`) or address (`address`),
    /// and with [`Error::NotFound`] when a VPS of `config.allow` is not there.
    pub fn insert(&self, new: NewVps, pick: Pick<'_>) -> Result<Record> {
        let claim = self.begin()?;
        if get(&claim, &new.name)?.is_some() {
            return Err(exists("VPS", &new.name));
        }
        let taken = addresses(&claim)?;
        let address = match new.wanted_ip {
            Some(ip) => ip,
            None => pick(&taken)?,
        };
        if taken.contains(&address) {
            return Err(exists("address", &address));
        }
        let id = free_id(&claim)?;
        let record = Record {
            uid_base: FIRST_UID + (self.first_range + id - 1) % RANGES * UIDS,
            name: new.name,
            id,
            address,
            uuid: random_uuid()?,
            config: new.config,
            created: now(),
            last_exit: None,
        };
        add(&claim, &record)?;
        claim.commit().map_err(sql)?;
        Ok(record)
    }

    /// One VPS, or [`Error::NotFound`].
    pub fn get(&self, name: &Name) -> Result<Record> {
        get(&self.db, name)?.ok_or_else(|| Error::NotFound {
            kind: "VPS",
            name: name.to_string(),
        })
    }

    /// All VPSs, by name.
    pub fn list(&self) -> Result<Vec<Record>> {
        let mut query = self
            .db
            .prepare_cached(&format!("{} ORDER BY vps.name", rows::SELECT))
            .map_err(sql)?;
        let rows = query.query_map([], |row| Ok(Record::read(row))).map_err(sql)?;
        rows.map(|row| row.map_err(sql)?).collect()
    }

    /// Gives up a VPS's claims and forgets it; one that is gone already counts as removed.
    pub fn remove(&self, name: &Name) -> Result<()> {
        self.db
            .execute("DELETE FROM vps WHERE name = ?1", [name.as_str()])
            .map_err(sql)?;
        Ok(())
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
        self.db.execute(text, values).map_err(sql)?;
        Ok(())
    }

    /// The network this instance chose, once it has.
    pub fn network(&self) -> Result<Option<NetworkSettings>> {
        let text = "SELECT bridge, nft_table, subnet FROM network";
        self.db
            .query_row(text, [], NetworkSettings::read)
            .optional()
            .map_err(sql)
    }

    /// Stores the network unless another process was first; returns the one that holds.
    pub fn set_network_if_absent(&self, wanted: &NetworkSettings) -> Result<NetworkSettings> {
        let text = "INSERT OR IGNORE INTO network (one, bridge, nft_table, subnet) VALUES (1, ?1, ?2, ?3)";
        let values = params![wanted.bridge, wanted.table, wanted.subnet];
        self.db.execute(text, values).map_err(sql)?;
        self.network()?
            .ok_or_else(|| Error::Corrupt("the network settings are gone".into()))
    }

    /// Whom a VPS may talk to: names and addresses.
    pub fn peers(&self, name: &Name) -> Result<Vec<(Name, Ipv4Addr)>> {
        let text = "SELECT name, address FROM vps JOIN pair ON (a = ?1 AND b = name) OR (b = ?1 AND a = name) ORDER BY name";
        let mut query = self.db.prepare_cached(text).map_err(sql)?;
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
    }

    fn begin(&self) -> Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate).map_err(sql)
    }
}

/// Chooses an address that is not among those taken.
pub type Pick<'a> = &'a dyn Fn(&BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr>;

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

fn addresses(db: &Connection) -> Result<BTreeSet<Ipv4Addr>> {
    let mut query = db.prepare_cached("SELECT address FROM vps").map_err(sql)?;
    let rows = query
        .query_map([], |row| Ok(rows::address(row, 0)))
        .map_err(sql)?;
    rows.map(|row| row.map_err(sql)?).collect()
}

/// The smallest number from 1 that no VPS has. It is part of interface names and decides the uid range.
fn free_id(db: &Connection) -> Result<u32> {
    let text = "SELECT min(id) + 1 FROM (SELECT 0 AS id UNION ALL SELECT id FROM vps) AS used
                WHERE NOT EXISTS (SELECT 1 FROM vps WHERE vps.id = used.id + 1)";
    let id: u32 = db.query_row(text, [], |row| row.get(0)).map_err(sql)?;
    if id > RANGES {
        let why = format!("all {RANGES} ranges of user ids are taken; delete a VPS");
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
    for peer in &record.config.allow {
        if get(db, peer)?.is_none() || *peer == record.name {
            return Err(Error::NotFound {
                kind: "VPS",
                name: peer.to_string(),
            });
        }
        let (a, b) = (peer.min(&record.name), peer.max(&record.name));
        db.execute(
            "INSERT INTO pair (a, b) VALUES (?1, ?2)",
            [a.as_str(), b.as_str()],
        )
        .map_err(sql)?;
    }
    Ok(())
}

/// The host's own instance begins at the first range; others are spread over the later ones by their mark, because
/// two VPSs must not share a host uid even when two databases know nothing of each other.
fn first_range(mark: Option<&str>) -> u32 {
    let spread = 4096;
    match mark.and_then(|mark| u32::from_str_radix(mark, 16).ok()) {
        None => 0,
        Some(hash) => spread + hash % (RANGES - spread),
    }
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
