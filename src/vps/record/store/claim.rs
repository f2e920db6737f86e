//! What a new VPS is given, chosen inside the transaction that records it.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension};

use super::rows::{self, NewVps, Record, sql};
use super::{Picks, exists, get, now};
use crate::error::{Error, Result};
use crate::files;
use crate::net::ipam::Taken;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS turn (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    address TEXT NOT NULL
) STRICT;
";
/// The highest number of a VPS: five digits fit into the name of its interface.
pub(super) const HIGHEST_ID: u32 = 99_999;

/// The record of a new VPS, with all that is its own.
pub(super) fn claimed(claim: &Connection, new: &NewVps, picks: &Picks<'_>) -> Result<Record> {
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
pub(super) fn has_range(db: &Connection, base: u32) -> bool {
    let text = "SELECT count(*) FROM vps WHERE uid_base = ?1";
    db.query_row(text, [base], |row| row.get::<_, u32>(0)) != Ok(0)
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
pub(super) fn free_id(db: &Connection) -> Result<u32> {
    let text = "SELECT min(id) + 1 FROM (SELECT 0 AS id UNION ALL SELECT id FROM vps) AS used
                WHERE NOT EXISTS (SELECT 1 FROM vps WHERE vps.id = used.id + 1)";
    let id: u32 = db.query_row(text, [], |row| row.get(0)).map_err(sql)?;
    if id > HIGHEST_ID {
        let why = format!("there are {HIGHEST_ID} already; delete one");
        return Err(Error::unsupported("another VPS", why));
    }
    Ok(id)
}

pub(in crate::vps) fn random_uuid() -> Result<String> {
    let text = files::read_text(std::path::Path::new("/proc/sys/kernel/random/uuid"))?;
    Ok(text.trim().to_owned())
}
