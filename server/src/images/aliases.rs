//! `/1.0/images/aliases`.

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::known::{self, Alias, Known};
use crate::errand::{ImageTask, Task};
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params};
use crate::server::Server;

/// The body of a new alias, and of a change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: String,
    description: Option<String>,
    target: String,
}

fn object(image: &Known, alias: &Alias) -> Value {
    json!({
        "name": alias.name, "description": alias.description, "target": image.fingerprint(), "type": "container",
    })
}

/// `GET /1.0/images/aliases`.
pub(crate) async fn list(State(server): State<Server>, params: Params) -> Answer {
    let all = server.read(known::all).await?;
    let aliases = all
        .iter()
        .flat_map(|image| image.aliases.iter().map(move |alias| (image, alias)));
    Ok(Reply::Sync(if params.recursion() > 0 {
        aliases.map(|(image, alias)| object(image, alias)).collect()
    } else {
        aliases
            .map(|(_, alias)| json!(format!("/1.0/images/aliases/{}", alias.name)))
            .collect()
    }))
}

async fn one(server: &Server, wanted: String) -> Result<(Known, Alias), Problem> {
    server.read(move |condo| Ok(known::named(condo, &wanted))).await?
}

/// `GET /1.0/images/aliases/ALIAS`.
pub(crate) async fn get(State(server): State<Server>, Path(wanted): Path<String>) -> Answer {
    let (image, alias) = one(&server, wanted).await?;
    let object = object(&image, &alias);
    Ok(Reply::marked(&object, &object))
}

/// `POST /1.0/images/aliases`.
pub(crate) async fn create(
    State(server): State<Server>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    known::check_alias(&wanted.name)?;
    let target = wanted.target.clone();
    let image = server
        .read(move |condo| Ok(known::find(condo, &target)))
        .await??;
    let alias = Alias {
        name: wanted.name,
        description: wanted.description.unwrap_or_default(),
    };
    let address = format!("/1.0/images/aliases/{}", alias.name);
    call(&server, image, alias).await?;
    server
        .events
        .lifecycle(params.project(), "image-alias-created", &address);
    Ok(Reply::Created(address))
}

/// Gives an image an alias that nobody has. The first one becomes its name, if it has none.
pub(super) async fn call(server: &Server, image: Known, alias: Alias) -> Result<(), Problem> {
    if one(server, alias.name.clone()).await.is_ok() {
        return Err(Problem::conflict(format!(
            "Alias `{}` already exists",
            alias.name
        )));
    }
    let is_name = condo::image::validate_name(&alias.name).is_ok();
    if !(is_name && image.is_nameless()) {
        return server.read(move |condo| image.call(condo, &alias)).await;
    }
    let (from, to) = (image.view.name.clone(), alias.name.clone());
    server.run(Task::Image(from, ImageTask::Rename(to))).await?;
    server
        .read(move |condo| {
            image.renamed(condo, &alias.name)?;
            let mut image = image;
            image.view.name.clone_from(&alias.name);
            image.call(condo, &alias)
        })
        .await
}

/// `PUT` and `PATCH /1.0/images/aliases/ALIAS`: other words, or another image.
pub(crate) async fn change(
    State(server): State<Server>,
    Path(text): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let (image, mut alias) = one(&server, text).await?;
    alias.description = wanted.description.unwrap_or(alias.description);
    if wanted.target.is_empty() || image.fingerprint().starts_with(&wanted.target) {
        server.read(move |condo| image.call(condo, &alias)).await?;
        return Ok(Reply::empty());
    }
    let new = server
        .read(move |condo| Ok(known::find(condo, &wanted.target)))
        .await??;
    release(&server, &image, &alias.name).await?;
    call(&server, new, alias).await?;
    Ok(Reply::empty())
}

/// `POST /1.0/images/aliases/ALIAS`: another name.
pub(crate) async fn rename(
    State(server): State<Server>,
    Path(text): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Answer {
    known::check_alias(&wanted.name)?;
    let (image, alias) = one(&server, text).await?;
    let new = Alias {
        name: wanted.name,
        ..alias.clone()
    };
    if one(&server, new.name.clone()).await.is_ok() {
        return Err(Problem::conflict(format!("Alias `{}` already exists", new.name)));
    }
    let address = format!("/1.0/images/aliases/{}", new.name);
    let fingerprint = image.fingerprint().to_owned();
    release(&server, &image, &alias.name).await?;
    let image = server
        .read(move |condo| Ok(known::find(condo, &fingerprint)))
        .await??;
    call(&server, image, new).await?;
    Ok(Reply::Created(address))
}

/// `DELETE /1.0/images/aliases/ALIAS`.
pub(crate) async fn delete(State(server): State<Server>, Path(text): Path<String>, params: Params) -> Answer {
    let (image, alias) = one(&server, text).await?;
    release(&server, &image, &alias.name).await?;
    let address = format!("/1.0/images/aliases/{}", alias.name);
    server
        .events
        .lifecycle(params.project(), "image-alias-deleted", &address);
    Ok(Reply::empty())
}

/// Takes an alias away. An image whose name it is gets one that is made up, if no VPS knows it by its name.
async fn release(server: &Server, image: &Known, alias: &str) -> Result<(), Problem> {
    let (image, alias) = (image.clone(), alias.to_owned());
    if alias != image.view.name {
        return server.read(move |condo| image.uncall(condo, &alias)).await;
    }
    let new = known::made_up()?;
    server
        .run(Task::Image(alias, ImageTask::Rename(new.clone())))
        .await?;
    server.read(move |condo| image.renamed(condo, &new)).await
}
