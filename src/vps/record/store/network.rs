//! The networks of the instance, which interfaces VPSs have on them, and which VPSs may talk to each other.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, corrupt, sql};
use super::{Store, begin, copies, exists, get, missing, set_config};
use crate::error::{Error, Result};
use crate::net::Network;
use crate::vps::record::attachment::{Attachment, Interface};
use crate::vps::record::name::Name;
use crate::vps::record::network::NetworkRecord;
use crate::vps::record::store::Record;

/// `network`, a table of one row, is where an earlier condo kept the default network.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS networks (
    name     TEXT PRIMARY KEY,
    number   INTEGER NOT NULL UNIQUE,
    settings TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS interface (
    vps      TEXT NOT NULL REFERENCES vps ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    network  TEXT NOT NULL,
    address  TEXT NOT NULL UNIQUE,
    address6 TEXT UNIQUE,
    mac      TEXT UNIQUE,
    PRIMARY KEY (vps, number)
) STRICT;
CREATE INDEX IF NOT EXISTS interface_network ON interface (network);
CREATE TABLE IF NOT EXISTS turns (
    network TEXT PRIMARY KEY,
    address TEXT NOT NULL
) STRICT;
";

/// The highest number of a network: its link's name has room for three digits.
const HIGHEST_NUMBER: u32 = 999;

