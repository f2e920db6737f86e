//! Instances shown: lists, one, its state.

use axum::extract::Path;
use condo::vps::record::name::Name;
use serde_json::{Value, json};

use super::filter::Filter;
use super::snapshots;
use super::view::{self, Seen};
use crate::profiles::Profiles;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Params, name};
use crate::server::Server;

/// `GET /1.0/instances`.
pub(crate) async fn list(server: Server, params: Params) -> Answer {
    let filter = params.get("filter").map(Filter::read).transpose()?;
    if !["", "container"].contains(&params.get("instance-type").unwrap_or_default()) {
        return Ok(Reply::Sync(json!([])));
    }
    let depth = params.recursion();
    let found = server
        .read(move |condo| {
            let profiles = Profiles::load(condo)?;
            let records = condo.members()?;
            let mut views = condo.list()?.into_iter().peekable();
            let mut found = Vec::new();
            // Both by name: what is created or deleted in between is in one of them only.
            for record in records {
                while views.next_if(|view| view.name < record.name).is_some() {}
                let Some(view) = views.next_if(|view| view.name == record.name) else {
                    continue;
                };
                let seen = Seen::look(condo, record, view, depth >= 2)?;
                let mut object = view::instance(&seen, &profiles);
                if depth >= 2 {
                    complete(&mut object, &seen);
                }
                found.push(object);
            }
            Ok(found)
        })
        .await?;
    let shown = found
        .into_iter()
        .filter(|object| filter.as_ref().is_none_or(|filter| filter.fits(object)));
    Ok(Reply::Sync(if depth == 0 {
        shown.map(|object| json!(view::place(&object))).collect()
    } else {
        shown.collect()
    }))
}

/// Adds what only a full object has.
fn complete(object: &mut Value, seen: &Seen) {
    object["state"] = view::state(seen);
    object["snapshots"] = seen.snapshots.iter().map(snapshots::object).collect();
    object["backups"] = Value::Null;
}

/// A VPS's name, once it is known to be there.
pub(super) async fn exists(server: &Server, name: Name) -> Result<Name, Problem> {
    server
        .read(move |condo| condo.store.get(&name))
        .await
        .map(|record| record.name)
}

/// One VPS with its figures, and the profiles.
pub(super) async fn seen(server: &Server, name: &Name) -> Result<(Seen, Profiles), Problem> {
    let name = name.clone();
    let seen = server.read(move |condo| {
        let record = condo.store.get(&name)?;
        let view = condo.show(&name)?;
        Ok((Seen::look(condo, record, view, true)?, Profiles::load(condo)?))
    });
    seen.await
}

/// `GET /1.0/instances/NAME`.
pub(crate) async fn get(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let (seen, profiles) = seen(&server, &name(&text)?).await?;
    let mut object = view::instance(&seen, &profiles);
    let mark = view::changeable(&object);
    if params.recursion() >= 1 {
        complete(&mut object, &seen);
    }
    Ok(Reply::marked(&object, &mark))
}

/// `GET /1.0/instances/NAME/state`.
pub(crate) async fn state(server: Server, Path(text): Path<String>) -> Answer {
    let (seen, _) = seen(&server, &name(&text)?).await?;
    Ok(Reply::Sync(view::state(&seen)))
}
