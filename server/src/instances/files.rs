//! `/1.0/instances/NAME/files`: files inside.

use std::path::PathBuf;
use std::str::FromStr;

use axum::body::{Body, to_bytes};
use axum::extract::Path;
use axum::http::HeaderMap;
use condo::vps::record::name::Name;
use condo::vps::run::transfer::single::{Given, Kind, Seen};
use serde_json::json;

use super::show::exists;
use crate::errand::{FileTask, Streams, Task};
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Params, name};
use crate::server::Server;
use crate::spool;

/// The longest text of a link (`PATH_MAX`).
const LINK: usize = 4096;

/// The path inside that a request is about.
fn path(params: &Params) -> Result<PathBuf, Problem> {
    let path = params.get("path").map(PathBuf::from);
    path.ok_or_else(|| Problem::bad("path: `` is missing: name a file inside of the instance"))
}

/// `GET /1.0/instances/NAME/files?path=P`: a file, the names in a folder, or the text of a link.
pub(crate) async fn get(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    let content = spool::file(&server).await?;
    let streams = Streams::to(content.try_clone().map_err(condo::error::Error::from)?);
    let seen = server
        .run_with(Task::File(name.clone(), path(&params)?, FileTask::Read), streams)
        .await?;
    let seen: Seen = serde_json::from_value(seen).map_err(condo::error::Error::from)?;
    told(&server, &params, &name, "instance-file-retrieved");
    let mut headers = vec![
        ("x-lxd-uid", seen.meta.uid.to_string()),
        ("x-lxd-gid", seen.meta.gid.to_string()),
        ("x-lxd-mode", format!("{:04o}", seen.meta.mode)),
        (
            "x-lxd-type",
            json!(seen.kind).as_str().unwrap_or_default().to_owned(),
        ),
    ];
    let body = match seen.kind {
        Kind::Directory => return Ok(Reply::With(headers, json!(seen.names))),
        Kind::Symlink => Body::from(seen.target),
        Kind::File => {
            let (body, size) = spool::give(content)?;
            headers.push(("content-length", size.to_string()));
            body
        }
    };
    Ok(Reply::Raw("application/octet-stream", headers, body))
}

/// `POST /1.0/instances/NAME/files?path=P`: a file, a folder or a link.
pub(crate) async fn post(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    let path = path(&params)?;
    let mut given = given(&headers)?;
    let streams = match given.kind {
        Kind::File => Streams::from(spool::take(&server, body.into_data_stream(), u64::MAX).await?),
        Kind::Directory => Streams::default(),
        Kind::Symlink => {
            let text = to_bytes(body, LINK).await;
            let text = text.map_err(|e| Problem::bad(format!("the text of the link cannot be read: {e}")))?;
            given.target = String::from_utf8(text.to_vec())
                .map_err(|_| Problem::bad("the text of the link is not UTF-8"))?;
            Streams::default()
        }
    };
    server
        .run_with(Task::File(name.clone(), path, FileTask::Write(given)), streams)
        .await?;
    told(&server, &params, &name, "instance-file-pushed");
    Ok(Reply::empty())
}

/// `DELETE /1.0/instances/NAME/files?path=P`.
pub(crate) async fn delete(server: Server, Path(text): Path<String>, params: Params) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    server
        .run(Task::File(name.clone(), path(&params)?, FileTask::Remove))
        .await?;
    told(&server, &params, &name, "instance-file-deleted");
    Ok(Reply::empty())
}

fn told(server: &Server, params: &Params, name: &Name, action: &'static str) {
    let source = format!("/1.0/instances/{name}/files");
    server.events.lifecycle(params.project(), action, &source);
}

/// What the headers ask for.
fn given(headers: &HeaderMap) -> Result<Given, Problem> {
    let header = |key: &str| headers.get(key).map_or("", |value| value.to_str().unwrap_or("?"));
    let kind = match header("x-lxd-type") {
        "" | "file" => Kind::File,
        "directory" => Kind::Directory,
        "symlink" => Kind::Symlink,
        other => {
            return Err(Problem::value(
                "X-LXD-type",
                other,
                "is none of file, directory, symlink",
            ));
        }
    };
    let append = match header("x-lxd-write") {
        "" | "overwrite" => false,
        "append" => kind == Kind::File,
        other => {
            return Err(Problem::value(
                "X-LXD-write",
                other,
                "is neither overwrite nor append",
            ));
        }
    };
    Ok(Given {
        kind,
        append,
        uid: id("X-LXD-uid", header("x-lxd-uid"))?,
        gid: id("X-LXD-gid", header("x-lxd-gid"))?,
        mode: mode(header("x-lxd-mode"))?,
        target: String::new(),
    })
}

/// A number, or none, for which clients also say -1.
fn id(key: &str, text: &str) -> Result<Option<u32>, Problem> {
    match text {
        "" | "-1" => Ok(None),
        _ => u32::from_str(text)
            .map(Some)
            .map_err(|_| Problem::value(key, text, "is not the number of a user or group")),
    }
}

/// Permission bits: octal behind a `0`, else decimal.
fn mode(text: &str) -> Result<Option<u32>, Problem> {
    let number = match text {
        "" | "-1" => return Ok(None),
        _ => match text
            .strip_prefix("0o")
            .or(text.strip_prefix('0').filter(|rest| !rest.is_empty()))
        {
            Some(octal) => u32::from_str_radix(octal, 8),
            None => text.parse(),
        },
    };
    let number = number.ok().filter(|mode| *mode <= 0o7777);
    number.map(Some).ok_or_else(|| {
        Problem::value(
            "X-LXD-mode",
            text,
            "is not a mode such as 0644, which is octal for its 0",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_behind_a_nought() {
        for (text, expected) in [
            ("", None),
            ("-1", None),
            ("0644", Some(0o644)),
            ("420", Some(0o644)),
            ("0", Some(0)),
            ("0o4755", Some(0o4755)),
        ] {
            assert_eq!(mode(text).unwrap(), expected, "{text}");
        }
        for bad in ["0999", "x", "65536", "-2", "0644 "] {
            assert!(mode(bad).is_err(), "{bad}");
        }
        assert!(id("X-LXD-uid", "root").is_err() && id("X-LXD-uid", "7").unwrap() == Some(7));
    }
}
