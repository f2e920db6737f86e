//! Which request goes where.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, header};
use axum::middleware::{map_request, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use crate::images::aliases;
use crate::instances::{backups, files, logs, snapshots};
use crate::networks::{acls, forwards};
use crate::reply::Problem;
use crate::request;
use crate::server::Server;
use crate::{
    about, events, host, images, instances, networks, openapi, operations, profiles, projects, trust, web,
};

/// All of the API.
pub(crate) fn router(server: Server) -> Router {
    Router::new()
        .route("/", get(about::versions))
        .route("/1.0", get(about::server))
        .route("/1.0/openapi.json", get(openapi::get))
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
        .merge(of_images())
        .merge(of_networks())
        .merge(of_host())
        .route("/1.0/profiles", get(profiles::list).post(profiles::create))
        .route(
            "/1.0/profiles/{name}",
            get(profiles::get)
                .put(profiles::put)
                .patch(profiles::patch)
                .post(profiles::rename)
                .delete(profiles::delete),
        )
        .merge(web::routes())
        .fallback(async || Problem::of_status(axum::http::StatusCode::NOT_FOUND, "not found"))
        .layer(DefaultBodyLimit::max(request::MOST))
        .layer(map_response(enveloped))
        .layer(map_request(read_out))
        .with_state(server)
}

fn of_images() -> Router<Server> {
    // Their bodies have bounds of their own.
    let all = get(images::list)
        .post(images::create)
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/1.0/images", all)
        .route("/1.0/images/aliases", get(aliases::list).post(aliases::create))
        .route(
            "/1.0/images/aliases/{alias}",
            get(aliases::get)
                .put(aliases::change)
                .patch(aliases::change)
                .post(aliases::rename)
                .delete(aliases::delete),
        )
        .route(
            "/1.0/images/{fingerprint}",
            get(images::get)
                .put(images::put)
                .patch(images::patch)
                .delete(images::delete),
        )
        .route("/1.0/images/{fingerprint}/export", get(images::export))
}

fn of_networks() -> Router<Server> {
    Router::new()
        .route("/1.0/networks", get(networks::list).post(networks::create))
        .route(
            "/1.0/networks/{name}",
            get(networks::get)
                .put(networks::put)
                .patch(networks::patch)
                .post(networks::rename)
                .delete(networks::delete),
        )
        .route("/1.0/networks/{name}/state", get(networks::state))
        .route("/1.0/networks/{name}/leases", get(networks::leases))
        .route(
            "/1.0/networks/{name}/forwards",
            get(forwards::list).post(forwards::create),
        )
        .route(
            "/1.0/networks/{name}/forwards/{address}",
            get(forwards::get).put(forwards::put).delete(forwards::delete),
        )
        .route("/1.0/network-acls", get(acls::list).post(acls::create))
        .route(
            "/1.0/network-acls/{name}",
            get(acls::get)
                .put(acls::put)
                .post(acls::rename)
                .delete(acls::delete),
        )
}

fn of_host() -> Router<Server> {
    Router::new()
        .route("/1.0/certificates", get(trust::list).post(trust::create))
        .route(
            "/1.0/certificates/{fingerprint}",
            get(trust::get)
                .put(trust::put)
                .patch(trust::patch)
                .delete(trust::delete),
        )
        .route("/1.0/metrics", get(host::metrics))
        .route("/1.0/resources", get(host::resources))
        .route("/1.0/warnings", get(host::warnings))
        .route("/1.0/cluster", get(host::cluster).put(host::no_cluster))
        .route("/1.0/cluster/{*rest}", any(host::no_cluster))
        .route("/1.0/projects", get(projects::list).post(projects::create))
        .route(
            "/1.0/projects/{name}",
            get(projects::get)
                .put(projects::put)
                .patch(projects::patch)
                .post(projects::rename)
                .delete(projects::delete),
        )
        .route("/1.0/projects/{name}/state", get(projects::state))
        .route("/1.0/storage-pools", get(host::pools))
        .route("/1.0/storage-pools/{name}", get(host::pool))
        .route("/1.0/storage-pools/{name}/resources", get(host::pool_resources))
        .route("/1.0/storage-pools/{name}/volumes", get(host::volumes))
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
        .route("/{name}/backups", get(backups::list).post(backups::create))
        .route(
            "/{name}/backups/{backup}",
            get(backups::get).post(backups::rename).delete(backups::delete),
        )
        .route("/{name}/backups/{backup}/export", get(backups::export))
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