impl Store {
    /// All networks, the default one first once it was made.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>> {
        self.with(networks)
    }

    /// One network, or [`Error::NotFound`].
    pub fn network(&self, name: &Name) -> Result<NetworkRecord> {
        self.with(|db| network(db, name))?.ok_or_else(|| no_network(name))
    }

    /// Stores the default network unless another process was first; returns the one that holds.
    pub fn set_network_if_absent(&self, wanted: &NetworkRecord) -> Result<NetworkRecord> {
        self.with(|db| {
            let claim = begin(db)?;
            let record = match network(&claim, &wanted.name)? {
                Some(record) => record,
                None => {
                    put_network(&claim, wanted)?;
                    wanted.clone()
                }
            };
            copies::write_networks(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// Stores a new network. `make` gets the other networks and a number that none of them has.
    ///
    /// # Errors
    /// [`Error::Exists`] for a name that is taken, and whatever `make` says.
    pub fn add_network(
        &self,
        name: &Name,
        make: &dyn Fn(&[NetworkRecord], u32) -> Result<NetworkRecord>,
    ) -> Result<NetworkRecord> {
        self.with(|db| {
            let claim = begin(db)?;
            let others = networks(&claim)?;
            if others.iter().any(|other| other.name == *name) {
                return Err(exists("network", name));
            }
            let taken = |number: &u32| others.iter().any(|other| other.number == *number);
            let number = (1..=HIGHEST_NUMBER)
                .find(|number| !taken(number))
                .ok_or_else(|| {
                    let why = format!("there are {HIGHEST_NUMBER} already; delete one");
                    Error::unsupported("another network", why)
                })?;
            let record = make(&others, number)?;
            put_network(&claim, &record)?;
            copies::write_networks(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// Changes a network in one transaction; returns it as it is then.
    pub fn change_network(
        &self,
        name: &Name,
        change: &dyn Fn(&mut NetworkRecord) -> Result<()>,
    ) -> Result<NetworkRecord> {
        self.with(|db| {
            let claim = begin(db)?;
            let mut record = network(&claim, name)?.ok_or_else(|| no_network(name))?;
            change(&mut record)?;
            put_network(&claim, &record)?;
            copies::write_networks(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// Forgets a network that no VPS is on, once `retire` has taken away what the kernel has of it.
    ///
    /// # Errors
    /// [`Error::Status`] that names who is on it, and whatever `retire` says.
    pub fn remove_network(
        &self,
        name: &Name,
        retire: &dyn Fn(&NetworkRecord) -> Result<()>,
    ) -> Result<NetworkRecord> {
        self.with(|db| {
            let claim = begin(db)?;
            let record = network(&claim, name)?.ok_or_else(|| no_network(name))?;
            if let Some(vps) = users(&claim, &record)?.first() {
                let text =
                    format!("`{vps}` is on the network; delete it, or `condo network detach {name} {vps}`");
                return Err(Error::Status(text));
            }
            retire(&record)?;
            for text in [
                "DELETE FROM networks WHERE name = ?1",
                "DELETE FROM turns WHERE network = ?1",
            ] {
                claim.execute(text, [name.as_str()]).map_err(sql)?;
            }
            if record.is_default() {
                claim.execute("DELETE FROM network", []).map_err(sql)?;
            }
            copies::write_networks(&self.folders, &claim)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }

    /// The VPSs that have an interface on a network, by name.
    pub fn on_network(&self, record: &NetworkRecord) -> Result<Vec<Name>> {
        self.with(|db| users(db, record))
    }

    /// Gives a VPS one more interface, numbered by the first free number.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`] for an address that somebody has, and whatever `pick` says.
    pub fn add_interface(
        &self,
        name: &Name,
        attachment: &Attachment,
        pick: super::PickAddress<'_>,
    ) -> Result<(Record, Interface)> {
        self.with(|db| {
            let claim = begin(db)?;
            let before = get(&claim, name)?.ok_or_else(|| missing(name))?;
            let mut record = before.clone();
            let number = (0..=u8::MAX)
                .find(|number| record.interfaces.iter().all(|other| other.number != *number))
                .unwrap_or(u8::MAX);
            let interface = super::claim::interface(&claim, (number, &[]), attachment, pick)?;
            settle(&claim, &record)?;
            put_interface(&claim, name, &interface)?;
            record.interfaces.push(interface.clone());
            record.interfaces.sort_by_key(|interface| interface.number);
            record.config.networks = asked_for(&record, Some((number, attachment)));
            super::projects::admit(&claim, Some(&before), &record)?;
            set_config(&claim, &record)?;
            copies::write(&self.folders, &record)?;
            claim.commit().map_err(sql)?;
            Ok((record, interface))
        })
    }

    /// Takes an interface from a VPS, unless it is its only one.
    pub fn remove_interface(&self, name: &Name, number: u8) -> Result<Record> {
        self.with(|db| {
            let claim = begin(db)?;
            let mut record = get(&claim, name)?.ok_or_else(|| missing(name))?;
            record.interfaces.retain(|interface| interface.number != number);
            let Some(first) = record.interfaces.first() else {
                let text = "it is the VPS's only interface; attach another network first";
                return Err(Error::Status(text.into()));
            };
            record.address = first.address;
            settle(&claim, &record)?;
            let gone = "DELETE FROM interface WHERE vps = ?1 AND number = ?2";
            claim.execute(gone, params![name.as_str(), number]).map_err(sql)?;
            let moved = "UPDATE vps SET address = ?2 WHERE name = ?1";
            claim
                .execute(moved, params![name.as_str(), record.address.to_string()])
                .map_err(sql)?;
            record.config.networks = asked_for(&record, None);
            set_config(&claim, &record)?;
            copies::write(&self.folders, &record)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
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

    /// The same of all VPSs that may talk to any, by name.
    pub fn all_peers(&self) -> Result<BTreeMap<Name, Vec<Name>>> {
        let text = "SELECT a, b FROM pair UNION ALL SELECT b, a FROM pair ORDER BY 1, 2";
        self.with(|db| {
            let mut query = db.prepare_cached(text).map_err(sql)?;
            let rows = query
                .query_map([], |row| Ok((rows::name(row, 0), rows::name(row, 1))))
                .map_err(sql)?;
            let mut all = BTreeMap::<_, Vec<_>>::new();
            for row in rows {
                let (one, other) = row.map_err(sql)?;
                all.entry(one?).or_default().push(other?);
            }
            Ok(all)
        })
    }
}

fn no_network(name: &Name) -> Error {
    Error::NotFound {
        kind: "network",
        name: name.to_string(),
    }
}

/// What a VPS is to ask for when it is made again: the networks it is on now, and of addresses those that were asked for.
fn asked_for(record: &Record, new: Option<(u8, &Attachment)>) -> Vec<Attachment> {
    let asked = |interface: &Interface| match new {
        Some((number, attachment)) if number == interface.number => attachment.clone(),
        _ => {
            let networks = &record.config.networks;
            let before = networks.iter().find(|asked| asked.network == interface.network);
            before
                .cloned()
                .unwrap_or_else(|| Attachment::to(interface.network.clone()))
        }
    };
    record.interfaces.iter().map(asked).collect()
}

/// Writes down the one interface of a VPS that an earlier condo made.
fn settle(db: &Connection, record: &Record) -> Result<()> {
    let text = "SELECT count(*) FROM interface WHERE vps = ?1";
    let known: u32 = db
        .query_row(text, [record.name.as_str()], |row| row.get(0))
        .map_err(sql)?;
    if known > 0 {
        return Ok(());
    }
    record
        .interfaces
        .iter()
        .try_for_each(|interface| put_interface(db, &record.name, interface))
}

pub(super) fn networks(db: &Connection) -> Result<Vec<NetworkRecord>> {
    let mut query = db
        .prepare_cached("SELECT settings FROM networks ORDER BY number")
        .map_err(sql)?;
    let rows = query.query_map([], |row| row.get::<_, String>(0)).map_err(sql)?;
    let mut found: Vec<NetworkRecord> = rows
        .map(|row| {
            let text = row.map_err(sql)?;
            serde_json::from_str(&text).map_err(|e| corrupt(&format!("network ({e})"), &text))
        })
        .collect::<Result<_>>()?;
    if !found.iter().any(NetworkRecord::is_default) {
        found.splice(0..0, earlier(db)?);
    }
    Ok(found)
}

/// The default network as an earlier condo stored it.
fn earlier(db: &Connection) -> Result<Option<NetworkRecord>> {
    let text = "SELECT bridge, nft_table, subnet FROM network";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(String, String, String)> = db.query_row(text, [], read).optional().map_err(sql)?;
    let Some((bridge, table, subnet)) = found else {
        return Ok(None);
    };
    let subnet = subnet.parse().map_err(|_| corrupt("subnet", &subnet))?;
    Ok(Some(NetworkRecord {
        name: NetworkRecord::default_name(),
        number: 0,
        network: Network::new(&bridge, &table, subnet),
        reserved: Vec::new(),
        domain: None,
    }))
}

fn network(db: &Connection, name: &Name) -> Result<Option<NetworkRecord>> {
    Ok(networks(db)?.into_iter().find(|record| record.name == *name))
}

pub(super) fn put_network(db: &Connection, record: &NetworkRecord) -> Result<()> {
    let text = "INSERT OR REPLACE INTO networks (name, number, settings) VALUES (?1, ?2, ?3)";
    let settings = serde_json::to_string(record)?;
    db.execute(text, params![record.name.as_str(), record.number, settings])
        .map_err(sql)?;
    Ok(())
}

/// VPSs of an earlier condo have no rows, and are on the default network.
fn users(db: &Connection, record: &NetworkRecord) -> Result<Vec<Name>> {
    let text = "SELECT vps FROM interface WHERE network = ?1
                UNION SELECT name FROM vps WHERE ?2 AND NOT EXISTS (SELECT 1 FROM interface WHERE vps = name)
                ORDER BY 1";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let rows = query
        .query_map(params![record.name.as_str(), record.is_default()], |row| {
            Ok(rows::name(row, 0))
        })
        .map_err(sql)?;
    rows.map(|row| row.map_err(sql)?).collect()
}

/// Interfaces of one VPS, or of all, with whose each is.
pub(super) fn interfaces(db: &Connection, name: Option<&Name>) -> Result<Vec<(Name, Interface)>> {
    let text = "SELECT vps, number, network, address, address6, mac FROM interface
                WHERE ?1 IS NULL OR vps = ?1 ORDER BY vps, number";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let mut rows = query.query([name.map(Name::as_str)]).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        let interface = Interface {
            number: row.get(1).map_err(sql)?,
            network: rows::name(row, 2)?,
            address: rows::address(row, 3)?,
            address6: rows::parsed_if_any::<Ipv6Addr>(row, 4, "address")?,
            mac: rows::parsed_if_any(row, 5, "hardware address")?,
        };
        found.push((rows::name(row, 0)?, interface));
    }
    Ok(found)
}

pub(super) fn put_interface(db: &Connection, vps: &Name, interface: &Interface) -> Result<()> {
    let text = "INSERT INTO interface (vps, number, network, address, address6, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        vps.as_str(),
        interface.number,
        interface.network.as_str(),
        interface.address.to_string(),
        interface.address6.map(|address| address.to_string()),
        interface.mac.map(|mac| mac.to_string()),
    ];
    db.execute(text, values).map_err(sql)?;
    Ok(())
}

/// These two may talk to each other.
pub(super) fn pair(db: &Connection, one: &Name, other: &Name) -> Result<()> {
    let (a, b) = (one.min(other), one.max(other));
    db.execute(
        "INSERT OR IGNORE INTO pair (a, b) VALUES (?1, ?2)",
        [a.as_str(), b.as_str()],
    )
    .map_err(sql)?;
    Ok(())
}
