//! Copies of records: a file beside each VPS's disk. They are read when the database is lost or cannot be read, and else only
//! written.

use rusqlite::Connection;

use super::super::folders::Folders;
use super::super::name::Name;
use super::super::network::NetworkRecord;
use super::super::project::Project;
use super::add;
use super::doors;
use super::network::{networks, pair, put_network};
use super::projects;
use super::rows::Record;
use super::traffic;
use crate::error::{During, Result};
use crate::files;

/// Writes the copy of a record. It has no last exit: that would be written while a disk is full.
pub(super) fn write(folders: &Folders, record: &Record) -> Result<()> {
    let copy = Record {
        last_exit: None,
        ..record.clone()
    };
    files::create_dir_all(&folders.vps(&record.name), 0o700)?;
    files::write_atomic(
        &folders.record(&record.name),
        &serde_json::to_vec_pretty(&copy)?,
        0o600,
    )
}

/// Takes the copy of a record away that did not come about, what its system was to be given, and its folder if there is nothing
/// else in it.
pub(super) fn remove(folders: &Folders, name: &Name) {
    let _ = files::remove_file(&folders.seat(name).first_boot());
    let _ = files::remove_file(&folders.record(name));
    let _ = std::fs::remove_dir(folders.vps(name));
}

/// Writes the copy of the networks, once there are any.
pub(super) fn write_networks(folders: &Folders, db: &Connection) -> Result<()> {
    let all = networks(db)?;
    if all.is_empty() {
        return files::remove_file(&folders.network());
    }
    files::write_atomic(&folders.network(), &serde_json::to_vec_pretty(&all)?, 0o600)
}

/// Writes the copy of the projects, once there are any.
pub(super) fn write_projects(folders: &Folders, db: &Connection) -> Result<()> {
    let all = projects::every(db)?;
    if all.is_empty() {
        return files::remove_file(&folders.projects());
    }
    files::write_atomic(&folders.projects(), &serde_json::to_vec_pretty(&all)?, 0o600)
}

fn read_projects(folders: &Folders) -> Result<Vec<Project>> {
    let text = files::read(&folders.projects())?;
    serde_json::from_slice(&text).during(|| format!("read `{}`", folders.projects().display()))
}

/// The networks of a copy; an earlier condo had one, and no list.
fn read_networks(text: &[u8]) -> Result<Vec<NetworkRecord>> {
    match serde_json::from_slice(text) {
        Ok(all) => Ok(all),
        Err(e) => Ok(vec![serde_json::from_slice(text).map_err(|_| e)?]),
    }
}

/// Puts all copies into an empty database. How many records there were.
pub(super) fn restore(db: &Connection, folders: &Folders) -> Result<usize> {
    if let Ok(text) = files::read(&folders.network()) {
        match read_networks(&text).during(|| format!("read `{}`", folders.network().display())) {
            Ok(all) => all.iter().try_for_each(|network| put_network(db, network))?,
            Err(e) => log::warn!("the networks are not restored: {e}"),
        }
    }
    match read_projects(folders) {
        Ok(all) => all.iter().try_for_each(|project| projects::put(db, project))?,
        Err(e) if e.is_gone() => {}
        Err(e) => log::warn!("the projects are not restored: {e}"),
    }
    let mut restored = Vec::new();
    for name in names(folders)? {
        match read(folders, &name).and_then(|record| add(db, &record).map(|()| record)) {
            Ok(record) => restored.push(record),
            Err(e) if e.is_gone() => {}
            Err(e) => log::warn!("the record of `{name}` is not restored: {e}"),
        }
    }
    for record in &restored {
        if let Err(e) = doors::take(db, record) {
            log::warn!("published ports of `{}` are not restored: {e}", record.name);
        }
        if let Err(e) = traffic::restore(db, folders, &record.name) {
            log::warn!("the traffic of `{}` is not restored: {e}", record.name);
        }
        for peer in &record.config.allow {
            // One that was deleted since has no record.
            if restored.iter().any(|r| r.name == *peer) {
                pair(db, &record.name, peer)?;
            }
        }
    }
    Ok(restored.len())
}

pub(super) fn read(folders: &Folders, name: &Name) -> Result<Record> {
    let text = files::read(&folders.record(name))?;
    let record =
        serde_json::from_slice(&text).during(|| format!("read `{}`", folders.record(name).display()))?;
    // In a folder that a killed rename has moved, the copy has the old name.
    Ok(Record {
        name: name.clone(),
        ..record
    })
}

/// The VPSs that have a folder.
pub(super) fn names(folders: &Folders) -> Result<Vec<Name>> {
    let entries = match std::fs::read_dir(folders.all()) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("read `{}`", folders.all().display()))?,
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.flatten().filter_map(name).collect())
}
