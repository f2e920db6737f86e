//! What has gone through the interfaces of VPSs, by month. Counters of interfaces begin anew with each start: what they had when they
//! were read last is kept, so that what is added is what came since.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::rows::sql;
use super::{Store, begin, look};
use crate::error::{During, Result};
use crate::files;
use crate::net::meter::{Count, Reading};
use crate::vps::record::folders::Folders;
use crate::vps::record::name::Name;
use crate::vps::record::traffic::{Amount, Flow, Traffic};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS traffic (
    name        TEXT NOT NULL REFERENCES vps ON DELETE CASCADE ON UPDATE CASCADE,
    month       TEXT NOT NULL,
    in_bytes    INTEGER NOT NULL,
    in_packets  INTEGER NOT NULL,
    out_bytes   INTEGER NOT NULL,
    out_packets INTEGER NOT NULL,
    PRIMARY KEY (name, month)
) STRICT;
CREATE TABLE IF NOT EXISTS counter (
    name        TEXT NOT NULL REFERENCES vps ON DELETE CASCADE ON UPDATE CASCADE,
    link        TEXT NOT NULL,
    in_bytes    INTEGER NOT NULL,
    in_packets  INTEGER NOT NULL,
    out_bytes   INTEGER NOT NULL,
    out_packets INTEGER NOT NULL,
    PRIMARY KEY (name, link)
) STRICT;
";

impl Store {
    /// What VPSs have sent and received, with what their interfaces have counted since they were read last.
    ///
    /// # Errors
    /// Those of the database.
    pub fn traffic(&self, all: &[(Name, Vec<Reading>)]) -> Result<BTreeMap<Name, Traffic>> {
        self.with(|db| {
            // All in one: a transaction each takes longer than what is read in it.
            let _look = look(db)?;
            let month = month_of(db, NOW)?;
            let of = |(name, readings): &(Name, Vec<Reading>)| {
                let mut months = months(db, name)?;
                let since = since(db, name, readings)?;
                if !since.is_nothing() {
                    *months.entry(month.clone()).or_default() += since;
                }
                Ok((name.clone(), Traffic::of(months)))
            };
            all.iter().map(of).collect()
        })
    }

    /// Adds what interfaces have counted to what is kept. A VPS deleted meanwhile is none of our business.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_traffic(&self, name: &Name, readings: &[Reading]) -> Result<()> {
        self.with(|db| {
            let change = begin(db)?;
            add(&change, name, readings, NOW)?;
            remember(&change, name, readings)?;
            change.commit().map_err(sql)?;
            write_copy(&self.folders, db, name);
            Ok(())
        })
    }

    /// Takes it that these interfaces count from here on, and no others. What they have counted is kept already.
    ///
    /// # Errors
    /// Those of the database.
    pub fn count_from(&self, name: &Name, readings: &[Reading]) -> Result<()> {
        self.with(|db| {
            let change = begin(db)?;
            change
                .execute("DELETE FROM counter WHERE name = ?1", [name.as_str()])
                .map_err(sql)?;
            remember(&change, name, readings)?;
            change.commit().map_err(sql)?;
            write_copy(&self.folders, db, name);
            Ok(())
        })
    }
}

/// All that is kept of a VPS, as the copy beside its disk has it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    months: BTreeMap<String, Flow>,
    /// What its interfaces had when they were read last.
    counters: BTreeMap<String, Flow>,
}

/// Writes the copy. That a disk is full holds up nobody: the database has it.
fn write_copy(folders: &Folders, db: &Connection, name: &Name) {
    let write = || -> Result<()> {
        let kept = Kept {
            months: months(db, name)?,
            counters: counters(db, name)?,
        };
        files::write_atomic(&folders.traffic(name), &serde_json::to_vec(&kept)?, 0o600)
    };
    // One that was deleted meanwhile has no folder.
    if files::exists(&folders.vps(name))
        && let Err(e) = write()
    {
        log::debug!("the copy of the traffic of `{name}` is that of an earlier time: {e}");
    }
}

