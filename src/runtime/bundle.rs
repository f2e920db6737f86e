//! The bundle on disk: `config.json` and the root filesystem it names.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde_json::Value;

use super::{spelling, zero};
use crate::error::{During, Error, Result};
use crate::files;
use crate::process::capabilities;

/// A bundle as read.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Absolute path of the directory.
    pub path: PathBuf,
    /// The parsed `config.json`.
    pub spec: Spec,
    /// `config.json` but for the spelling of its keys ([`spelling`]), kept in the state for later `exec`s.
    pub raw: Vec<u8>,
}

impl Bundle {
    /// Reads the bundle at `path` (`"."` where the caller named none).
    pub fn load(path: &Path) -> Result<Self> {
        let absolute = path
            .canonicalize()
            .during(|| format!("bundle `{}`", path.display()))?;
        let config = absolute.join("config.json");
        let raw = match files::read(&config) {
            Err(e) if e.is_gone() => {
                return Err(Error::NotFound {
                    kind: "JSON specification file",
                    name: config.display().to_string(),
                });
            }
            other => other?,
        };
        let raw = spelling::correct(&raw).into_owned();
        let spec = parse(&raw).during(|| format!("`{}`", config.display()))?;
        Ok(Self {
            path: absolute,
            spec,
            raw,
        })
    }

    /// The absolute path of the root filesystem, which must be a directory and not a symbolic link to one.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let root = self
            .spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::invalid("root", "", "is required"))?;
        let path = self.path.join(root.path());
        let refuse = |problem: &str| Err(Error::invalid("root.path", path.display(), problem));
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => refuse("must not be a symbolic link"),
            Ok(found) if !found.is_dir() => refuse("must be a directory"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => refuse("does not exist"),
            Err(e) => Err(e).during(|| format!("root.path: `{}`", path.display())),
            Ok(_) => path
                .canonicalize()
                .during(|| format!("root.path: `{}`", path.display())),
        }
    }
}

/// Parses a `config.json`.
///
/// What is not as the types want it is read as other runtimes read it (`zero`). Capabilities that this version does not know are left out with a warning, as the spec asks; the type would refuse the whole.
///
/// # Errors
/// What is no JSON or not of the spec's types, and a NUL byte anywhere but in `annotations`: paths and names end at it in the
/// kernel, which would act on another name than the one that was checked.
pub fn parse(raw: &[u8]) -> Result<Spec> {
    refuse_nul("", raw)?;
    let strict = serde_json::from_slice::<Spec>(raw);
    match strict {
        Ok(spec) if !mentions(raw, b"\"pids\"") => Ok(spec),
        _ => {
            let mut value: Value = serde_json::from_slice(raw)?;
            zero::fill(&mut value);
            value.get_mut("process").into_iter().for_each(adapt);
            // The strict reader knows the line.
            serde_json::from_value(value).map_err(|e| strict.err().unwrap_or(e).into())
        }
    }
}

/// Parses a stand-alone `process` object (`exec --process`).
///
/// # Errors
/// As [`parse`].
pub fn parse_process(raw: &[u8]) -> Result<Process> {
    let raw = &*spelling::correct(raw);
    refuse_nul("process", raw)?;
    match serde_json::from_slice::<Process>(raw) {
        Ok(process) => Ok(process),
        Err(first) => {
            let mut value: Value = serde_json::from_slice(raw)?;
            zero::fill_process(&mut value);
            adapt(&mut value);
            serde_json::from_value(value).map_err(|_| first.into())
        }
    }
}

fn mentions(raw: &[u8], word: &[u8]) -> bool {
    raw.windows(word.len()).any(|piece| piece == word)
}

/// Names the field with a NUL byte, which JSON can only write as an escape.
fn refuse_nul(field: &str, raw: &[u8]) -> Result<()> {
    if !mentions(raw, b"\\u0000") {
        return Ok(());
    }
    match find_nul(field, &serde_json::from_slice(raw)?) {
        Some((field, text)) => Err(Error::invalid(
            field,
            text.escape_debug(),
            "must not contain a NUL byte",
        )),
        None => Ok(()),
    }
}

