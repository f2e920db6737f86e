//! Requests to one registry, with whatever it asks for: TLS, a password, a token.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::Settings;
use super::challenge::Challenge;
use super::credentials::Credentials;
use crate::error::{During, Error, Result};
use crate::files;
use crate::sys::names;

/// How long a registry may take to be reached and to answer, and between two pieces of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most of a token or of an error that is read.
const SMALL: u64 = 1 << 20;
/// How often a blob may lead elsewhere: registries hand out addresses of stores.
const REDIRECTS: u32 = 10;

/// A repository of a registry or of its mirror.
pub(super) struct Client {
    agent: Agent,
    /// `https://HOST[:PORT][/PATH]`.
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    /// The value of the `Authorization` header, once it is known.
    authorization: Mutex<Option<String>>,
}

impl Client {
    /// Nothing is sent yet. `base` begins with `http://` or `https://`.
    pub(super) fn new(
        base: String,
        repository: &str,
        credentials: Option<Credentials>,
        settings: &Settings,
    ) -> Result<Self> {
        names::by_files_and_dns();
        let tls = TlsConfig::builder()
            .disable_verification(settings.insecure)
            .root_certs(roots(settings)?)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(!settings.insecure && base.starts_with("https://"))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .max_redirects(REDIRECTS)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .user_agent(concat!("condo/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self {
            agent,
            base,
            repository: repository.to_owned(),
            credentials,
            authorization: Mutex::new(None),
        })
    }

    /// A document of the repository, of at most `limit` bytes, and its media type.
    pub(super) fn document(&self, path: &str, accept: &str, limit: u64) -> Result<Vec<u8>> {
        let mut response = self.get(path, accept, 0)?;
        let read = response.body_mut().with_config().limit(limit).read_to_vec();
        read.map_err(failed)
            .during(|| format!("read `{}`", self.url(path)))
    }

    /// What the repository has at a path, from an offset on. The offset is 0 again where a registry sends no part of a file.
    pub(super) fn blob(&self, path: &str, from: u64) -> Result<(u64, impl Read + use<>)> {
        let response = self.get(path, "*/*", from)?;
        let from = if response.status() == StatusCode::PARTIAL_CONTENT {
            from
        } else {
            0
        };
        Ok((from, response.into_body().into_reader()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.repository)
    }

    /// Sends a request, and once more with what the registry asks for.
    fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response<Body>> {
        let url = self.url(path);
        let work = || -> Result<Response<Body>> {
            let known = self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let response = self.send(&url, accept, from, known.as_deref())?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return accepted(response, &self.repository);
            }
            let authorization = self.authorize(&response)?;
            let again = self.send(&url, accept, from, Some(&authorization))?;
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
            accepted(again, &self.repository)
        };
        work().during(|| format!("fetch `{url}`"))
    }

    fn send(
        &self,
        url: &str,
        accept: &str,
        from: u64,
        authorization: Option<&str>,
    ) -> Result<Response<Body>> {
        let mut request = self.agent.get(url).header(header::ACCEPT, accept);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(failed)
    }

    /// What is to be sent to a registry that refused.
    fn authorize(&self, refused: &Response<Body>) -> Result<String> {
        let headers = refused.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = headers
            .iter()
            .filter_map(|value| Challenge::read(value.to_str().ok()?))
            .next();
        match challenge {
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                self.token(&realm, service.as_deref(), &scope)
                    .map(|token| format!("Bearer {token}"))
                    .during(|| format!("ask `{realm}` for a token"))
            }
            Some(Challenge::Basic) => self
                .credentials
                .as_ref()
                .map(Credentials::basic)
                .ok_or_else(denied),
            None => Err(denied()),
        }
    }

    /// A token by Docker's protocol: by name and password, or by OAuth2 with an identity token.
    fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let identity = self.credentials.as_ref().and_then(Credentials::identity_token);
        let response = match identity {
            Some(identity) => self.agent.post(realm).send_form([
                ("grant_type", "refresh_token"),
                ("client_id", "condo"),
                ("service", service.unwrap_or_default()),
                ("scope", scope),
                ("refresh_token", identity),
            ]),
            None => {
                let mut request = self.agent.get(realm).query("scope", scope);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(credentials) = &self.credentials {
                    request = request.header(header::AUTHORIZATION, credentials.basic());
                }
                request.call()
            }
        };
        let response = accepted(response.map_err(failed)?, realm)?;
        let text = response
            .into_body()
            .with_config()
            .limit(SMALL)
            .read_to_vec()
            .map_err(failed)?;
        let answer: Answer = serde_json::from_slice(&text)?;
        let token = answer.token.or(answer.access_token);
        token.ok_or_else(|| Error::Corrupt("the answer has no token".into()))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Whom we trust to name a registry: the authorities of this system, and those that were set for it.
