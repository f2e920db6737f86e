//! `POST /1.0/instances/NAME/exec`: a program in a VPS, its streams over websockets.
//!
//! ```text
//!  interactive      "0" is the terminal, both ways
//!  otherwise        "0" input, "1" output, "2" errors
//!  "control"        size and signals; while it is there its loss ends the program
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::extract::Path;
use condo::vps::record::name::Name;
use condo::vps::record::view::VpsStatus;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::hub::Hub;
use super::logs;
use super::relay::{self, Shape};
use crate::errand::{Failed, Program, Task};
use crate::operations::{End, Plan};
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name};
use crate::server::Server;

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    command: Vec<String>,
    environment: Option<BTreeMap<String, String>>,
    #[serde(rename = "wait-for-websocket")]
    sockets: bool,
    #[serde(rename = "record-output")]
    record: bool,
    interactive: bool,
    width: Option<u16>,
    height: Option<u16>,
    user: Option<u32>,
    group: Option<u32>,
    cwd: Option<PathBuf>,
}

/// `POST /1.0/instances/NAME/exec`.
pub(crate) async fn exec(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let name = name(&text)?;
    wanted.check()?;
    match server.status(&name).await? {
        VpsStatus::Running => {}
        VpsStatus::Paused => return Err(Problem::bad("Instance is frozen")),
        _ => return Err(Problem::bad("Instance is not running")),
    }
    let mut plan = Plan::of_instance("Executing command", params.project(), &text);
    plan.metadata = wanted.metadata();
    plan.may_cancel = true;
    let worker = server.clone();
    let operation = if wanted.sockets {
        let shape = Shape::new(wanted.interactive, wanted.height, wanted.width);
        let (secrets, hub) = Hub::new(shape.names())?;
        plan.metadata.insert("fds".into(), json!(secrets));
        plan.class = Some("websocket");
        server.operations.launch(plan, |operation| {
            operation.expect(hub.clone());
            let task = Task::Exec(name, wanted.program());
            async move { end(relay::run(&worker, &operation, task, shape, hub).await) }
        })?
    } else {
        server.operations.launch(plan, |operation| async move {
            end(silent(&worker, &operation.id, name, wanted).await)
        })?
    };
    Ok(Reply::begun(&operation))
}

/// How a program ended: its exit status, also where it could not be started.
fn end(ended: Result<Map<String, Value>, Failed>) -> End {
    ended.map_err(|failed| {
        let metadata = Map::from_iter([("return".to_owned(), json!(failed.status))]);
        let text = match failed.status {
            127 => format!("Command not found: {}", failed.problem.text),
            126 => format!("Command not executable: {}", failed.problem.text),
            _ => failed.problem.text.clone(),
        };
        (
            Problem {
                text,
                ..failed.problem
            },
            metadata,
        )
    })
}

/// A program whose output nobody waits for. It is kept among the VPS's logs if that is wanted.
async fn silent(server: &Server, id: &str, name: Name, wanted: Wanted) -> Result<Map<String, Value>, Failed> {
    let record = wanted.record;
    let what = (name.clone(), wanted.program());
    if !record {
        return relay::silent(server, what, None).await;
    }
    let names = ["stdout", "stderr"].map(|stream| format!("exec_{id}.{stream}"));
    let [output, errors] = names
        .each_ref()
        .map(|file| format!("/1.0/instances/{name}/logs/{file}"));
    let made = server.read(move |condo| logs::make(condo, &name, &names)).await;
    let files = made.map_err(|problem| Failed { problem, status: -1 })?;
    let mut metadata = relay::silent(server, what, Some(files)).await?;
    metadata.insert("output".into(), json!({ "1": output, "2": errors }));
    Ok(metadata)
}

impl Wanted {
    fn check(&self) -> Result<(), Problem> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(Problem::bad("command: is empty: a program is needed"));
        }
        if self.interactive && !self.sockets {
            return Err(Problem::bad(
                "interactive: needs `wait-for-websocket`: a terminal is somebody's",
            ));
        }
        if self.interactive && self.record {
            return Err(Problem::bad("record-output: is not possible with `interactive`"));
        }
        let nul = self.command.iter().any(|word| word.contains('\0'));
        if nul {
            return Err(Problem::bad("command: a word holds a NUL byte"));
        }
        let environment = self.environment.iter().flatten();
        for (key, value) in environment {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(Problem::value(
                    "environment",
                    key,
                    "is not the name of a variable",
                ));
            }
        }
        match &self.cwd {
            Some(cwd) if !cwd.as_os_str().is_empty() && !cwd.is_absolute() => Err(Problem::value(
                "cwd",
                &cwd.display().to_string(),
                "is not an absolute path",
            )),
            _ => Ok(()),
        }
    }

    /// What a client is told of the request.
    fn metadata(&self) -> Map<String, Value> {
        Map::from_iter([
            ("command".to_owned(), json!(self.command)),
            ("environment".to_owned(), json!(self.environment)),
            ("interactive".to_owned(), json!(self.interactive)),
        ])
    }

    fn program(self) -> Program {
        let mut env = self.environment.unwrap_or_default();
        env.entry("LANG".to_owned())
            .or_insert_with(|| "C.UTF-8".to_owned());
        let user = match (self.user, self.group) {
            (None, None) => None,
            (user, None) => user.map(|user| user.to_string()),
            (user, Some(group)) => Some(format!("{}:{group}", user.unwrap_or(0))),
        };
        Program {
            args: self.command,
            env,
            user,
            cwd: self.cwd.filter(|cwd| !cwd.as_os_str().is_empty()),
            tty: self.interactive,
        }
    }
}
