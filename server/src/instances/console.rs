//! `POST /1.0/instances/NAME/console`: a VPS's console over a websocket.

use axum::extract::Path;
use condo::vps::record::view::VpsStatus;
use serde::Deserialize;
use serde_json::json;

use super::hub::Hub;
use super::relay::{self, Shape};
use crate::errand::Task;
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params, name};
use crate::server::Server;

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    width: Option<u16>,
    height: Option<u16>,
    #[serde(rename = "type")]
    kind: String,
}

/// `POST /1.0/instances/NAME/console`.
pub(crate) async fn console(
    server: Server,
    Path(text): Path<String>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let name = name(&text)?;
    if !["", "console"].contains(&wanted.kind.as_str()) {
        return Err(Problem::value(
            "type",
            &wanted.kind,
            "is not supported: console is",
        ));
    }
    if server.status(&name).await? == VpsStatus::Stopped {
        return Err(Problem::bad("Instance is not running"));
    }
    let shape = Shape::new(true, wanted.height, wanted.width);
    let (secrets, hub) = Hub::new(shape.names())?;
    let mut plan = Plan::of_instance("Showing console", params.project(), &text);
    plan.metadata.insert("fds".into(), json!(secrets));
    plan.class = Some("websocket");
    plan.may_cancel = true;
    let worker = server.clone();
    let operation = server.operations.launch(plan, |operation| {
        operation.expect(hub.clone());
        async move {
            let ended = relay::run(&worker, &operation, Task::Console(name), shape, hub).await;
            ended
                .map(drop)
                .map(|()| Default::default())
                .map_err(|failed| (failed.problem, Default::default()))
        }
    })?;
    Ok(Reply::begun(&operation))
}