/// Puts the copy into a new database, if there is one.
pub(super) fn restore(db: &Connection, folders: &Folders, name: &Name) -> Result<()> {
    let path = folders.traffic(name);
    let text = match files::read(&path) {
        Err(e) if e.is_gone() => return Ok(()),
        other => other?,
    };
    let kept: Kept = serde_json::from_slice(&text).during(|| format!("read `{}`", path.display()))?;
    for (table, key, rows) in [
        ("traffic", "month", &kept.months),
        ("counter", "link", &kept.counters),
    ] {
        let text = format!(
            "INSERT OR REPLACE INTO {table} (name, {key}, in_bytes, in_packets, out_bytes, out_packets)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        );
        for (value, flow) in rows {
            let values = params![
                name.as_str(),
                value,
                signed(flow.incoming.bytes),
                signed(flow.incoming.packets),
                signed(flow.outgoing.bytes),
                signed(flow.outgoing.packets)
            ];
            db.execute(&text, values).map_err(sql)?;
        }
    }
    Ok(())
}

/// Adds them to the month that this time is in.
fn add(db: &Connection, name: &Name, readings: &[Reading], time: &str) -> Result<()> {
    let flow = since(db, name, readings)?;
    if flow.is_nothing() {
        return Ok(());
    }
    let text = "INSERT INTO traffic (name, month, in_bytes, in_packets, out_bytes, out_packets)
                SELECT name, ?2, ?3, ?4, ?5, ?6 FROM vps WHERE name = ?1
                ON CONFLICT (name, month) DO UPDATE SET in_bytes = in_bytes + ?3, in_packets = in_packets + ?4,
                out_bytes = out_bytes + ?5, out_packets = out_packets + ?6";
    let values = params![
        name.as_str(),
        month_of(db, time)?,
        signed(flow.incoming.bytes),
        signed(flow.incoming.packets),
        signed(flow.outgoing.bytes),
        signed(flow.outgoing.packets)
    ];
    db.execute(text, values).map_err(sql)?;
    Ok(())
}

fn remember(db: &Connection, name: &Name, readings: &[Reading]) -> Result<()> {
    let text = "INSERT OR REPLACE INTO counter (name, link, in_bytes, in_packets, out_bytes, out_packets)
                SELECT name, ?2, ?3, ?4, ?5, ?6 FROM vps WHERE name = ?1";
    for reading in readings {
        let values = params![
            name.as_str(),
            reading.link,
            signed(reading.incoming.bytes),
            signed(reading.incoming.packets),
            signed(reading.outgoing.bytes),
            signed(reading.outgoing.packets)
        ];
        db.execute(text, values).map_err(sql)?;
    }
    Ok(())
}

fn months(db: &Connection, name: &Name) -> Result<BTreeMap<String, Flow>> {
    let text = "SELECT in_bytes, in_packets, out_bytes, out_packets, month FROM traffic WHERE name = ?1";
    flows(db, name, text)
}

fn counters(db: &Connection, name: &Name) -> Result<BTreeMap<String, Flow>> {
    let text = "SELECT in_bytes, in_packets, out_bytes, out_packets, link FROM counter WHERE name = ?1";
    flows(db, name, text)
}

/// Flows by what the fifth column calls them.
fn flows(db: &Connection, name: &Name, text: &str) -> Result<BTreeMap<String, Flow>> {
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let rows = query
        .query_map([name.as_str()], |row| Ok((row.get(4)?, flow(row)?)))
        .map_err(sql)?;
    rows.map(|row| row.map_err(sql)).collect()
}

/// What came since the interfaces were read last. One that counts less than it did is another.
fn since(db: &Connection, name: &Name, readings: &[Reading]) -> Result<Flow> {
    let text =
        "SELECT in_bytes, in_packets, out_bytes, out_packets FROM counter WHERE name = ?1 AND link = ?2";
    let mut query = db.prepare_cached(text).map_err(sql)?;
    let mut sum = Flow::default();
    for reading in readings {
        let before = query
            .query_row(params![name.as_str(), reading.link], flow)
            .optional()
            .map_err(sql)?
            .unwrap_or_default();
        sum += Flow {
            incoming: more(reading.incoming, before.incoming),
            outgoing: more(reading.outgoing, before.outgoing),
        };
    }
    Ok(sum)
}

fn more(now: Count, before: Amount) -> Amount {
    let part = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
    Amount {
        bytes: part(now.bytes, before.bytes),
        packets: part(now.packets, before.packets),
    }
}

fn flow(row: &rusqlite::Row<'_>) -> rusqlite::Result<Flow> {
    let number = |at: usize| {
        row.get::<_, i64>(at)
            .map(|n| u64::try_from(n).unwrap_or_default())
    };
    Ok(Flow {
        incoming: Amount {
            bytes: number(0)?,
            packets: number(1)?,
        },
        outgoing: Amount {
            bytes: number(2)?,
            packets: number(3)?,
        },
    })
}

/// What the database calls the time that it is.
const NOW: &str = "now";

/// The month that a time is in, in UTC.
fn month_of(db: &Connection, time: &str) -> Result<String> {
    db.query_row("SELECT strftime('%Y-%m', ?1)", [time], |row| row.get(0))
        .map_err(sql)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, name, new, picks};
    use super::*;

    fn counted(link: &str, bytes: u64) -> [Reading; 1] {
        let count = |bytes| Count { bytes, packets: 1 };
        [Reading {
            link: link.into(),
            incoming: count(bytes),
            outgoing: count(bytes / 10),
        }]
    }

    #[test]
    fn a_month_begins_anew_and_the_last_one_stays() {
        let scratch = Scratch::new("months");
        let (store, web) = (scratch.store(), name("web"));
        store.insert(&new("web"), &picks()).unwrap();
        let read = |link: &str, bytes: u64, time: &str| {
            store
                .with(|db| {
                    add(db, &web, &counted(link, bytes), time)?;
                    remember(db, &web, &counted(link, bytes))
                })
                .unwrap();
        };
        read("vc1", 1000, "2026-11-30 23:59:59");
        read("vc1", 1500, "2026-12-01 00:00:00");
        // Nothing came: no month of it.
        read("vc1", 1500, "2027-01-31 12:00:00");
        // The interface of the next start counts from nothing.
        read("vc1", 70, "2027-02-28 23:59:59");
        let of = [(web.clone(), counted("vc1", 70).to_vec())];
        let traffic = store.traffic(&of).unwrap().remove(&web).unwrap();
        let bytes: Vec<_> = traffic
            .months
            .iter()
            .map(|(month, flow)| (month.as_str(), flow.incoming.bytes, flow.outgoing.bytes))
            .collect();
        assert_eq!(
            bytes,
            [("2026-11", 1000, 100), ("2026-12", 500, 50), ("2027-02", 70, 7)]
        );
        assert_eq!(traffic.total.incoming.bytes, 1570);
    }
}
