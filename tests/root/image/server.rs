//! A registry on the loopback, as obstinate as a test wants it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use condo::image::Digest;

use super::saved::Saved;

/// How it behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// The value of `Authorization` it wants from whoever reads the repository.
    pub(crate) wants: Option<Wants>,
    /// So many times a layer ends after half of what is left of it.
    pub(crate) breaks: usize,
    /// It knows no parts of files.
    pub(crate) whole_only: bool,
    /// It speaks TLS.
    pub(crate) tls: bool,
}

#[derive(Clone)]
pub(crate) enum Wants {
    Basic(&'static str),
    /// A token, which it gives to whoever comes with this value.
    Token(&'static str),
}

/// The registry. Its threads end with the test's process.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    manners: Manners,
    address: SocketAddr,
    /// Content by path.
    content: BTreeMap<String, (String, Vec<u8>)>,
    breaks: AtomicUsize,
    /// Paths with how much of them was sent.
    sent: Mutex<Vec<(String, usize)>>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Registry {
    /// Serves images as `NAME:latest`, each with the index and the manifest given.
    pub(crate) fn start(images: &[(&str, &Saved, bool)], manners: Manners) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut content = BTreeMap::new();
        for (name, image, docker) in images {
            let manifest = image.manifest(*docker)?;
            let index = Saved::index(&manifest)?;
            let at = |kind: &str, version: &str| format!("/v2/{name}/{kind}/{version}");
            let of = |data: &[u8]| Digest::of(data).to_string();
            let index_kind = "application/vnd.oci.image.index.v1+json".to_owned();
            let manifest_kind = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
            content.insert(at("manifests", &of(&manifest)), (manifest_kind, manifest));
            content.insert(at("manifests", "latest"), (index_kind, index));
            for data in image.layers.iter().chain([&image.config]) {
                content.insert(
                    at("blobs", &of(data)),
                    ("application/octet-stream".to_owned(), data.clone()),
                );
            }
        }
        let state = Arc::new(State {
            breaks: AtomicUsize::new(manners.breaks),
            tls: manners.tls.then(tls).transpose()?,
            manners,
            address,
            content,
            sent: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                std::thread::spawn(move || state.serve(stream));
            }
        });
        Ok(Self { address, state })
    }

    /// What was sent of layers, a line for each time.
    pub(crate) fn sent(&self) -> Vec<(String, usize)> {
        self.state
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A server's side of TLS, with a certificate of the authority in `tests/data/registry/ca.pem`.
fn tls() -> Result<Arc<rustls::ServerConfig>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../../data/registry/cert.pem"))?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../data/registry/key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

impl State {
    fn serve(&self, stream: TcpStream) -> Result<()> {
        match &self.tls {
            None => self.talk(stream),
            Some(config) => {
                let connection = rustls::ServerConnection::new(Arc::clone(config))?;
                self.talk(rustls::StreamOwned::new(connection, stream))
            }
        }
    }

    /// One request after the other.
    fn talk(&self, stream: impl Read + Write) -> Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let path = line.split(' ').nth(1).context("no request")?.to_owned();
            let mut headers = BTreeMap::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                let Some((name, value)) = line.trim().split_once(": ") else {
                    break;
                };
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            if !self.answer(stream.get_mut(), &path, &headers)? {
                return Ok(());
            }
        }
    }

    /// Whether the connection goes on.
    fn answer(
        &self,
        stream: &mut impl Write,
        path: &str,
        headers: &BTreeMap<String, String>,
    ) -> Result<bool> {
        let authorization = headers.get("authorization").map_or("", String::as_str);
        if path.starts_with("/token?") {
            let known = matches!(self.manners.wants, Some(Wants::Token(wanted)) if wanted == authorization);
            let scoped = path.contains("repository%3A") && path.contains("service=here");
            let (status, body) = if known && scoped {
                ("200 OK", "{\"token\":\"t0\"}")
            } else {
                ("401 No", "{}")
            };
            return send(stream, status, "", body.as_bytes(), None);
        }
        let (wanted, challenge) = match &self.manners.wants {
            None => ("", String::new()),
            Some(Wants::Basic(value)) => (*value, "Basic realm=\"r\"".to_owned()),
            Some(Wants::Token(_)) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let realm = format!("{scheme}://{}/token", self.address);
                ("Bearer t0", format!("Bearer realm=\"{realm}\",service=\"here\""))
            }
        };
        if !wanted.is_empty() && wanted != authorization {
            return send(
                stream,
                "401 No",
                &format!("WWW-Authenticate: {challenge}\r\n"),
                b"{}",
                None,
            );
        }
        let Some((kind, data)) = self.content.get(path) else {
            let body = b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}";
            return send(stream, "404 Not Found", "", body, None);
        };
        let from = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.filter(|_| !self.manners.whole_only).unwrap_or(0);
        let rest = &data[from.min(data.len())..];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        let is_layer = kind == "application/octet-stream" && data.len() > 1000;
        let less = |n: usize| n.checked_sub(1);
        let cut = is_layer
            && self
                .breaks
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                .is_ok();
        let count = if cut { rest.len() / 2 } else { rest.len() };
        if is_layer {
            self.sent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((path.to_owned(), count));
        }
        send(
            stream,
            status,
            &format!("Content-Type: {kind}\r\n"),
            rest,
            Some(count),
        )
    }
}

/// Sends a response, of whose body only `count` bytes come; whether the connection goes on.
fn send(
    stream: &mut impl Write,
    status: &str,
    more: &str,
    body: &[u8],
    count: Option<usize>,
) -> Result<bool> {
    let count = count.unwrap_or(body.len());
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    )?;
    stream.write_all(&body[..count])?;
    stream.flush()?;
    Ok(count == body.len())
}
