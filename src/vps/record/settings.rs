//! What the operator has set for the whole host, in `condo.toml`.
//!
//! It is read by whoever needs it, at every command: there is nothing to reload. A file that is not there sets nothing.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::instance::Condo;
use super::size;
use crate::error::{During, Error, Result};
use crate::files;
use crate::image::registry::Registries;
use crate::storage::Backend;

/// All of `condo.toml`: a table for each subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `[storage]`
    pub storage: Storage,
    /// `[registries."HOST[:PORT]"]`, of which images are pulled.
    pub registries: Registries,
}

/// How VPSs' disks are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// What keeps the disks of new VPSs; without, what suits the file system.
    pub backend: Option<Backend>,
    /// How much fits on the disks of new VPSs for which `--disk` does not say.
    #[serde(deserialize_with = "optional_size")]
    pub size: Option<u64>,
}

/// A size as it is written on the command line.
fn optional_size<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<u64>, D::Error> {
    let text = String::deserialize(value)?;
    let bytes = size::parse("size", &text).map_err(serde::de::Error::custom)?;
    Ok(Some(bytes))
}

impl Condo {
    /// The settings of this instance.
    pub(in crate::vps) fn settings(&self) -> Result<Settings> {
        read(&self.folders.settings())
    }
}

/// Reads a file of settings; all is as by default when there is none.
///
/// # Errors
/// [`Error::Invalid`] with the file, the line and what is wrong in it: also a key that nobody knows.
pub(super) fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    let text = match files::read_text(path) {
        Err(e) if e.is_gone() => return Ok(T::default()),
        other => other?,
    };
    parse(&text).during(|| format!("read `{}`", path.display()))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        let words = text.lines().nth(line).unwrap_or_default().trim();
        let problem = format!("is wrong: {}", e.message().replace('\n', ", "));
        Error::invalid(format!("line {}", line + 1), words, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read() {
        let settings: Settings = parse("# mine\n[storage]\nbackend = \"file\"\nsize = \"20G\"\n").unwrap();
        let expected = Storage {
            backend: Some(Backend::File),
            size: Some(20 << 30),
        };
        assert_eq!(settings.storage, expected);
        assert_eq!(parse::<Settings>("").unwrap(), Settings::default());
        let mirrored: Settings =
            parse("[registries.\"docker.io\"]\nmirrors = [\"http://a:5000\"]\n[registries.\"b:1\"]\ninsecure = true\n").unwrap();
        assert_eq!(mirrored.registries["docker.io"].mirrors, ["http://a:5000"]);
        assert!(mirrored.registries["b:1"].insecure && mirrored.registries["b:1"].ca.is_none());
        let missing = std::env::temp_dir().join(format!("condo-no-settings-{}", std::process::id()));
        assert_eq!(read::<Settings>(&missing).unwrap(), Settings::default());
    }

    #[test]
    fn what_nobody_knows_is_refused_with_its_line() {
        for (text, wanted) in [
            (
                "\n[storge]\n",
                "line 2: `[storge]` is wrong: unknown field `storge`",
            ),
            (
                "[storage]\nbakend = \"folder\"\n",
                "line 2: `bakend = \"folder\"` is wrong: unknown field `bakend`",
            ),
            (
                "[storage]\nbackend = \"zfs\"\n",
                "line 2: `backend = \"zfs\"` is wrong: unknown variant `zfs`",
            ),
            ("[storage]\nbackend = 3\n", "line 2: `backend = 3` is wrong: "),
            (
                "[storage]\nsize = \"big\"\n",
                "line 2: `size = \"big\"` is wrong: size: `big` is not a size",
            ),
            ("[storage\n", "line 1: `[storage` is wrong: "),
        ] {
            let said = parse::<Settings>(text).unwrap_err().to_string();
            assert!(said.starts_with(wanted) && said.lines().count() == 1, "{said}");
        }
    }
}