fn find_nul(field: &str, value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(text) if text.contains('\0') => Some((field.to_owned(), text.clone())),
        Value::Array(list) => {
            let mut entries = list.iter().enumerate();
            entries.find_map(|(index, entry)| find_nul(&format!("{field}[{index}]"), entry))
        }
        Value::Object(object) => object
            .iter()
            .find_map(|(key, entry)| match (field, key.as_str()) {
                ("", "annotations") => None,
                _ if key.contains('\0') => Some((field.to_owned(), key.clone())),
                ("", key) => find_nul(key, entry),
                (field, key) => find_nul(&format!("{field}.{key}"), entry),
            }),
        _ => None,
    }
}

/// Makes a `process` object one that the type reads.
fn adapt(process: &mut Value) {
    drop_unknown_capabilities(process);
    rename_scheduler_flags(process);
    tidy_affinity(process);
}

/// The type has two of the spec's names otherwise.
fn rename_scheduler_flags(process: &mut Value) {
    let flags = process
        .pointer_mut("/scheduler/flags")
        .and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = name.into();
    }
}

/// To the spec an empty list of processors is none, and blanks and commas too many do no harm; the type refuses them.
fn tidy_affinity(process: &mut Value) {
    let lists = process
        .pointer_mut("/execCPUAffinity")
        .and_then(Value::as_object_mut);
    let Some(lists) = lists else { return };
    for list in lists.values_mut() {
        if let Some(text) = list.as_str() {
            let parts: Vec<&str> = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .collect();
            *list = parts.join(",").into();
        }
    }
    lists.retain(|_, list| list.as_str() != Some(""));
}

/// Removes names the kernel interface of this version does not have.
fn drop_unknown_capabilities(process: &mut Value) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else {
        return;
    };
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        names.retain(|name| {
            let known = name
                .as_str()
                .is_some_and(|name| capabilities::bit(name).is_some());
            if !known {
                log::warn!("process.capabilities: ignoring unknown capability {name}");
            }
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_capability_is_left_out_and_the_rest_kept() {
        let json = br#"{"ociVersion":"1.3.0","process":{"user":{},"args":["a"],"cwd":"/",
            "capabilities":{"bounding":["CAP_KILL","CAP_FROM_THE_FUTURE"]}}}"#;
        let spec = parse(json).unwrap();
        let capabilities = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn the_spec_s_own_words_are_read() {
        let process = parse_process(
            br#"{"user":{},"args":["a"],"cwd":"/","execCPUAffinity":{"initial":"","final":" 0,"},"scheduler":{
            "policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}"#,
        )
        .unwrap();
        assert_eq!(
            process
                .scheduler()
                .as_ref()
                .unwrap()
                .flags()
                .as_ref()
                .unwrap()
                .len(),
            2
        );
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.initial().as_deref(), None);
        assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("0"));
    }

    #[test]
    fn a_nul_byte_is_refused_by_field() {
        let refused = |json: &str| parse(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            refused(r#"{"ociVersion":"1.3.0","mounts":[{"destination":"/a"},{"destination":"/b\u0000/c"}]}"#),
            "mounts[1].destination: `/b\\0/c` must not contain a NUL byte"
        );
        let key = r#"{"ociVersion":"1.3.0","linux":{"sysctl":{"net.\u0000":"1"}}}"#;
        assert!(
            refused(key).starts_with("linux.sysctl: `net.\\0`"),
            "{}",
            refused(key)
        );
        let process = parse_process(br#"{"user":{},"args":["a"],"cwd":"/\u0000"}"#).unwrap_err();
        assert!(process.to_string().starts_with("process.cwd: "), "{process}");
        parse(br#"{"ociVersion":"1.3.0","annotations":{"a":"\u0000"},"hostname":"\\u0000"}"#).unwrap();
    }

    #[test]
    fn malformed_json_names_the_place() {
        let e = parse(b"{\"ociVersion\": 7}").unwrap_err().to_string();
        assert!(e.contains("line 1"), "{e}");
    }
}
