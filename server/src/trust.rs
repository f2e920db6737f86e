//! Who may use the API: everybody who reaches the socket, and over TLS those whose certificate is known.
//!
//! ```text
//!  identity   the server's own certificate
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
mod routes;
mod tls;

pub(crate) use clients::fingerprint;
pub(crate) use command::{TrustCommand, addresses, run};
pub(crate) use identity::Identity;
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
    /// Whether they may do all that the API has.
    pub(crate) async fn is_trusted(&self, server: &Server) -> Result<bool, Problem> {
        match self {
            Self::Local => Ok(true),
            Self::Remote(None) => Ok(false),
            Self::Remote(Some(der)) => {
                let wanted = fingerprint(der);
                server.read(move |condo| clients::is_known(condo, &wanted)).await
            }
        }
    }
}

/// Lets those who are not trusted do nothing but look what this is, and ask to be trusted.
pub(crate) async fn guard(server: Server, caller: Caller, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let open = matches!(
        (request.method(), path),
        (&Method::GET, "" | "/1.0") | (&Method::POST, "/1.0/certificates")
    );
    if !open {
        match caller.is_trusted(&server).await {
            Ok(true) => {}
            Ok(false) => return Problem::forbidden("not authorized").into_response(),
            Err(problem) => return problem.into_response(),
        }
    }
    let mut request = request;
    request.extensions_mut().insert(caller);
    next.run(request).await
}
