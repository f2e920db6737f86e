//! `/1.0/images`: images.

use axum::extract::Path;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::events::{NEVER, seconds};
use crate::instances::Filter;
use crate::keys::Keys;
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, unchanged};
use crate::server::Server;
use crate::spool;

pub(crate) mod aliases;
mod known;
mod metadata;
mod upload;

pub(crate) use known::{Known, find, named};
pub(crate) use upload::create;

fn object(image: &Known) -> Value {
    let view = &image.view;
    let aliases = image.aliases.iter();
    let aliases: Vec<_> = aliases
        .map(|alias| json!({ "name": alias.name, "description": alias.description }))
        .collect();
    json!({
        "fingerprint": image.fingerprint(), "aliases": aliases,
        "architecture": view.architecture, "type": "container", "public": image.notes.public, "cached": false,
        "auto_update": false, "filename": format!("{}.tar", view.name), "size": view.size,
        "properties": image.properties(), "profiles": ["default"],
        "created_at": seconds(Some(view.created)), "uploaded_at": seconds(Some(view.created)),
        "expires_at": NEVER, "last_used_at": NEVER,
    })
}

/// What a change replaces.
fn changeable(object: &Value) -> Value {
    json!([object["properties"], object["public"], object["auto_update"]])
}

/// `GET /1.0/images`.
pub(crate) async fn list(server: Server, params: Params) -> Answer {
    let filter = params.get("filter").map(Filter::read).transpose()?;
    let all = server.read(known::all).await?;
    let shown = all.iter().map(object);
    let shown = shown.filter(|object| filter.as_ref().is_none_or(|filter| filter.fits(object)));
    Ok(Reply::Sync(if params.recursion() > 0 {
        shown.collect()
    } else {
        shown
            .map(|image| {
                json!(format!(
                    "/1.0/images/{}",
                    image["fingerprint"].as_str().unwrap_or_default()
                ))
            })
            .collect()
    }))
}

async fn one(server: &Server, wanted: String) -> Result<Known, Problem> {
    server.read(move |condo| Ok(find(condo, &wanted))).await?
}

/// `GET /1.0/images/FINGERPRINT`.
pub(crate) async fn get(server: Server, Path(wanted): Path<String>) -> Answer {
    let object = object(&one(&server, wanted).await?);
    Ok(Reply::marked(&object, &changeable(&object)))
}

/// `GET /1.0/images/FINGERPRINT/export`: an archive whose SHA-256 is the fingerprint.
pub(crate) async fn export(server: Server, Path(wanted): Path<String>) -> Answer {
    let image = one(&server, wanted).await?;
    let fingerprint = image.fingerprint().to_owned();
    let mut archive = spool::file(&server).await?;
    let archive = server
        .read(move |condo| {
            condo.image_export(&image.view.name, &mut archive)?;
            Ok(archive)
        })
        .await?;
    let (body, size) = spool::give(archive)?;
    let headers = vec![
        ("content-length", size.to_string()),
        (
            "content-disposition",
            format!("attachment;filename={fingerprint}.tar"),
        ),
    ];
    Ok(Reply::Raw("application/octet-stream", headers, body))
}

/// A change: all of what can change, or a part of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    properties: Option<Keys>,
    public: Option<bool>,
    auto_update: bool,
}

/// `PUT /1.0/images/FINGERPRINT`.
pub(crate) async fn put(
    server: Server,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let wanted = Wanted {
        properties: Some(wanted.properties.unwrap_or_default()),
        public: Some(wanted.public.unwrap_or_default()),
        ..wanted
    };
    change(&server, fingerprint, &headers, wanted, false).await
}

/// `PATCH /1.0/images/FINGERPRINT`.
pub(crate) async fn patch(
    server: Server,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    Body(wanted): Body<Wanted>,
) -> Answer {
    change(&server, fingerprint, &headers, wanted, true).await
}

async fn change(
    server: &Server,
    fingerprint: String,
    headers: &HeaderMap,
    wanted: Wanted,
    adds: bool,
) -> Answer {
    if wanted.auto_update {
        return Err(Problem::value(
            "auto_update",
            "true",
            "is not supported: images do not come from other servers",
        ));
    }
    let image = one(server, fingerprint).await?;
    unchanged(headers, &changeable(&object(&image)))?;
    let mut properties = if adds { image.properties() } else { Keys::new() };
    properties.extend(wanted.properties.unwrap_or_default());
    properties.retain(|_, value| !value.is_empty());
    let address = format!("/1.0/images/{}", image.fingerprint());
    server
        .read(move |condo| {
            image.note(condo, |notes| {
                notes.properties = Some(properties);
                notes.public = wanted.public.unwrap_or(notes.public);
            })
        })
        .await?;
    server.events.lifecycle("default", "image-updated", &address);
    Ok(Reply::empty())
}

/// `DELETE /1.0/images/FINGERPRINT`.
pub(crate) async fn delete(server: Server, Path(wanted): Path<String>, params: Params) -> Answer {
    let image = one(&server, wanted).await?;
    let address = format!("/1.0/images/{}", image.fingerprint());
    let plan = Plan {
        description: "Deleting image",
        project: params.project().to_owned(),
        ..Plan::default()
    }
    .and("images", &address);
    let (worker, project) = (server.clone(), params.project().to_owned());
    let work = async move {
        worker
            .read(move |condo| {
                condo.image_remove(&image.view.name)?;
                image.forget(condo)
            })
            .await?;
        worker.events.lifecycle(&project, "image-deleted", &address);
        Ok(())
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}
