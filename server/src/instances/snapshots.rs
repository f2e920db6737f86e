//! `/1.0/instances/NAME/snapshots`.

use axum::extract::Path;
use condo::vps::record::name::Name;
use condo::vps::record::snapshots::{Snapshot, SnapshotName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::power::act;
use super::show::exists;
use crate::errand::Task;
use crate::events::{NEVER, seconds};
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name};
use crate::server::Server;

/// The body of `POST`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: Option<String>,
    stateful: bool,
    expires_at: Option<String>,
}

/// As clients see one.
pub(crate) fn object(snapshot: &Snapshot) -> Value {
    let labels = &snapshot.config.labels;
    json!({
        "name": snapshot.name, "created_at": seconds(Some(snapshot.created)), "expires_at": NEVER,
        "last_used_at": NEVER, "stateful": false, "ephemeral": false, "size": snapshot.bytes,
        "architecture": super::view::machine(), "profiles": labels.profiles,
        "config": labels.keys, "devices": labels.devices,
        "expanded_config": labels.keys, "expanded_devices": labels.devices,
    })
}

/// The name of a snapshot of this instance, as clients write it: alone, or behind the instance's.
pub(super) async fn of(server: &Server, vps: &Name, text: &str) -> Result<SnapshotName, Problem> {
    let text = text.strip_prefix(&format!("{vps}/")).unwrap_or(text);
    let name: SnapshotName = text.parse().map_err(|_| Problem::missing("Snapshot", text))?;
    let (vps, asked) = (vps.clone(), name.clone());
    server.read(move |condo| condo.snapshot(&vps, &asked)).await?;
    Ok(name)
}

async fn all(server: &Server, vps: &Name) -> Result<Vec<Snapshot>, Problem> {
    let vps = vps.clone();
    server.read(move |condo| condo.snapshots(&vps)).await
}

/// `GET /1.0/instances/NAME/snapshots`.
pub(crate) async fn list(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    let all = all(&server, &vps).await?;
    Ok(Reply::Sync(if params.recursion() > 0 {
        all.iter().map(object).collect()
    } else {
        let names = all.iter().map(|snapshot| &snapshot.name);
        names
            .map(|name| json!(format!("/1.0/instances/{vps}/snapshots/{name}")))
            .collect()
    }))
}

/// `GET /1.0/instances/NAME/snapshots/SNAPSHOT`.
pub(crate) async fn get(server: Server, Path((text, snapshot)): Path<(String, String)>) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    let wanted = of(&server, &vps, &snapshot).await?;
    let snapshot = server.read(move |condo| condo.snapshot(&vps, &wanted)).await?;
    let object = object(&snapshot);
    Ok(Reply::marked(&object, &object))
}

/// `POST /1.0/instances/NAME/snapshots`.
pub(crate) async fn create(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    if wanted.stateful {
        return Err(Problem::value(
            "stateful",
            "true",
            "is not supported: a running VPS is not saved",
        ));
    }
    if let Some(at) = wanted
        .expires_at
        .as_deref()
        .filter(|at| !at.is_empty() && *at != NEVER)
    {
        return Err(Problem::value(
            "expires_at",
            at,
            "is not supported: snapshots stay until they are deleted",
        ));
    }
    let snapshot: SnapshotName = match wanted.name.as_deref() {
        None | Some("") => next(&all(&server, &vps).await?).parse()?,
        Some(name) => name.parse()?,
    };
    let address = format!("/1.0/instances/{vps}/snapshots/{snapshot}");
    let plan = Plan::of_instance("Snapshotting instance", params.project(), &text)
        .and("instances_snapshots", &address);
    act(
        &server,
        plan,
        Task::Snapshot(vps.clone(), snapshot),
        "instance-snapshot-created",
        &vps,
    )
}

/// The first of `snap0`, `snap1` … that is above those there are.
fn next(all: &[Snapshot]) -> String {
    let number = |snapshot: &Snapshot| {
        snapshot
            .name
            .to_string()
            .strip_prefix("snap")?
            .parse::<u64>()
            .ok()
    };
    let next = all
        .iter()
        .filter_map(number)
        .max()
        .map_or(0, |highest| highest.saturating_add(1));
    format!("snap{next}")
}

/// `DELETE /1.0/instances/NAME/snapshots/SNAPSHOT`.
pub(crate) async fn delete(
    server: Server,
    Path((text, snapshot)): Path<(String, String)>,
    params: Params,
) -> Answer {
    let vps = exists(&server, name(&text)?).await?;
    let snapshot = of(&server, &vps, &snapshot).await?;
    let plan = Plan::of_instance("Deleting snapshot", params.project(), &text);
    act(
        &server,
        plan,
        Task::DeleteSnapshot(vps.clone(), snapshot),
        "instance-snapshot-deleted",
        &vps,
    )
}
