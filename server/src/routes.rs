//! Which request goes where.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, header};
use axum::middleware::{map_request, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::instances::{files, logs, snapshots};
use crate::reply::Problem;
use crate::request;
use crate::server::Server;
use crate::{about, events, images, instances, operations, profiles};

/// All of the API.
pub(crate) fn router(server: Server) -> Router {
    Router::new()
        .route("/", get(about::versions))
        .route("/1.0", get(about::server))
        .route("/1.0/events", get(events::get))
        .route("/1.0/operations", get(operations::list))
        .route(
            "/1.0/operations/{id}",
            get(operations::get).delete(operations::cancel),
        )
        .route("/1.0/operations/{id}/wait", get(operations::wait))
        .route("/1.0/operations/{id}/websocket", get(operations::socket))
        .nest("/1.0/instances", of_instances())
        // What they were called before there were virtual machines.
        .nest("/1.0/containers", of_instances())
        .route("/1.0/images", get(images::list))
        .route("/1.0/images/aliases", get(images::aliases))
        .route("/1.0/images/aliases/{alias}", get(images::get_alias))
        .route(
            "/1.0/images/{fingerprint}",
            get(images::get).delete(images::delete),
        )
        .route("/1.0/profiles", get(profiles::list).post(profiles::create))
        .route(
            "/1.0/profiles/{name}",
            get(profiles::get)
                .put(profiles::put)
                .patch(profiles::patch)
                .post(profiles::rename)
                .delete(profiles::delete),
        )
        .fallback(async || Problem::of_status(axum::http::StatusCode::NOT_FOUND, "not found"))
        .layer(DefaultBodyLimit::max(request::MOST))
        .layer(map_response(enveloped))
        .layer(map_request(read_out))
        .with_state(server)
}

fn of_instances() -> Router<Server> {
    Router::new()
        .route("/", get(instances::list).post(instances::create))
        .route(
            "/{name}",
            get(instances::get)
                .put(instances::put)
                .patch(instances::patch)
                .post(instances::rename)
                .delete(instances::delete),
        )
        .route("/{name}/state", get(instances::state).put(instances::set_state))
        .route("/{name}/exec", post(instances::exec))
        .route("/{name}/console", post(instances::console).get(logs::get_console))
        .route("/{name}/snapshots", get(snapshots::list).post(snapshots::create))
        .route(
            "/{name}/snapshots/{snapshot}",
            get(snapshots::get).delete(snapshots::delete),
        )
        .route(
            "/{name}/files",
            get(files::get).post(files::post).delete(files::delete),
        )
        .route("/{name}/backups", get(instances::backups))
        .route("/{name}/logs", get(logs::list))
        .route("/{name}/logs/{file}", get(logs::get).delete(logs::delete))
}

/// Reads what comes along with a request that has no use for it (`null` of Ansible's): who closes a socket with something unread
/// in it takes the answer back.
async fn read_out(request: Request) -> Request {
    if ![Method::GET, Method::HEAD, Method::DELETE].contains(request.method()) {
        return request;
    }
    let (parts, body) = request.into_parts();
    let _ = tokio::time::timeout(request::PATIENCE, to_bytes(body, request::MOST)).await;
    Request::from_parts(parts, Body::empty())
}

/// What the layers below say in plain text (a wrong method, a body too long), in the envelope of all other answers.
async fn enveloped(response: Response) -> Response {
    let status = response.status();
    let of_ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if of_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    Problem::of_status(status, &String::from_utf8_lossy(&text)).into_response()
}
