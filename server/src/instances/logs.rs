//! `/1.0/instances/NAME/logs`: what a VPS wrote to its console, and what recorded programs wrote.

use std::fs::File;
use std::path::PathBuf;

use axum::extract::Path;
use condo::error::{During, Error, Result};
use condo::files;
use condo::vps::record::instance::Condo;
use condo::vps::record::name::Name;
use serde_json::{Value, json};

use super::show::exists;
use crate::reply::{Answer, Problem, Reply};
use crate::request::name;
use crate::server::Server;

/// What clients call the log of an instance's own.
const CONSOLE: [&str; 2] = ["console.log", "lxc.log"];

/// Where the output of recorded programs is kept, until it or the VPS is deleted.
fn dir(condo: &Condo, name: &Name) -> PathBuf {
    condo.folders.vps(name).join("logs")
}

/// Makes files for the output of a program.
pub(super) fn make(condo: &Condo, name: &Name, names: &[String; 2]) -> Result<[File; 2]> {
    let dir = dir(condo, name);
    files::create_dir_all(&dir, 0o700)?;
    let make = |file: &String| File::create_new(dir.join(file)).during(|| format!("make the log `{file}`"));
    Ok([make(&names[0])?, make(&names[1])?])
}

/// Whether a log of a program may be called so: nothing else is ever looked up in the directory.
fn is_recorded(file: &str) -> bool {
    let id = file
        .strip_prefix("exec_")
        .and_then(|rest| rest.strip_suffix(".stdout").or(rest.strip_suffix(".stderr")));
    id.is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
}

/// `GET /1.0/instances/NAME/logs`.
pub(crate) async fn list(server: Server, Path(text): Path<String>) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    let asked = name.clone();
    let mut files: Vec<String> = server
        .read(move |condo| match std::fs::read_dir(dir(condo, &asked)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => Ok(other?
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()),
        })
        .await?;
    files.retain(|file| is_recorded(file));
    files.push(CONSOLE[0].to_owned());
    files.sort();
    Ok(Reply::Sync(
        files
            .iter()
            .map(|file| json!(format!("/1.0/instances/{name}/logs/{file}")))
            .collect::<Value>(),
    ))
}

/// `GET /1.0/instances/NAME/logs/FILE`.
pub(crate) async fn get(server: Server, Path((text, file)): Path<(String, String)>) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    let content = server
        .read(move |condo| {
            if CONSOLE.contains(&file.as_str()) {
                return console(condo, &name).map(Some);
            }
            if !is_recorded(&file) {
                return Ok(None);
            }
            match files::read(&dir(condo, &name).join(&file)) {
                Err(e) if e.is_gone() => Ok(None),
                other => other.map(Some),
            }
        })
        .await?;
    let content = content.ok_or_else(|| Problem::missing("Log", "of this name"))?;
    Ok(Reply::Raw("application/octet-stream", Vec::new(), content.into()))
}

/// All that is left of what a VPS wrote to its console.
fn console(condo: &Condo, name: &Name) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    condo.logs(name, false, &mut content)?;
    Ok(content)
}

/// `GET /1.0/instances/NAME/console`.
pub(crate) async fn get_console(server: Server, Path(text): Path<String>) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    let content = server.read(move |condo| console(condo, &name)).await?;
    Ok(Reply::Raw("application/octet-stream", Vec::new(), content.into()))
}

/// `DELETE /1.0/instances/NAME/logs/FILE`.
pub(crate) async fn delete(server: Server, Path((text, file)): Path<(String, String)>) -> Answer {
    let name = exists(&server, name(&text)?).await?;
    if CONSOLE.contains(&file.as_str()) {
        return Err(Problem::bad(
            "the log of the console cannot be deleted: it is the VPS's",
        ));
    }
    if !is_recorded(&file) {
        return Err(Problem::missing("Log", &file));
    }
    server
        .read(
            move |condo| match std::fs::remove_file(dir(condo, &name).join(&file)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound {
                    kind: "log",
                    name: file,
                }),
                other => Ok(other?),
            },
        )
        .await?;
    Ok(Reply::empty())
}
