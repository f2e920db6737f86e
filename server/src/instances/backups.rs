//! `/1.0/instances/NAME/backups`: archives of an instance, beside it until they are deleted, and instances of such.

use std::fs::File;
use std::path::PathBuf;

use axum::extract::Path;
use condo::error::Result;
use condo::vps::copy::export::UNFINISHED;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::power::act;
use super::show::exists;
use crate::errand::{Streams, Task};
use crate::events::{NEVER, seconds};
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name};
use crate::server::Server;
use crate::spool;

/// The longest name.
const LONGEST: usize = 63;
/// The most bytes of an archive that is sent.
const MOST: u64 = 1 << 42;

/// The body of a new one, and of a change of its name. How it is packed is condo's choice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    expires_at: Option<String>,
    optimized_storage: bool,
}

/// Where they are.
fn dir(condo: &Condo, vps: &Name) -> PathBuf {
    condo.folders.vps(vps).join("backups")
}

/// The file of one.
pub(crate) fn place(condo: &Condo, vps: &Name, backup: &str) -> PathBuf {
    dir(condo, vps).join(backup)
}

fn check(backup: &str) -> std::result::Result<(), Problem> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !backup.is_empty() && backup.len() <= LONGEST && backup.bytes().all(fine) && !backup.starts_with('.') {
        return Ok(());
    }
    Err(Problem::value(
        "name",
        backup,
        "is not a name: letters, digits, `-`, `_` and `.`, at most 63",
    ))
}

fn all(condo: &Condo, vps: &Name) -> Result<Vec<(String, i64)>> {
    let entries = match std::fs::read_dir(dir(condo, vps)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is being written ends otherwise.
        if check(&name).is_ok() && !name.ends_with(UNFINISHED) {
            let made = entry.metadata()?.modified().ok();
            let since = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
            found.push((
                name,
                since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0)),
            ));
        }
    }
    found.sort();
    Ok(found)
}

fn object((name, made): &(String, i64)) -> Value {
    json!({
        "name": name, "created_at": seconds(Some(*made)), "expires_at": NEVER,
        "instance_only": true, "container_only": true, "optimized_storage": false,
    })
}

async fn known(server: &Server, vps: &Name) -> std::result::Result<Vec<(String, i64)>, Problem> {
    let vps = vps.clone();
    server.read(move |condo| all(condo, &vps)).await
}

async fn one(server: &Server, vps: &Name, backup: &str) -> std::result::Result<(String, i64), Problem> {
    let found = known(server, vps)
        .await?
        .into_iter()
        .find(|(name, _)| name == backup);
    found.ok_or_else(|| Problem::missing("Backup", backup))
}

fn refuse_taken(known: &[(String, i64)], backup: &str) -> std::result::Result<(), Problem> {
    if known.iter().all(|(other, _)| other != backup) {
        return Ok(());
    }
    Err(Problem::conflict(format!("Backup `{backup}` already exists")))
}

/// `GET /1.0/instances/NAME/backups`.
pub(crate) async fn list(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    let all = known(&server, &vps).await?;
    let shown = all.iter().map(|backup| match params.recursion() {
        0 => json!(format!("/1.0/instances/{vps}/backups/{}", backup.0)),
        _ => object(backup),
    });
    Ok(Reply::Sync(shown.collect()))
}

/// `GET /1.0/instances/NAME/backups/BACKUP`.
pub(crate) async fn get(server: Server, Path((text, backup)): Path<(String, String)>) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    Ok(Reply::Sync(object(&one(&server, &vps, &backup).await?)))
}

/// `POST /1.0/instances/NAME/backups`.
pub(crate) async fn create(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    if wanted.optimized_storage {
        return Err(Problem::value(
            "optimized_storage",
            "true",
            "is not supported: archives are the same everywhere",
        ));
    }
    let known = known(&server, &vps).await?;
    let backup = match wanted.name.as_str() {
        "" => (0..)
            .map(|n| format!("backup{n}"))
            .find(|name| known.iter().all(|(other, _)| other != name))
            .unwrap_or_default(),
        name => name.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    check(&backup)?;
    refuse_taken(&known, &backup)?;
    // As clients expect it, who take the name off its end.
    let address = format!("/1.0/backups/{backup}");
    let plan = Plan::of_instance("Backing up instance", params.project(), &text).and("backups", &address);
    act(
        &server,
        plan,
        Task::Backup(vps.clone(), backup),
        "instance-backup-created",
        &vps,
    )
}

/// `POST /1.0/instances/NAME/backups/BACKUP`: another name.
pub(crate) async fn rename(
    server: Server,
    Path((text, backup)): Path<(String, String)>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    one(&server, &vps, &backup).await?;
    check(&wanted.name)?;
    refuse_taken(&known(&server, &vps).await?, &wanted.name)?;
    let plan = Plan::of_instance("Renaming instance backup", params.project(), &text);
    let worker = server.clone();
    let work = async move {
        let renamed = worker.read(move |condo| {
            Ok(std::fs::rename(
                place(condo, &vps, &backup),
                place(condo, &vps, &wanted.name),
            )?)
        });
        renamed.await
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}

/// `DELETE /1.0/instances/NAME/backups/BACKUP`.
pub(crate) async fn delete(
    server: Server,
    Path((text, backup)): Path<(String, String)>,
    params: Params,
) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    one(&server, &vps, &backup).await?;
    let plan = Plan::of_instance("Deleting instance backup", params.project(), &text);
    let worker = server.clone();
    let work = async move {
        worker
            .read(move |condo| Ok(std::fs::remove_file(place(condo, &vps, &backup))?))
            .await
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}

/// `GET /1.0/instances/NAME/backups/BACKUP/export`.
pub(crate) async fn export(server: Server, Path((text, backup)): Path<(String, String)>) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    one(&server, &vps, &backup).await?;
    let file = server
        .read(move |condo| Ok(File::open(place(condo, &vps, &backup))?))
        .await?;
    let (body, size) = spool::give(file)?;
    let headers = vec![("content-length", size.to_string())];
    Ok(Reply::Raw("application/octet-stream", headers, body))
}

/// `POST /1.0/instances` with an archive: an instance as it was.
pub(super) async fn import(
    server: &Server,
    params: &Params,
    called: Option<Name>,
    archive: axum::body::Body,
) -> Answer {
    let archive = spool::take(server, archive.into_data_stream(), MOST).await?;
    let copy = archive.try_clone().map_err(condo::error::Error::from)?;
    let name = match called {
        Some(name) => name,
        None => tokio::task::spawn_blocking(move || named(copy))
            .await
            .map_err(|e| Problem::internal(e.to_string()))??,
    };
    let archive = spool::rewound(archive)?;
    let plan = Plan::of_instance("Restoring backup", params.project(), name.as_str());
    let worker = server.clone();
    let work = async move {
        worker
            .run_with(Task::Import(name), Streams::from(archive))
            .await
            .map(drop)
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}

/// What an archive says that it holds.
fn named(archive: File) -> Result<Name> {
    Ok(condo::vps::copy::archive::Reader::open(archive)?
        .header()
        .name
        .clone())
}
