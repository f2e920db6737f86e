//! Who may use the API: everybody who reaches the socket, and over TLS those whose certificate is known.
//!
//! ```text
//!  identity   the server's own certificate
//!  reach      what somebody may do
//!  secrets    secrets that are given out, and what each stands for
//!  clients    certificates that are trusted, and tokens by which one becomes so once
//!  sessions   people at browsers
//!  tls        connections
//!  routes     /1.0/certificates
//!  command    condo-server trust
//! ```

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::reply::Problem;
use crate::server::Server;

mod clients;
mod command;
mod identity;
mod reach;
mod routes;
mod secrets;
mod sessions;
mod tls;

pub(crate) use clients::fingerprint;
pub(crate) use command::{LinkArgs, TrustCommand, addresses, print_link, run};
pub(crate) use identity::Identity;
pub(crate) use reach::{Reach, must_not_empower};
pub(crate) use routes::{create, delete, get, list, patch, put};
pub(crate) use sessions::{begin, end, named};
pub(crate) use tls::{acceptor, certificate_of};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody at the socket: as good as root.
    Local,
    /// Somebody over TLS, with the certificate that they proved to have (DER), if any.
    Remote(Option<Vec<u8>>),
    /// Somebody at a browser, who says that this is the secret of their session.
    Browser(String),
}

impl Caller {
    /// How far they are trusted.
    async fn reach(&self, server: &Server) -> Result<Reach, Problem> {
        match self {
            Self::Local => Ok(Reach::All),
            Self::Remote(None) => Ok(Reach::Nothing),
            Self::Remote(Some(der)) => {
                let wanted = fingerprint(der);
                server.read(move |condo| clients::reach(condo, &wanted)).await
            }
            Self::Browser(secret) => {
                let secret = secret.clone();
                server.read(move |condo| sessions::reach(condo, &secret)).await
            }
        }
    }
}

/// Lets everybody look what this is, and ask to be trusted; nothing else without being so.
pub(crate) async fn guard(server: Server, caller: Caller, request: Request, next: Next) -> Response {
    let caller = match (caller, named(request.headers())) {
        (Caller::Remote(None), Some(session)) => Caller::Browser(session),
        (caller, _) => caller,
    };
    if matches!(caller, Caller::Browser(_)) && !sessions::is_of_our_pages(&request) {
        return Problem::forbidden("a page of somebody else's asks for it").into_response();
    }
    let reach = match caller.reach(&server).await {
        Ok(reach) if is_open(&request) || reach.permits(&server, &request) => reach,
        Ok(_) => return Problem::forbidden("not authorized").into_response(),
        Err(problem) => return problem.into_response(),
    };
    let mut request = request;
    request.extensions_mut().insert(reach);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// What is for everybody. The console's pages hold nothing that is anybody's.
fn is_open(request: &Request) -> bool {
    let path = request.uri().path().trim_end_matches('/');
    match (request.method(), path) {
        (&Method::GET, "" | "/1.0") | (&Method::POST, "/1.0/certificates") => true,
        _ => path == "/ui" || path.starts_with("/ui/"),
    }
}
