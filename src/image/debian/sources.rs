//! Which archive mmdebstrap shall install from: the Debian mirrors this host uses itself, and nothing else it uses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The key of the Debian archive. Every source is bound to it, so that a foreign archive that looks like Debian's fails.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian's releases; a mirror carries them all, so one that this host uses for another release will do.
const RELEASES: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// One suite of a mirror: an image gets the release, its updates and its security fixes where the host has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) uri: String,
    pub(super) suite: String,
}

/// The sources for a release, from `/etc/apt`.
///
/// # Errors
/// [`Error::Unsupported`] on a host that installs nothing from a Debian archive, or lacks its keyring.
pub(super) fn of_host(release: &str) -> Result<Vec<Source>> {
    if !Path::new(KEYRING).exists() {
        let why = format!("`{KEYRING}` is missing; install it: `apt-get install debian-archive-keyring`");
        return Err(Error::unsupported("installing Debian", why));
    }
    let mut found = BTreeSet::new();
    for (text, is_deb822) in texts() {
        let entries = if is_deb822 { stanzas(&text) } else { lines(&text) };
        found.extend(entries.iter().flat_map(|e| e.sources(release)));
    }
    if found.iter().any(|s| s.suite == release) {
        return Ok(found.into_iter().collect());
    }
    Err(Error::unsupported(
        "installing Debian",
        "`/etc/apt` names no Debian archive; add one to `/etc/apt/sources.list`, or import an archive of a root filesystem",
    ))
}

/// The files apt reads, and whether each is in deb822 format. One that cannot be read is one that apt could not either.
fn texts() -> Vec<(String, bool)> {
    let mut paths = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        paths.extend(dir.flatten().map(|entry| entry.path()));
    }
    let mut texts = Vec::new();
    for path in paths {
        let is_deb822 = match path.extension().and_then(|e| e.to_str()) {
            Some("list") => false,
            Some("sources") => true,
            _ => continue,
        };
        texts.extend(files::read_text(&path).ok().map(|text| (text, is_deb822)));
    }
    texts
}

/// An entry of `sources.list(5)`.
#[derive(Debug, Default)]
struct Entry {
    types: Vec<String>,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    disabled: bool,
}

impl Entry {
    /// Its Debian suites as those of `release`.
    fn sources(&self, release: &str) -> Vec<Source> {
        let has = |list: &[String], word: &str| list.iter().any(|w| w == word);
        // Archives of others are signed by others, and rarely call their component `main` and their suite like a release.
        let debian = self
            .signed_by
            .as_ref()
            .is_none_or(|key| key.contains("debian-archive-"));
        if self.disabled || !debian || !has(&self.types, "deb") || !has(&self.components, "main") {
            return Vec::new();
        }
        let suffixes: Vec<&str> = self.suites.iter().filter_map(|s| suffix(s)).collect();
        let known = |uri: &&String| {
            ["http://", "https://", "file:/"]
                .iter()
                .any(|s| uri.starts_with(s))
        };
        self.uris
            .iter()
            .filter(known)
            .flat_map(|uri| suffixes.iter().map(move |suffix| (uri, suffix)))
            .map(|(uri, suffix)| Source {
                uri: uri.trim_end_matches('/').to_owned(),
                suite: format!("{release}{suffix}"),
            })
            .collect()
    }
}

/// What follows the release in the name of a Debian suite that every system wants; nothing for other suites.
fn suffix(suite: &str) -> Option<&'static str> {
    RELEASES
        .iter()
        .find_map(|release| match suite.strip_prefix(release)? {
            "" => Some(""),
            "-updates" => Some("-updates"),
            "-security" => Some("-security"),
            _ => None,
        })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

/// The one-line format: `deb [ option=value … ] uri suite component …`.
fn lines(text: &str) -> Vec<Entry> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let (kind, rest) = line.split_once(char::is_whitespace)?;
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut rest = words(rest).into_iter();
            Some(Entry {
                types: vec![kind.to_owned()],
                signed_by: options
                    .split_whitespace()
                    .find_map(|o| o.strip_prefix("signed-by="))
                    .map(Into::into),
                uris: vec![rest.next()?],
                suites: vec![rest.next()?],
                components: rest.collect(),
                disabled: false,
            })
        })
        .collect()
}

/// The deb822 format: stanzas of `Field: value`, continued by indented lines.
fn stanzas(text: &str) -> Vec<Entry> {
    let mut all = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = all.last_mut() else { continue };
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    all.iter()
        .map(|stanza| {
            let field = |name: &str| {
                stanza
                    .iter()
                    .find(|(f, _)| f == name)
                    .map(|(_, value)| value.as_str())
            };
            let list = |name| words(field(name).unwrap_or_default());
            Entry {
                types: list("types"),
                uris: list("uris"),
                suites: list("suites"),
                components: list("components"),
                signed_by: field("signed-by").map(Into::into),
                disabled: field("enabled") == Some("no"),
            }
        })
        .collect()
}

/// The sources as a `debian.sources` file for the image. A password in a mirror's address is the host's, not the tenant's.
pub(super) fn deb822(sources: &[Source]) -> String {
    sources
        .iter()
        .map(|source| {
            let uri = without_credentials(&source.uri);
            let suite = &source.suite;
            format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn without_credentials(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# a comment
URIs: http://mirror.example/debian/
Suites: trixie trixie-updates trixie-backports
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://packages.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/other.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
";

    fn found(entries: &[Entry]) -> Vec<(String, String)> {
        let sources = entries.iter().flat_map(|e| e.sources("bookworm"));
        sources.map(|s| (s.uri, s.suite)).collect()
    }

    #[test]
    fn only_debian_suites_count_and_become_those_of_the_release() {
        let uri = "http://mirror.example/debian".to_owned();
        assert_eq!(
            found(&stanzas(DEB822)),
            [(uri.clone(), "bookworm".into()), (uri, "bookworm-updates".into())]
        );
    }

    #[test]
    fn the_one_line_format() {
        let text = "deb http://a.example/debian bookworm main # here\n\
            deb-src http://a.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k/other.gpg] http://b.example bookworm main\n\
            deb http://c.example nodistro main\n# deb http://d.example/debian bookworm main\n\
            deb [signed-by=/k/debian-archive-x.gpg] http://s.example/s bookworm-security main\n";
        assert_eq!(
            found(&lines(text)),
            [
                ("http://a.example/debian".into(), "bookworm".into()),
                ("http://s.example/s".into(), "bookworm-security".into())
            ]
        );
    }

    #[test]
    fn the_image_does_not_learn_the_hosts_password() {
        let source = Source {
            uri: "https://user:pw@m.example/debian".into(),
            suite: "bookworm".into(),
        };
        let text = deb822(&[source]);
        assert!(text.contains("URIs: https://m.example/debian\n"), "{text}");
    }
}
