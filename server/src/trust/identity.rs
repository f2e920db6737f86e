//! The server's own certificate, which clients remember: made once, and kept.

use std::path::Path;

use condo::error::{During, Error, Result};
use condo::files;
use condo::vps::record::instance::Condo;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Below the folder of what lasts.
const FOLDER: &str = "server";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// What the server proves to be.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) pem: String,
}

impl Identity {
    /// Reads it, or makes it. Whoever wants to put another in its place replaces the two files.
    pub(crate) fn of(condo: &Condo) -> Result<Self> {
        let dir = condo.folders.lib().join(FOLDER);
        files::create_dir_all(&dir, 0o700)?;
        let _lock = files::Lock::wait(&dir.join("lock"))?;
        match files::read_text(&dir.join(CERTIFICATE)) {
            Err(e) if e.is_gone() => make(&dir)?,
            other => drop(other?),
        }
        let pem = files::read_text(&dir.join(CERTIFICATE))?;
        let key = files::read(&dir.join(KEY))?;
        let unusable = |e: rustls::pki_types::pem::Error| Error::Corrupt(format!("{}: {e}", dir.display()));
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unusable)?,
            key: PrivateKeyDer::from_pem_slice(&key).map_err(unusable)?,
            pem,
        })
    }
}

fn make(dir: &Path) -> Result<()> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let failed = |e: rcgen::Error| Error::Corrupt(format!("make a certificate: {e}"));
    // Clients call the server by the first name in it.
    let names = vec![name.clone(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("root@{name}"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    // Nobody asks for more than that it stays the same.
    params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    files::write_atomic(&dir.join(KEY), key.serialize_pem().as_bytes(), 0o600)?;
    // The certificate last: with it, both are there.
    files::write_atomic(&dir.join(CERTIFICATE), certificate.pem().as_bytes(), 0o600)
        .during(|| "keep the server's certificate")
}
