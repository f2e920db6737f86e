//! Ports of the host that VPSs have: each leads to one.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{Record, sql};
use super::{Store, begin, copies, get, missing};
use crate::error::{Error, Result};
use crate::net::publication::{Door, Publication};
use crate::vps::record::name::Name;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS door (
    name      TEXT NOT NULL REFERENCES vps ON DELETE CASCADE ON UPDATE CASCADE,
    transport TEXT NOT NULL,
    host      TEXT NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    PRIMARY KEY (transport, first, host)
) STRICT;
CREATE INDEX IF NOT EXISTS door_name ON door (name);
";

impl Store {
    /// Gives a VPS ports of the host, all of them or none; returns the record as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Invalid`] for a port that another VPS has, or this one for another purpose.
    pub fn publish(&self, name: &Name, publications: &[Publication]) -> Result<Record> {
        self.change_doors(name, &|record| record.config.publish.extend(publications))
    }

    /// Takes ports of the host back from a VPS.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn unpublish(&self, name: &Name, publications: &[Publication]) -> Result<Record> {
        self.change_doors(name, &|record| {
            record.config.publish.retain(|kept| !publications.contains(kept));
        })
    }

    fn change_doors(&self, name: &Name, change: &dyn Fn(&mut Record)) -> Result<Record> {
        self.with(|db| {
            let claim = begin(db)?;
            let mut record = get(&claim, name)?.ok_or_else(|| missing(name))?;
            change(&mut record);
            claim
                .execute("DELETE FROM door WHERE name = ?1", [name.as_str()])
                .map_err(sql)?;
            take(&claim, &record)?;
            claim
                .execute(
                    "UPDATE vps SET config = ?2 WHERE name = ?1",
                    params![name.as_str(), serde_json::to_string(&record.config)?],
                )
                .map_err(sql)?;
            copies::write(&self.folders, &record)?;
            claim.commit().map_err(sql)?;
            Ok(record)
        })
    }
}

/// Gives a VPS the ports that its configuration names.
pub(super) fn take(claim: &Connection, record: &Record) -> Result<()> {
    for publication in &record.config.publish {
        let door = &publication.door;
        if let Some(owner) = owner(claim, door)? {
            let problem = match owner == record.name.as_str() {
                true => "is published by this VPS already, to another port".to_owned(),
                false => format!("is published by `{owner}` already; choose another port of the host"),
            };
            return Err(Error::invalid("--publish", door, problem));
        }
        let text = "INSERT INTO door (name, transport, host, first, last) VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![
            record.name.as_str(),
            door.transport.as_str(),
            host(door),
            door.first,
            door.last
        ];
        claim.execute(text, values).map_err(sql)?;
    }
    Ok(())
}

/// Who has a port that this door has as well.
fn owner(db: &Connection, door: &Door) -> Result<Option<String>> {
    let text = "SELECT name FROM door WHERE transport = ?1 AND first <= ?3 AND last >= ?2
                AND (host = '' OR ?4 = '' OR host = ?4) LIMIT 1";
    let values = params![door.transport.as_str(), door.first, door.last, host(door)];
    db.query_row(text, values, |row| row.get(0))
        .optional()
        .map_err(sql)
}

/// All addresses are the empty one.
fn host(door: &Door) -> String {
    door.host.map(|host| host.to_string()).unwrap_or_default()
}
