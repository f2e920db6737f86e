//! Who may use the API: everybody who reaches the socket, and over TLS those whose certificate is known.
//!
//! ```text
//!  identity   the server's own certificate
//!  reach      what somebody may do
//!  clients    certificates that are trusted, and tokens by which one becomes so once
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
mod tls;

pub(crate) use clients::fingerprint;
pub(crate) use command::{TrustCommand, addresses, run};
pub(crate) use identity::Identity;
pub(crate) use reach::{Reach, must_not_empower};
pub(crate) use routes::{create, delete, get, list, patch, put};
pub(crate) use tls::{acceptor, certificate_of};

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody at the socket: as good as root.
    Local,
    /// Somebody over TLS, with the certificate that they proved to have (DER), if any.
    Remote(Option<Vec<u8>>),
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
        }
    }
}

/// Lets everybody look what this is, and ask to be trusted; nothing else without being so.
pub(crate) async fn guard(server: Server, caller: Caller, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let open = matches!(
        (request.method(), path),
        (&Method::GET, "" | "/1.0") | (&Method::POST, "/1.0/certificates")
    );
    let reach = match caller.reach(&server).await {
        Ok(reach) if open || reach.permits(&server, &request) => reach,
        Ok(_) => return Problem::forbidden("not authorized").into_response(),
        Err(problem) => return problem.into_response(),
    };
    let mut request = request;
    request.extensions_mut().insert(reach);
    request.extensions_mut().insert(caller);
    next.run(request).await
}
