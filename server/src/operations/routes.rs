//! `/1.0/operations`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::locked;
use crate::reply::{Answer, Problem, Reply};
use crate::request::Params;
use crate::server::Server;

/// The longest message of a websocket, in bytes: clients send pieces of up to 32 KiB.
const MOST: usize = 1 << 20;

/// `GET /1.0/operations`: addresses or operations, by status.
pub(crate) async fn list(State(server): State<Server>, params: Params) -> Answer {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for operation in server.operations.all() {
        if !params.all_projects() && operation.plan.project != params.project() {
            continue;
        }
        let view = operation.view();
        let status = view["status"].as_str().unwrap_or_default().to_lowercase();
        found.entry(status).or_default().push(if params.recursion() > 0 {
            view
        } else {
            json!(format!("/1.0/operations/{}", operation.id))
        });
    }
    Reply::of(&found)
}

/// `GET /1.0/operations/ID`.
pub(crate) async fn get(State(server): State<Server>, Path(id): Path<String>) -> Answer {
    Ok(Reply::Sync(server.operations.find(&id)?.view()))
}

/// `DELETE /1.0/operations/ID`.
pub(crate) async fn cancel(State(server): State<Server>, Path(id): Path<String>) -> Answer {
    let operation = server.operations.find(&id)?;
    server.operations.cancel(&operation)?;
    Ok(Reply::empty())
}

/// `GET /1.0/operations/ID/wait`.
pub(crate) async fn wait(State(server): State<Server>, Path(id): Path<String>, params: Params) -> Answer {
    let operation = server.operations.find(&id)?;
    let seconds = params.get("timeout").map_or(Ok(-1), str::parse::<i64>);
    let seconds = seconds.map_err(|_| {
        Problem::value(
            "timeout",
            params.get("timeout").unwrap_or_default(),
            "is not a number of seconds",
        )
    })?;
    // Negative is for ever.
    let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    operation.ended(patience).await;
    Ok(Reply::Sync(operation.view()))
}

/// `GET /1.0/operations/ID/websocket?secret=S`.
pub(crate) async fn socket(
    State(server): State<Server>,
    Path(id): Path<String>,
    params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let operation = server.operations.find(&id)?;
    let sockets = locked(&operation.sockets).clone();
    let sockets = sockets.ok_or_else(|| Problem::bad("this operation has no websockets"))?;
    let secret = params.get("secret").unwrap_or_default().to_owned();
    if !sockets.known(&secret) {
        return Err(Problem::forbidden("the secret is not one of this operation's"));
    }
    let upgrade = upgrade.map_err(|e| Problem::bad(format!("not a websocket: {e}")))?;
    let upgraded = upgrade
        .max_message_size(MOST)
        .on_upgrade(move |socket| async move { sockets.take(&secret, socket) });
    Ok(Reply::Other(upgraded.into_response()))
}
