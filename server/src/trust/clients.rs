//! Certificates that are trusted, and tokens: each lets one client in once.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use condo::error::Result;
use condo::image::hex;
use condo::vps::record::instance::Condo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Reach;
use super::secrets::{self, Given, Projects, must_exist, reach_of, read};
use crate::events::time;
use crate::reply::Problem;

/// What they are kept as.
const CERTIFICATE: &str = "certificate";
/// And how long one can be used.
const TOKEN: (&str, Duration) = ("token", Duration::from_secs(24 * 3600));
/// The longest name.
const LONGEST: usize = 255;

/// A certificate that is trusted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) name: String,
    /// As base64 of DER.
    pub(crate) der: String,
    /// The projects that it is for, if not for all that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) projects: Projects,
}

/// A token that was given out.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    name: String,
    /// What the certificate will be for.
    #[serde(default)]
    projects: Projects,
}

/// What a certificate is known by: the SHA-256 of its DER.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    hex(&Sha256::digest(der))
}

impl Certificate {
    /// For a client that proved to have it, or whose operator says so.
    pub(crate) fn new(name: &str, der: &[u8]) -> std::result::Result<Self, Problem> {
        if name.is_empty() || name.len() > LONGEST || name.contains(char::is_control) {
            return Err(Problem::value("name", name, "is not a name: 1 to 255 characters"));
        }
        Ok(Self {
            name: name.to_owned(),
            der: STANDARD.encode(der),
            projects: None,
        })
    }

    /// As PEM.
    pub(crate) fn pem(&self) -> String {
        let lines: Vec<&str> = (0..self.der.len())
            .step_by(64)
            .filter_map(|at| self.der.get(at..(at + 64).min(self.der.len())))
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }
}

/// All that are trusted, by fingerprint.
pub(crate) fn all(condo: &Condo) -> Result<Vec<(String, Certificate)>> {
    let kept = condo.store.kept(CERTIFICATE)?.into_iter();
    kept.map(|(fingerprint, text)| Ok((fingerprint, read(&text)?)))
        .collect()
}

/// How far a certificate is trusted.
pub(crate) fn reach(condo: &Condo, fingerprint: &str) -> Result<Reach> {
    let Some(text) = condo.store.kept(CERTIFICATE)?.remove(fingerprint) else {
        return Ok(Reach::Nothing);
    };
    Ok(reach_of(read::<Certificate>(&text)?.projects))
}

/// The only one whose fingerprint begins so, or that has this name.
pub(crate) fn find(condo: &Condo, wanted: &str) -> std::result::Result<(String, Certificate), Problem> {
    let mut found = all(condo)?;
    found.retain(|(fingerprint, certificate)| {
        (wanted.len() >= 6 && fingerprint.starts_with(wanted)) || certificate.name == wanted
    });
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Problem::missing("Certificate", wanted)),
        n => Err(Problem::bad(format!(
            "fingerprint: `{wanted}` means {n} certificates"
        ))),
    }
}

/// Trusts one that was not trusted.
pub(crate) fn trust(condo: &Condo, certificate: &Certificate, der: &[u8]) -> Result<String> {
    let fingerprint = fingerprint(der);
    let text = serde_json::to_string(certificate)?;
    condo.store.keep_new(CERTIFICATE, &fingerprint, &text)?;
    Ok(fingerprint)
}

/// Keeps what is said of one anew.
pub(crate) fn change(condo: &Condo, fingerprint: &str, certificate: &Certificate) -> Result<()> {
    condo
        .store
        .keep(CERTIFICATE, fingerprint, &serde_json::to_string(certificate)?)
}

/// Trusts one no more: from the next request on.
pub(crate) fn distrust(condo: &Condo, fingerprint: &str) -> Result<()> {
    condo.store.let_go(CERTIFICATE, fingerprint)
}

/// Gives a token out.
pub(crate) fn issue(condo: &Condo, name: &str, projects: Projects) -> Result<Given> {
    must_exist(condo, &projects)?;
    let name = name.to_owned();
    secrets::give(condo, TOKEN, Token { name, projects })
}

/// Takes a token back: the name that it was given for, and what for. Of several who bring the same, one gets in.
pub(crate) fn redeem(condo: &Condo, given: &str) -> Result<Option<(String, Projects)>> {
    let secret = secret_of(given).unwrap_or_else(|| given.to_owned());
    let token = secrets::take::<Token>(condo, TOKEN.0, &secret)?;
    Ok(token.map(|token| (token.name, token.projects)))
}

/// The secret in a token as it was given out, which some clients send whole.
fn secret_of(token: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(&STANDARD.decode(token).ok()?).ok()?;
    value["secret"].as_str().map(str::to_owned)
}

/// What a client is given to come in with: `lxc remote add NAME TOKEN`.
pub(crate) fn token(issued: &Given, name: &str, server: &str, addresses: &[String]) -> String {
    let value: Value = json!({
        "client_name": name, "fingerprint": server, "addresses": addresses,
        "secret": issued.secret, "expires_at": time(issued.expires),
    });
    STANDARD.encode(value.to_string())
}

/// A certificate as clients send it.
pub(crate) fn decode(text: &str) -> std::result::Result<Vec<u8>, Problem> {
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let der = STANDARD.decode(lines.map(str::trim).collect::<String>());
    let der = der.ok().filter(|der| der.len() > 64 && der[0] == 0x30);
    der.ok_or_else(|| Problem::value("certificate", "", "is not a certificate: base64 of X.509's DER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_as_base64_with_or_without_lines() {
        let der: Vec<u8> = [0x30].into_iter().chain(0..200).collect();
        let certificate = Certificate::new("me", &der).unwrap();
        assert_eq!(decode(&certificate.der).unwrap(), der);
        assert_eq!(decode(&certificate.pem()).unwrap(), der);
        for bad in ["", "x", "AAAA", "%%%"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        assert!(Certificate::new("", &der).is_err() && Certificate::new("a\nb", &der).is_err());
    }
}
