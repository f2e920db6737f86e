//! `condo snapshot …` and `condo clone`.

use std::time::Duration;

use anyhow::{Context, Result};

use super::copies::{CreateArgs, SnapshotCommand};
use crate::cli::exit::Exit;
use crate::cli::output::{fields, moment, one_line, print, print_json, stamp, table};
use crate::cli::progress::Spinner;
use crate::cli::report::report;
use crate::storage::tree::{Change, ChangeKind};
use crate::vps::copy::snapshot::SnapshotOptions;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::size;
use crate::vps::record::snapshots::{Snapshot, SnapshotName};
use crate::vps::record::store::now;

/// How long a VPS may take to shut down before a snapshot is restored: what `stop` gives it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(condo: &Condo, command: SnapshotCommand) -> Result<Exit> {
    match command {
        SnapshotCommand::Create(args) => create(condo, &args),
        SnapshotCommand::List { name, json } => list(condo, &name, json),
        SnapshotCommand::Show { name, snapshot, json } => show(condo, &name, &snapshot, json),
        SnapshotCommand::Restore {
            name,
            snapshot,
            force,
        } => restore(condo, &name, &snapshot, force),
        SnapshotCommand::Delete { name, snapshots } => Ok(delete(condo, &name, &snapshots)),
        SnapshotCommand::Diff {
            name,
            snapshot,
            other,
            json,
        } => diff(condo, &name, &snapshot, other.as_ref(), json),
    }
}

fn create(condo: &Condo, args: &CreateArgs) -> Result<Exit> {
    let snapshot = match &args.snapshot {
        Some(name) => name.clone(),
        None => stamp(now()).parse()?,
    };
    let wanted = match &args.name {
        Some(name) => vec![(name.clone(), args.keep)],
        None if args.due => condo.snapshots_due(now())?,
        None => {
            let all = condo.list()?.into_iter();
            all.map(|vps| (vps.name, args.keep)).collect()
        }
    };
    let mut exit = Exit::Success;
    for (name, keep) in wanted {
        let options = SnapshotOptions { keep };
        let spinner = Spinner::start(format!("taking a snapshot of {name}"));
        let taken = condo.snapshot_create(&name, &snapshot, options);
        drop(spinner);
        match taken.with_context(|| format!("take a snapshot of `{name}`")) {
            Ok(taken) => print(&format!("{name}: snapshot {}", told(&taken)))?,
            Err(e) => exit = report(&e),
        }
    }
    Ok(exit)
}

/// A snapshot that was just taken.
fn told(snapshot: &Snapshot) -> String {
    let frozen = match snapshot.frozen_ms {
        Some(time) => format!(", frozen for {time:.1} ms"),
        None => String::new(),
    };
    format!(
        "{} taken, {} files and {} copied{frozen}",
        snapshot.name,
        snapshot.files,
        size::display(snapshot.bytes)
    )
}

fn list(condo: &Condo, name: &Name, json: bool) -> Result<Exit> {
    condo.show(name)?;
    let all = condo.snapshots(name)?;
    if json {
        print_json(&all)?;
        return Ok(Exit::Success);
    }
    let rows = all.iter().map(|snapshot| {
        [
            snapshot.name.to_string(),
            moment(snapshot.created),
            snapshot.files.to_string(),
            size::display(snapshot.bytes),
            frozen(snapshot),
            snapshot.config.image.clone(),
        ]
    });
    print(&table(
        ["SNAPSHOT", "CREATED", "FILES", "COPIED", "FROZEN", "IMAGE"],
        rows,
    ))?;
    Ok(Exit::Success)
}

fn frozen(snapshot: &Snapshot) -> String {
    snapshot
        .frozen_ms
        .map_or("-".to_owned(), |time| format!("{time:.1} ms"))
}

fn show(condo: &Condo, name: &Name, snapshot: &SnapshotName, json: bool) -> Result<Exit> {
    condo.show(name)?;
    let snapshot = condo.snapshot(name, snapshot)?;
    if json {
        print_json(&snapshot)?;
        return Ok(Exit::Success);
    }
    print(&fields(&[
        ("snapshot", snapshot.name.to_string()),
        ("of", name.to_string()),
        ("id", snapshot.id.clone()),
        ("created", moment(snapshot.created)),
        ("image", snapshot.config.image.clone()),
        ("files copied", snapshot.files.to_string()),
        ("bytes copied", size::display(snapshot.bytes)),
        ("frozen", frozen(&snapshot)),
        (
            "goes by itself",
            if snapshot.rotates { "yes" } else { "no" }.into(),
        ),
    ]))?;
    Ok(Exit::Success)
}

fn restore(condo: &Condo, name: &Name, snapshot: &SnapshotName, force: bool) -> Result<Exit> {
    let force = force.then_some(PATIENCE);
    condo
        .snapshot_restore(name, snapshot, force)
        .with_context(|| format!("restore `{name}`"))?;
    print(&format!("{name} is as it was at {snapshot}"))?;
    Ok(Exit::Success)
}

/// Each is tried, whatever became of the others.
fn delete(condo: &Condo, name: &Name, snapshots: &[SnapshotName]) -> Exit {
    let mut exit = Exit::Success;
    for snapshot in snapshots {
        let _spinner = Spinner::start(format!("removing {snapshot}"));
        if let Err(e) = condo
            .snapshot_delete(name, snapshot)
            .with_context(|| format!("remove `{snapshot}`"))
        {
            exit = report(&e);
        }
    }
    exit
}

fn diff(
    condo: &Condo,
    name: &Name,
    snapshot: &SnapshotName,
    other: Option<&SnapshotName>,
    json: bool,
) -> Result<Exit> {
    let mut all: Vec<Change> = Vec::new();
    condo.snapshot_diff(name, snapshot, other, &mut |change| {
        all.push(change);
        Ok(())
    })?;
    all.sort_by(|a, b| a.path.cmp(&b.path));
    if json {
        print_json(&all)?;
        return Ok(Exit::Success);
    }
    let lines: Vec<_> = all.iter().map(line).collect();
    if !lines.is_empty() {
        print(&lines.join("\n"))?;
    }
    Ok(Exit::Success)
}

/// As `docker diff` writes it, with the letters of the words.
fn line(change: &Change) -> String {
    let letter = match change.change {
        ChangeKind::Added => 'A',
        ChangeKind::Changed => 'C',
        ChangeKind::Removed => 'R',
    };
    format!("{letter} {}", one_line(&change.path))
}

/// `condo clone`.
pub(super) fn clone(condo: &Condo, name: &Name, new: &Name, snapshot: Option<&SnapshotName>) -> Result<Exit> {
    let spinner = Spinner::start(format!("cloning {name}"));
    let record = condo.clone_vps(name, new, snapshot);
    drop(spinner);
    let record = record.with_context(|| format!("clone `{name}`"))?;
    print(&format!("{new} created, address {}", record.address))?;
    Ok(Exit::Success)
}
