//! `/1.0/images`: images and their aliases, which are condo's names of them.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use condo::vps::record::instance::Condo;
use condo::vps::record::view::ImageView;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::events::{NEVER, seconds};
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::Params;
use crate::server::Server;

/// The shortest beginning of a fingerprint that stands for it.
const SHORTEST: usize = 6;

/// What an image is known by: it changes when an image is made anew under the same name.
pub(crate) fn fingerprint(image: &ImageView) -> String {
    let text = format!("{}\n{}\n{}\n", image.name, image.created, image.size);
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What is said about an image, and becomes `image.*` keys of what is made of it.
pub(crate) fn properties(image: &ImageView) -> BTreeMap<String, String> {
    [
        ("architecture", image.architecture.clone()),
        ("description", image.name.clone()),
        ("name", image.name.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The image with this fingerprint, or the only one whose fingerprint begins like that.
pub(crate) fn find(condo: &Condo, wanted: &str) -> Result<ImageView, Problem> {
    let hex = wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let mut found = Vec::new();
    if hex && wanted.len() >= SHORTEST {
        found = condo.image_list()?;
        found.retain(|image| fingerprint(image).starts_with(&wanted.to_lowercase()));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Problem::missing("Image", wanted)),
        n => Err(Problem::bad(format!(
            "fingerprint: `{wanted}` begins those of {n} images"
        ))),
    }
}

/// The image of this name. Others' names have slashes (`debian/12`), condo's have hyphens.
pub(crate) fn named(condo: &Condo, alias: &str) -> Result<ImageView, Problem> {
    let name = alias.replace('/', "-");
    let found = condo.image_list()?.into_iter().find(|image| image.name == name);
    found.ok_or_else(|| Problem::missing("Image alias", alias))
}

fn object(image: &ImageView) -> Value {
    json!({
        "fingerprint": fingerprint(image),
        "aliases": [{ "name": image.name, "description": "" }],
        "architecture": image.architecture, "type": "container", "public": false, "cached": false,
        "auto_update": false, "filename": format!("{}.tar", image.name), "size": image.size,
        "properties": properties(image), "profiles": ["default"],
        "created_at": seconds(Some(image.created)), "uploaded_at": seconds(Some(image.created)),
        "expires_at": NEVER, "last_used_at": NEVER,
    })
}

fn alias(image: &ImageView) -> Value {
    json!({ "name": image.name, "description": "", "target": fingerprint(image), "type": "container" })
}

/// `GET /1.0/images`.
pub(crate) async fn list(State(server): State<Server>, params: Params) -> Answer {
    let all = server.read(|condo| condo.image_list()).await?;
    Ok(Reply::Sync(if params.recursion() > 0 {
        all.iter().map(object).collect()
    } else {
        all.iter()
            .map(|image| json!(format!("/1.0/images/{}", fingerprint(image))))
            .collect()
    }))
}

/// `GET /1.0/images/FINGERPRINT`.
pub(crate) async fn get(State(server): State<Server>, Path(wanted): Path<String>) -> Answer {
    let image = server.read(move |condo| Ok(find(condo, &wanted))).await??;
    let object = object(&image);
    Ok(Reply::marked(&object, &object["properties"]))
}

/// `DELETE /1.0/images/FINGERPRINT`.
pub(crate) async fn delete(
    State(server): State<Server>,
    Path(wanted): Path<String>,
    params: Params,
) -> Answer {
    let image = server.read(move |condo| Ok(find(condo, &wanted))).await??;
    let address = format!("/1.0/images/{}", fingerprint(&image));
    let plan = Plan {
        description: "Deleting image",
        project: params.project().to_owned(),
        ..Plan::default()
    }
    .and("images", &address);
    let (worker, project) = (server.clone(), params.project().to_owned());
    let work = async move {
        worker.read(move |condo| condo.image_remove(&image.name)).await?;
        worker.events.lifecycle(&project, "image-deleted", &address);
        Ok(())
    };
    Ok(Reply::begun(&*server.operations.begin(plan, work)?))
}

/// `GET /1.0/images/aliases`.
pub(crate) async fn aliases(State(server): State<Server>, params: Params) -> Answer {
    let all = server.read(|condo| condo.image_list()).await?;
    Ok(Reply::Sync(if params.recursion() > 0 {
        all.iter().map(alias).collect()
    } else {
        all.iter()
            .map(|image| json!(format!("/1.0/images/aliases/{}", image.name)))
            .collect()
    }))
}

/// `GET /1.0/images/aliases/ALIAS`.
pub(crate) async fn get_alias(State(server): State<Server>, Path(wanted): Path<String>) -> Answer {
    let image = server.read(move |condo| Ok(named(condo, &wanted))).await??;
    let mut object = alias(&image);
    let mark = object.clone();
    object["description"] = json!("");
    Ok(Reply::marked(&object, &mark))
}
