//! `POST /1.0/images`: an image that is sent, or made of an instance.

use std::fs::File;

use axum::body::to_bytes;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Query, Request};
use axum::http::{HeaderMap, Uri, header};
use condo::vps::record::name::Name;
use condo::vps::record::snapshots::SnapshotName;
use serde::Deserialize;
use serde_json::{Map, json};

use super::known::{self, Alias};
use super::{aliases, metadata};
use crate::errand::{ImageTask, Streams, Task};
use crate::keys::Keys;
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{self, Params};
use crate::server::Server;
use crate::spool;

/// The most bytes that an image may have as it is sent.
const MOST: u64 = 64 << 30;
/// The same for what is said about it.
const MOST_METADATA: u64 = 16 << 20;

/// A body that is JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    source: Source,
    aliases: Vec<Called>,
    properties: Option<Keys>,
    public: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Called {
    name: String,
    description: String,
}

/// What is said of an image beside what is in it.
struct Said {
    aliases: Vec<Alias>,
    properties: Option<Keys>,
    public: bool,
}

/// `POST /1.0/images`.
pub(crate) async fn create(server: Server, params: Params, request: Request) -> Answer {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let headers = request.headers().clone();
    if kind.starts_with("multipart/form-data") {
        let said = Said::of(&headers)?;
        let (metadata, archive) = parts(&server, request).await?;
        return import(&server, &params, said, Some(metadata), archive);
    }
    if kind.starts_with("application/json") {
        let body = to_bytes(request.into_body(), request::MOST).await;
        let body = body.map_err(|e| Problem::bad(format!("the body cannot be read: {e}")))?;
        return made(&server, &params, request::json(&body)?).await;
    }
    let archive = spool::take(&server, request.into_body().into_data_stream(), MOST).await?;
    if let Some(text) = json_of(&archive)? {
        // Not all clients say what they send.
        return made(&server, &params, request::json(&text)?).await;
    }
    import(&server, &params, Said::of(&headers)?, None, archive)
}

/// The body, if it begins as JSON does.
fn json_of(body: &File) -> Result<Option<Vec<u8>>, Problem> {
    use std::os::unix::fs::FileExt;
    let failed = |e: std::io::Error| Problem::from(condo::error::Error::from(e));
    let size = body.metadata().map_err(failed)?.len();
    let mut text = vec![0; usize::try_from(size).unwrap_or(request::MOST).min(request::MOST)];
    let mut first = [0];
    if size > request::MOST as u64 || body.read_at(&mut first, 0).map_err(failed)? == 0 || first[0] != b'{' {
        return Ok(None);
    }
    body.read_exact_at(&mut text, 0).map_err(failed)?;
    Ok(Some(text))
}

/// The two files of an image in two.
async fn parts(server: &Server, request: Request) -> Result<(String, File), Problem> {
    let unreadable = |e: String| Problem::bad(format!("the body cannot be read: {e}"));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|e| unreadable(e.body_text()))?;
    let (mut text, mut archive) = (None, None);
    while let Some(field) = form.next_field().await.map_err(|e| unreadable(e.body_text()))? {
        match field.name() {
            Some("metadata") => {
                let kept = spool::take(server, body_of(field), MOST_METADATA).await?;
                let found = tokio::task::spawn_blocking(move || metadata::of_archive(kept)).await;
                text = Some(found.map_err(|e| Problem::internal(e.to_string()))??);
            }
            Some("rootfs") => archive = Some(spool::take(server, body_of(field), MOST).await?),
            Some("rootfs.img") => {
                return Err(Problem::value(
                    "rootfs.img",
                    "",
                    "is a virtual machine's, and VPSs are containers",
                ));
            }
            other => {
                let name = other.unwrap_or_default().to_owned();
                return Err(Problem::value("form", &name, "is neither metadata nor rootfs"));
            }
        }
    }
    let missing = |what: &str| Problem::bad(format!("form: the part `{what}` is missing"));
    Ok((
        text.ok_or_else(|| missing("metadata"))?,
        archive.ok_or_else(|| missing("rootfs"))?,
    ))
}

fn body_of(field: Field<'_>) -> impl futures_util::Stream<Item = Result<axum::body::Bytes, String>> + Unpin {
    Box::pin(futures_util::StreamExt::map(field, |piece| {
        piece.map_err(|e| e.body_text())
    }))
}

