//! Names of images in registries: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, as Docker made them and the distribution specification
//! bounds them.

use std::fmt;

use crate::error::{Error, Result};
use crate::image::digest::Digest;

/// The registry of names without one.
const DEFAULT_HOST: &str = "docker.io";
/// Where that answers.
const DEFAULT_SERVER: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest path and tag, by the specification.
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as Docker does: the first part is a host if it has a dot or a port, or is `localhost`; a path of one part
    /// at Docker Hub is below `library`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |problem: &str| Error::invalid("image reference", text.escape_debug(), problem);
        let rest = text.strip_prefix("docker://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (rest, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DEFAULT_HOST, rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let host = if matches!(host, "index.docker.io" | DEFAULT_SERVER) {
            DEFAULT_HOST
        } else {
            host
        };
        if !is_host(host) {
            return Err(bad("has no host before its first `/`: HOST[:PORT]/PATH[:TAG]"));
        }
        if path.is_empty() || path.len() > LONGEST_PATH || !path.split('/').all(is_part) {
            return Err(bad(
                "has no path of lower case letters, digits, `.`, `_` and `-`: [HOST[:PORT]/]PATH[:TAG][@DIGEST]",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "has a tag that is not 1 to 128 of letters, digits, `.`, `_` and `-`",
            ));
        }
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        Ok(Self {
            host: host.to_owned(),
            path,
            tag: tag.map(ToOwned::to_owned),
            digest,
        })
    }

    /// The registry's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the registry answers.
    pub(super) fn server(&self) -> &str {
        if self.host == DEFAULT_HOST {
            DEFAULT_SERVER
        } else {
            &self.host
        }
    }

    /// The repository in it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What names the manifest: the digest, or the tag.
    pub(super) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// The digest it must have, if it was named by one.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the image is called here when nobody says: the last part of its path, with the tag unless that is `latest`.
    pub fn image_name(&self) -> String {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        match self.tag.as_deref() {
            None | Some(DEFAULT_TAG) => last.to_owned(),
            Some(tag) => format!("{last}-{}", tag.to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        match (&self.tag, &self.digest) {
            (None, None) => write!(f, ":{DEFAULT_TAG}"),
            (tag, digest) => {
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
            }
        }
    }
}

/// A host name or address with or without a port; an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let good_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !name.is_empty()
                && name.bytes().all(plain)
                && !name.starts_with(['-', '.'])
                && !name.contains("..")
        }
    };
    good_name && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n > 0))
}

/// A part of a path: letters and digits, with one of the separators `.`, `_`, `__` and any number of `-` between them.
fn is_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(|b| plain(*b))
        && bytes.last().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || b"._-".contains(b))
        && !part.contains("..")
}

fn is_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= LONGEST_TAG
        && bytes.first().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || b".-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, whole, name) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine"),
            ("debian:12", "docker.io/library/debian:12", "debian-12"),
            ("me/app", "docker.io/me/app:latest", "app"),
            ("localhost/app:1.0_B", "localhost/app:1.0_B", "app-1.0_b"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x", "b-x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "a"),
            ("docker://ghcr.io/a/b", "ghcr.io/a/b:latest", "b"),
            (
                "index.docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine",
            ),
            (&format!("q.io/a@{digest}"), &format!("q.io/a@{digest}"), "a"),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!(
                (read.to_string(), read.image_name()),
                (whole.to_owned(), name.to_owned()),
                "{text}"
            );
            crate::image::validate_name(&read.image_name()).unwrap();
        }
        let both = Reference::parse(&format!("a:1@{digest}")).unwrap();
        assert_eq!((both.version(), both.server()), (digest, DEFAULT_SERVER));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a b",
            "a:",
            "a:b:c",
            "a@sha256:1",
            "a/../b",
            "a..b",
            "-a",
            "x.io/",
            "x.io:0/a",
            "x.io:99999/a",
            "u@x.io/a",
            "x.io/a?b",
            "a#b",
            "a%2e",
            "a\nb",
            "http://x.io/a",
            "[::1/a",
            "x..io/a",
            &long,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
