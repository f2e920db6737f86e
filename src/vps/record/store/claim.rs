//! What a new VPS is given, chosen inside the transaction that records it.

use std::fmt::Display;
use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, NewVps, Record, sql};
use super::{PickAddress, Picks, UIDS, exists, get, now};
use crate::error::{During, Error, Result};
use crate::files;
use crate::net::ipam::Taken;
use crate::vps::record::attachment::{Attachment, Interface};
use crate::vps::record::ids::{MOST_IDS, NESTING_RANGES};
use crate::vps::record::name::Name;

/// The highest number of a VPS: five digits fit into the name of its interface.
pub(super) const HIGHEST_ID: u32 = 99_999;

/// The record of a new VPS, with all that is its own.
pub(super) fn claimed(claim: &Connection, new: &NewVps, picks: &Picks<'_>) -> Result<Record> {
    if get(claim, &new.name)?.is_some() {
        return Err(exists("VPS", &new.name));
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    for (number, attachment) in (0..).zip(new.attachments()) {
        let next = interface(claim, (number, &interfaces), &attachment, picks.address)?;
        interfaces.push(next);
    }
    let id = free_id(claim)?;
    Ok(Record {
        name: new.name.clone(),
        id,
        address: interfaces
            .first()
            .map_or(Ipv4Addr::UNSPECIFIED, |first| first.address),
        interfaces,
        uuid: random_uuid()?,
        config: new.config.clone(),
        created: now(),
        last_exit: None,
        uid_base: (picks.uids)(id, &|base| has_range(claim, base))?,
    })
}

/// Whether a VPS has the range of user ids that begins here, among others or alone; also when that cannot be found out.
pub(super) fn has_range(db: &Connection, base: u32) -> bool {
    // Of all that begin before, by their index those alone that could reach it.
    let text = "SELECT count(*) FROM vps WHERE uid_base <= ?1 AND uid_base > ?1 - ?4 AND ?1 < uid_base +
                coalesce(json_extract(config, '$.ids'), ?2 * CASE WHEN json_extract(config, '$.nesting') THEN ?3 ELSE 1 END)";
    db.query_row(text, [base, UIDS, NESTING_RANGES, MOST_IDS], |row| {
        row.get::<_, u32>(0)
    }) != Ok(0)
}

/// Claims the addresses of an interface, which has a number and comes beside others that are not recorded yet.
pub(super) fn interface(
    claim: &Connection,
    (number, others): (u8, &[Interface]),
    attachment: &Attachment,
    pick: PickAddress<'_>,
) -> Result<Interface> {
    let mut taken = taken(claim, &attachment.network)?;
    taken.by_others.extend(others.iter().map(|other| other.address));
    let address = match attachment.ip {
        Some(ip) => ip,
        None => pick(attachment, &taken)?,
    };
    if attachment.ip.is_none() {
        take_turn(claim, &attachment.network, address)?;
    }
    if taken.by_others.contains(&address) {
        let owner = owner(claim, "address", &address)?;
        return Err(exists("address", &address)).during(|| given_to(owner));
    }
    if let Some(ip) = attachment.ip6
        && let Some(owner) = owner(claim, "address6", &ip)?
    {
        return Err(exists("address", &ip)).during(|| given_to(Some(owner)));
    }
    if let Some(mac) = attachment.mac
        && let Some(owner) = owner(claim, "mac", &mac)?
    {
        return Err(exists("hardware address", &mac)).during(|| given_to(Some(owner)));
    }
    Ok(Interface {
        number,
        network: attachment.network.clone(),
        address,
        address6: attachment.ip6,
        mac: attachment.mac,
    })
}

/// Whose interface has this in the column.
fn owner(db: &Connection, column: &str, value: &dyn Display) -> Result<Option<String>> {
    let text = format!("SELECT vps FROM interface WHERE {column} = ?1");
    db.query_row(&text, [value.to_string()], |row| row.get(0))
        .optional()
        .map_err(sql)
}

/// What an operator can do who has asked for it; without an owner it is asked for twice.
fn given_to(owner: Option<String>) -> String {
    let owner = owner.map_or("another interface of this VPS".to_owned(), |name| {
        format!("`{name}`")
    });
    format!("{owner} has it; ask for another, or for none to be given the next that is free")
}

fn taken(db: &Connection, network: &Name) -> Result<Taken> {
    let text = "SELECT address FROM vps UNION SELECT address FROM interface";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let rows = query
        .query_map([], |row| Ok(rows::address(row, 0)))
        .map_err(sql)?;
    let text = "SELECT address FROM turns WHERE network = ?1";
    let last = db
        .query_row(text, [network.as_str()], |row| Ok(rows::address(row, 0)))
        .optional()
        .map_err(sql)?;
    Ok(Taken {
        by_others: rows.map(|row| row.map_err(sql)?).collect::<Result<_>>()?,
        last: last.transpose()?,
        ..Taken::default()
    })
}

fn take_turn(db: &Connection, network: &Name, address: Ipv4Addr) -> Result<()> {
    let text = "INSERT OR REPLACE INTO turns (network, address) VALUES (?1, ?2)";
    db.execute(text, params![network.as_str(), address.to_string()])
        .map_err(sql)?;
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