impl Said {
    /// What an upload's headers say.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let header = |key: &str| {
            headers
                .get(key)
                .map_or("", |value| value.to_str().unwrap_or_default())
        };
        let pairs = |key: &str| -> Result<Vec<(String, String)>, Problem> {
            let text = header(key);
            let refuse = || Problem::value(key, text, "is not KEY=VALUE&…, URL-encoded");
            let address: Uri = format!("/?{text}").parse().map_err(|_| refuse())?;
            Ok(Query::try_from_uri(&address).map_err(|_| refuse())?.0)
        };
        let properties: Keys = pairs("x-lxd-properties")?.into_iter().collect();
        let aliases = pairs("x-lxd-aliases")?.into_iter().map(|(_, name)| Alias {
            name,
            description: String::new(),
        });
        Ok(Self {
            aliases: aliases.collect(),
            properties: Some(properties).filter(|some| !some.is_empty()),
            public: ["1", "true"].contains(&header("x-lxd-public")),
        })
    }

    fn check(&self) -> Result<(), Problem> {
        self.aliases
            .iter()
            .try_for_each(|alias| known::check_alias(&alias.name))
    }
}

/// An image that is to be made.
struct Making {
    description: &'static str,
    said: Said,
    task: ImageTask,
    streams: Streams,
}

fn import(server: &Server, params: &Params, said: Said, metadata: Option<String>, archive: File) -> Answer {
    let making = Making {
        description: "Importing image",
        said,
        task: ImageTask::Import(metadata),
        streams: Streams::from(archive),
    };
    begin(server, params, making)
}

/// An image that is made of something here.
async fn made(server: &Server, params: &Params, wanted: Wanted) -> Answer {
    let source = &wanted.source;
    let (vps, snapshot) = match source.kind.as_str() {
        "instance" | "container" => (source.name.as_str(), None),
        "snapshot" => source
            .name
            .split_once('/')
            .map(|(vps, snapshot)| (vps, Some(snapshot)))
            .ok_or_else(|| {
                Problem::value(
                    "source.name",
                    &source.name,
                    "is not of the form INSTANCE/SNAPSHOT",
                )
            })?,
        other => {
            let problem = "is not supported: images do not come from other servers. Send the image itself (`lxc image export` there, \
                           `lxc image import` here), or `condo image pull`";
            return Err(Problem::value("source.type", other, problem));
        }
    };
    let vps: Name = request::name(vps)?;
    let snapshot: Option<SnapshotName> = match snapshot {
        Some(text) => Some(text.parse().map_err(|_| Problem::missing("Snapshot", text))?),
        None => None,
    };
    server.status(&vps).await?;
    let said = Said {
        aliases: wanted
            .aliases
            .into_iter()
            .map(|Called { name, description }| Alias { name, description })
            .collect(),
        properties: wanted.properties.filter(|some| !some.is_empty()),
        public: wanted.public,
    };
    let making = Making {
        description: "Publishing instance",
        said,
        task: ImageTask::Publish(vps, snapshot),
        streams: Streams::default(),
    };
    begin(server, params, making)
}

fn begin(server: &Server, params: &Params, making: Making) -> Answer {
    making.said.check()?;
    let plan = Plan {
        description: making.description,
        project: params.project().to_owned(),
        ..Plan::default()
    };
    let worker = server.clone();
    let operation = server.operations.launch(plan, |operation| async move {
        let made = make(&worker, making).await;
        let (fingerprint, size) = made.map_err(|problem| (problem, Map::new()))?;
        let address = format!("/1.0/images/{fingerprint}");
        worker
            .events
            .lifecycle(operation.project(), "image-created", &address);
        let metadata = [
            ("fingerprint", json!(fingerprint)),
            ("size", json!(size.to_string())),
        ];
        Ok(metadata
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect())
    })?;
    Ok(Reply::begun(&operation))
}

async fn make(server: &Server, making: Making) -> Result<(String, u64), Problem> {
    let name = known::made_up()?;
    let said = making.said;
    let task = Task::Image(name.clone(), making.task);
    server.run_with(task, making.streams).await?;
    let new = name.clone();
    let admitting = server.clone();
    let image = server
        .read(move |condo| {
            let _turn = admitting.admit_one();
            let all = known::all(condo)?;
            let Some(at) = all.iter().position(|image| image.view.name == new) else {
                return Ok(Err(Problem::missing("Image", &new)));
            };
            let twin = all
                .iter()
                .find(|other| other.view.name != new && other.fingerprint() == all[at].fingerprint());
            if let Some(twin) = twin {
                condo.image_remove(&new)?;
                all[at].forget(condo)?;
                let text = format!("Image with same fingerprint already exists: `{}`", twin.view.name);
                return Ok(Err(Problem::conflict(text)));
            }
            let properties = match said.properties {
                Some(said) => Some(said),
                None => condo
                    .image_metadata(&new)?
                    .and_then(|text| metadata::properties(&text)),
            };
            all[at].note(condo, |notes| {
                notes.properties = properties;
                notes.public = said.public;
            })?;
            Ok(Ok(all[at].clone()))
        })
        .await??;
    let (fingerprint, size) = (image.fingerprint().to_owned(), image.view.size);
    for alias in said.aliases {
        let wanted = fingerprint.clone();
        let image = server
            .read(move |condo| Ok(known::find(condo, &wanted)))
            .await??;
        aliases::call(server, image, alias).await?;
    }
    Ok((fingerprint, size))
}
