//! The console in the browser, `/ui/`: pages and scripts, which use the API as every other client does.
//!
//! They come over TLS alone. A terminal and graphs are there when `make web` had fetched their libraries before this was built.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use condo::image::hex;
use rust_embed::Embed;

use crate::reply::Problem;
use crate::request::Params;
use crate::server::Server;
use crate::trust::{self, Caller};

/// The folder `ui/` as it was when this was built.
#[derive(Embed)]
#[folder = "ui/"]
struct Pages;

/// What pages may do: nothing but run our scripts and talk to us. The terminal's library writes styles into the page.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const START: &str = "/ui/";

/// Its addresses.
pub(crate) fn routes() -> Router<Server> {
    Router::new()
        .route("/ui", get(async || Redirect::permanent(START)))
        .route(
            START,
            get(async |Extension(caller), headers: HeaderMap| page(&caller, "index.html", &headers)),
        )
        .route("/ui/login", get(login))
        .route("/ui/logout", post(logout))
        .route(
            "/ui/{*path}",
            get(
                async |Extension(caller), Path(path): Path<String>, headers: HeaderMap| {
                    page(&caller, &path, &headers)
                },
            ),
        )
}

fn page(caller: &Caller, path: &str, headers: &HeaderMap) -> Response {
    if matches!(caller, Caller::Local) {
        let why = "the console is served over TLS: start condo-server with --listen, and print a link with condo ui";
        return Problem::of_status(StatusCode::NOT_FOUND, why).into_response();
    }
    let Some(file) = Pages::get(path) else {
        return Problem::missing("Page", path).into_response();
    };
    let mark = format!("\"{}\"", hex(&file.metadata.sha256_hash()));
    let common = [
        (header::ETAG, mark.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known == mark.as_str())
    {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, kind(path))], file.data).into_response()
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// `GET /ui/login?code=SECRET`: what a link leads to.
async fn login(State(server): State<Server>, params: Params) -> Response {
    let link = params.get("code").unwrap_or_default().to_owned();
    match server.read(move |condo| trust::begin(condo, &link)).await {
        Ok(Some(cookie)) => to_the_start(cookie),
        // The start says what to do.
        Ok(None) => Redirect::to("/ui/#/used").into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// `POST /ui/logout`.
async fn logout(State(server): State<Server>, headers: HeaderMap) -> Response {
    let session = trust::named(&headers).unwrap_or_default();
    match server.read(move |condo| trust::end(condo, &session)).await {
        Ok(cookie) => to_the_start(cookie),
        Err(problem) => problem.into_response(),
    }
}

/// With a cookie. The address that was asked for may have a secret in it, which is no good any more.
fn to_the_start(cookie: String) -> Response {
    let headers = [
        (header::SET_COOKIE, cookie),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, Redirect::to(START)).into_response()
}
