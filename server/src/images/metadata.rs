//! `metadata.yaml`: what LXD's images say of themselves.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use condo::image::{Archive, Limits, Tarball};
use serde::Deserialize;
use serde_json::Value;

use crate::keys::Keys;
use crate::reply::Problem;

/// The file's name, at the top of an archive.
const NAME: &str = "metadata.yaml";
/// The most bytes of it.
const MOST: u64 = 64 << 10;
/// The most bytes of an archive in which it is looked for.
const MOST_ARCHIVE: u64 = 64 << 20;

/// The part of it that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    properties: std::collections::BTreeMap<String, Value>,
}

/// The text out of an archive that holds it, and perhaps templates.
pub(super) fn of_archive(archive: File) -> Result<String, Problem> {
    let limits = Limits {
        bytes: MOST_ARCHIVE,
        ..Limits::default()
    };
    let mut silent = |_: condo::image::Progress<'_>| {};
    let reader = Archive::from_reader("metadata", archive).decode(limits.bytes, &mut silent)?;
    let mut tarball = Tarball::new(reader, limits);
    while let Some(entry) = tarball.next()? {
        if entry.path == Path::new(NAME) {
            let mut text = String::new();
            let read = tarball.by_ref().take(MOST).read_to_string(&mut text);
            read.map_err(|_| Problem::value("metadata", NAME, "is not text"))?;
            return Ok(text);
        }
    }
    Err(Problem::value("metadata", NAME, "is not in the archive"))
}

/// The properties in it; none where it is not what it should be.
pub(super) fn properties(text: &str) -> Option<Keys> {
    let read: Metadata = serde_saphyr::from_str(text).ok()?;
    let words = read
        .properties
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) => Some((key, text)),
            Value::Number(number) => Some((key, number.to_string())),
            Value::Bool(truth) => Some((key, truth.to_string())),
            _ => None,
        });
    Some(words.collect::<Keys>()).filter(|some| !some.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_words() {
        let text = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  os: Debian\n  release: 12\n  description: |-\n    two\n    lines\ntemplates: {}\n";
        let found = properties(text).unwrap();
        assert_eq!(
            (found["os"].as_str(), found["release"].as_str()),
            ("Debian", "12")
        );
        assert_eq!(found["description"], "two\nlines");
        assert_eq!(
            properties(r#"{"properties":{"os":"condo"}}"#).unwrap()["os"],
            "condo"
        );
        for bad in ["", "properties: [", "- a", "a: &a [*a]", "properties: 7"] {
            assert!(properties(bad).is_none(), "{bad}");
        }
    }
}
