//! The network of the instance, and which VPSs may talk to each other.

use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, NetworkSettings, sql};
use super::{Store, copies};
use crate::error::{Error, Result};
use crate::vps::record::name::Name;

impl Store {
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

pub(super) fn network(db: &Connection) -> Result<Option<NetworkSettings>> {
    let text = "SELECT bridge, nft_table, subnet FROM network";
    db.query_row(text, [], NetworkSettings::read)
        .optional()
        .map_err(sql)
}

pub(super) fn set_network(db: &Connection, settings: &NetworkSettings) -> Result<()> {
    let text = "INSERT OR IGNORE INTO network (one, bridge, nft_table, subnet) VALUES (1, ?1, ?2, ?3)";
    let values = params![settings.bridge, settings.table, settings.subnet];
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
