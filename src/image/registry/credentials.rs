//! Who we are to a registry: as asked for, or as `docker login` and `podman login` left it in a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::error::{During, Error, Result};
use crate::files;

/// The key under which Docker files what is for Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The user name that goes with an identity token, by the protocol of credential helpers.
const TOKEN_USER: &str = "<token>";

/// A user and a password. Neither is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// `config.json` of Docker and `auth.json` of Podman.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What a credential helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// A user with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }

    /// Those for a registry that a file has: the one named, or the first there is of `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG`
    /// and `~/.docker/config.json`.
    ///
    /// # Errors
    /// What keeps a named file, or one that is there, from being read.
    pub fn find(registry: &str, named: Option<&Path>) -> Result<Option<Self>> {
        let places = named.map_or_else(usual_places, |path| vec![path.to_owned()]);
        for path in places {
            let text = match files::read(&path) {
                Err(e) if e.is_gone() && named.is_none() => continue,
                other => other?,
            };
            let file: AuthFile =
                serde_json::from_slice(&text).during(|| format!("read `{}`", path.display()))?;
            let found = file
                .of(registry)
                .during(|| format!("read `{}`", path.display()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(super) fn basic(&self) -> String {
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }

    /// The identity token, if it is one and no password.
    pub(super) fn identity_token(&self) -> Option<&str> {
        (self.user == TOKEN_USER).then_some(self.password.as_str())
    }
}

fn usual_places() -> Vec<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let docker = of("DOCKER_CONFIG").or_else(|| of("HOME").map(|home| home.join(".docker")));
    let docker = docker.map(|dir| dir.join("config.json"));
    of("REGISTRY_AUTH_FILE").into_iter().chain(docker).collect()
}

impl AuthFile {
    fn of(&self, registry: &str) -> Result<Option<Credentials>> {
        let key = if registry == "docker.io" {
            DOCKER_HUB
        } else {
            registry
        };
        if let Some(helper) = self.cred_helpers.get(registry).or(self.creds_store.as_ref()) {
            return ask(helper, key);
        }
        // Podman files by plain names, Docker sometimes with a scheme and a path.
        let plain = |key: &str| {
            let key = key.trim_start_matches("https://").trim_start_matches("http://");
            key.split('/').next().unwrap_or_default().to_owned()
        };
        let auth = self
            .auths
            .get(key)
            .or_else(|| self.auths.get(registry))
            .or_else(|| {
                let same = self.auths.iter().find(|(other, _)| plain(other) == registry);
                same.map(|(_, auth)| auth)
            });
        auth.map_or(Ok(None), Auth::read)
    }
}

impl Auth {
    fn read(&self) -> Result<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::new(TOKEN_USER, token)));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else {
            return Ok(None);
        };
        let bad = || Error::Corrupt("`auth` is not USER:PASSWORD in base64; log in again".into());
        let text = BASE64_STANDARD.decode(auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // Docker pads with zero bytes.
        Ok(Some(Credentials::new(user, password.trim_end_matches('\0'))))
    }
}

/// Asks a credential helper, a program of the user's: `docker-credential-NAME get`.
fn ask(helper: &str, key: &str) -> Result<Option<Credentials>> {
    if helper.contains('/') {
        return Err(Error::invalid(
            "credential helper",
            helper,
            "is not the name of one",
        ));
    }
    let program = format!("docker-credential-{helper}");
    let run = || -> Result<Option<Credentials>> {
        let mut child = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(key.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            // It knows nobody: the registry may let strangers in.
            return Ok(None);
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)?;
        Ok(Some(Credentials::new(answer.username, answer.secret)))
    };
    run().during(|| format!("ask `{program}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_docker_and_podman_are_read() {
        let file: AuthFile = serde_json::from_str(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"q.io":{"auth":"YTpiOmM="},
                "https://r.io/v2/":{"identitytoken":"t"},"empty.io":{},"bad.io":{"auth":"!"}},"HttpHeaders":{}}"#,
        )
        .unwrap();
        assert_eq!(file.of("docker.io").unwrap(), Some(Credentials::new("u", "p")));
        assert_eq!(file.of("q.io").unwrap(), Some(Credentials::new("a", "b:c")));
        assert_eq!(file.of("r.io").unwrap().unwrap().identity_token(), Some("t"));
        assert_eq!(file.of("empty.io").unwrap(), None);
        assert_eq!(file.of("other.io").unwrap(), None);
        assert!(file.of("bad.io").is_err());
    }

    #[test]
    fn passwords_are_not_shown() {
        let one = Credentials::new("user", "secret");
        assert!(!format!("{one:?}").contains("secret") && !format!("{one:?}").contains("user"));
        assert_eq!(one.basic(), "Basic dXNlcjpzZWNyZXQ=");
    }
}