fn roots(settings: &Settings) -> Result<RootCerts> {
    let mut all = Vec::new();
    for found in rustls_native_certs::load_native_certs().certs {
        all.push(Certificate::from_der(&found).to_owned());
    }
    if let Some(path) = &settings.ca {
        let text = files::read(path)?;
        for item in ureq::tls::parse_pem(&text) {
            let damaged =
                |e| Error::invalid("ca", path.display(), format!("holds no certificate in PEM: {e}"));
            if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(damaged)? {
                all.push(certificate);
            }
        }
    }
    Ok(RootCerts::from(all.into_iter()))
}

/// A response that is what was asked for, of the repository or server of this name.
fn accepted(mut response: Response<Body>, name: &str) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response
        .body_mut()
        .with_config()
        .limit(SMALL)
        .read_to_string()
        .unwrap_or_default();
    let words = reason(&body);
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => denied(),
        StatusCode::NOT_FOUND => Error::NotFound {
            kind: "image",
            name: words.map_or_else(|| name.to_owned(), |words| format!("{name} ({words})")),
        },
        // Says so at most once an hour: it is no use to go on.
        StatusCode::TOO_MANY_REQUESTS => Error::Busy("the registry (it takes no more requests now)".into()),
        status => Error::Io(io::Error::other(match words {
            Some(words) => format!("the registry answers {status}: {words}"),
            None => format!("the registry answers {status}"),
        })),
    })
}

/// The first message of a registry's error document.
fn reason(body: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(body).ok()?;
    let message = document.pointer("/errors/0/message")?.as_str()?;
    Some(message.chars().filter(|c| !c.is_control()).take(200).collect())
}

fn denied() -> Error {
    Error::unsupported(
        "this image without permission",
        "the registry refuses; see that the name is right, and say who you are with `--creds USER` or `docker login`",
    )
}

/// A registry that did not prove who it is. An error of the transfer, for it may be one that does not speak TLS at all.
fn unproven(e: &rustls::Error) -> Error {
    let problem = format!(
        "no TLS with the registry: {e}; one without TLS, or with a certificate that nobody vouches for, needs `--tls-verify=false`"
    );
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, problem))
}

/// A failure on the way. What the network does to a connection may go away by itself, and is told apart by its kind.
pub(super) fn failed(e: ureq::Error) -> Error {
    match e {
        ureq::Error::Rustls(e) => unproven(&e),
        ureq::Error::Io(e) => match e
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(e) => unproven(e),
            None => Error::Io(e),
        },
        ureq::Error::HostNotFound => Error::Io(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no host of this name",
        )),
        ureq::Error::Timeout(what) => Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer in time ({what})"),
        )),
        ureq::Error::ConnectionFailed => {
            Error::Io(io::Error::new(io::ErrorKind::ConnectionRefused, "no connection"))
        }
        ureq::Error::BodyExceedsLimit(limit) => Error::invalid(
            "answer of the registry",
            format!("more than {limit} bytes"),
            "is more than it may have",
        ),
        ureq::Error::RequireHttpsOnly(_) => Error::unsupported(
            "a registry without TLS",
            "say `--tls-verify=false`, or set `insecure = true` for it in condo.toml",
        ),
        other => Error::Io(io::Error::other(other.to_string())),
    }
}
