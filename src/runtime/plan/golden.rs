//! Every field of `config.json` and what becomes of it: `tests/data/config/*.json`, one row a field, against the plan.
//!
//! ```text
//!  { "field": "mounts[].source",  `[]` for any entry of a list, `*` for any key of a map
//!    "config": {…},               merged into the least config there is; has the field
//!    "host": "v1",                on a host with cgroup v1 instead of v2
//!    "plan": ["…"],               what the plan has then, as `Debug` writes it, and has not without the field; or
//!    "refused": "…",              how the error begins: the field and its value; or
//!    "elsewhere": "…"             who else looks at it; or
//!    "ignored": "…",              why it changes nothing; and where there is something to see of it:
//!    "seen": ["…"],               the root tests that fail if the kernel did not get it, as their runner lists them; or
//!    "unseen": "…" }              why no kernel of the tests can show it
//! ```
//! The table of fields in `docs/src/oci/config.md` and the names of the root tests are held against the same rows by `tests/docs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::host::{CgroupLayout, Hierarchy};
use crate::runtime::bundle;

mod trace;

/// One line of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    field: String,
    config: Option<Value>,
    #[serde(default)]
    host: String,
    plan: Option<Vec<String>>,
    refused: Option<String>,
    elsewhere: Option<String>,
    ignored: Option<String>,
    seen: Option<Vec<String>>,
    unseen: Option<String>,
}

fn rows() -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    let read = |file: &PathBuf| -> Vec<Row> {
        serde_json::from_slice(&std::fs::read(file).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    files.iter().flat_map(read).collect()
}

pub(super) fn host(name: &str) -> Host {
    let v1 = "cpu cpuset memory blkio pids hugetlb devices rdma net_cls net_prio".split(' ');
    Host::imagined(match name {
        "v1" => CgroupLayout::Hybrid {
            v1: v1
                .map(|name| Hierarchy {
                    controllers: vec![name.into()],
                    mount: Path::new("/nonexistent").join(name),
                })
                .collect(),
            unified: None,
        },
        _ => CgroupLayout::Unified("/nonexistent".into()),
    })
}

/// Nothing that could be left out.
pub(super) fn least() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }] },
    })
}

/// Objects are merged, everything else is replaced (RFC 7396, without removal).
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

pub(super) fn plan(config: &Value, host: &Host) -> Result<Plan> {
    let raw = serde_json::to_vec(config)?;
    let bundle = Bundle {
        path: "/bundle".into(),
        spec: bundle::parse(&raw)?,
        raw,
    };
    let id = Id::new("web")?;
    Plan::on_rootfs(&bundle, "/bundle/rootfs".as_ref(), &id, host, Choices::default())
}

/// The value with everything that a field's path leads to removed; says whether there was any.
fn remove(value: &mut Value, path: &str) -> bool {
    let (step, rest) = match path.find(['.', '[']) {
        Some(0) if path.starts_with("[]") => {
            let rest = path[2..].trim_start_matches('.');
            let list = value.as_array_mut().into_iter().flatten();
            return list
                .map(|entry| remove(entry, rest))
                .filter(|found| *found)
                .count()
                > 0;
        }
        Some(at) => (&path[..at], path[at..].trim_start_matches('.')),
        None => (path, ""),
    };
    let Some(object) = value.as_object_mut() else {
        return false;
    };
    let keys: Vec<String> = object
        .keys()
        .filter(|key| step == "*" || step == *key)
        .cloned()
        .collect();
    keys.iter().fold(false, |found, key| match rest {
        "" | "[]" => object.remove(key).is_some() || found,
        rest => object.get_mut(key).is_some_and(|below| remove(below, rest)) || found,
    })
}

#[test]
fn every_row_is_what_the_plan_makes_of_it() {
    let mut wrong = Vec::new();
    for row in rows() {
        let host = host(&row.host);
        let mut config = least();
        merge(&mut config, row.config.as_ref().unwrap_or(&json!({})));
        let made = plan(&config, &host);
        let mut without = config.clone();
        let there = row.config.is_none() || remove(&mut without, &row.field);
        if !there {
            wrong.push(format!("{}: is not in its own config", row.field));
        }
        wrong.extend(complaints(&row, made, plan(&without, &host)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_field_with_an_effect_is_seen_or_says_why_not() {
    let is_right = |row: &Row| {
        let has_effect = row.plan.is_some() || row.elsewhere.is_some();
        match (has_effect, &row.seen, &row.unseen) {
            (true, Some(tests), None) => !tests.is_empty(),
            (true, None, Some(_)) | (false, None, None) => true,
            _ => false,
        }
    };
    let wrong = rows().into_iter().filter(|row| !is_right(row));
    let wrong: Vec<String> = wrong.map(|row| row.field).collect();
    assert!(
        wrong.is_empty(),
        "not `seen` or `unseen` as they should be: {wrong:#?}"
    );
}

fn complaints(row: &Row, made: Result<Plan>, without: Result<Plan>) -> Vec<String> {
    let field = &row.field;
    match (
        made,
        &row.plan,
        &row.refused,
        row.ignored.as_ref().xor(row.elsewhere.as_ref()),
    ) {
        (Ok(made), Some(parts), None, None) => {
            let (made, without) = (
                format!("{made:?}"),
                without.map(|p| format!("{p:?}")).unwrap_or_default(),
            );
            let missing = parts
                .iter()
                .filter(|p| !made.contains(*p))
                .map(|p| format!("{field}: no `{p}` in {made}"));
            let idle = parts.iter().all(|p| without.contains(p));
            missing
                .chain(idle.then(|| format!("{field}: the plan is the same without it")))
                .collect()
        }
        (Err(e), None, Some(start), None) if e.to_string().starts_with(start.as_str()) => Vec::new(),
        (Ok(made), None, None, Some(_)) => {
            let same = without.is_ok_and(|p| format!("{p:?}") == format!("{made:?}"));
            (!same)
                .then(|| format!("{field}: does change the plan"))
                .into_iter()
                .collect()
        }
        (Err(e), ..) => vec![format!("{field}: {e}")],
        (Ok(_), ..) => vec![format!("{field}: is accepted, or the row has not one verdict")],
    }
}

#[test]
fn every_field_of_the_types_has_its_row() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().map(|row| row.field.as_str()).collect();
    assert_eq!(named.len(), rows.len(), "a field has two rows");
    let fields = trace::fields::<Spec>();
    let other_systems = |field: &&String| {
        let top = field.split('.').next().unwrap();
        ["solaris", "windows", "vm", "zos"].contains(&top)
    };
    let missing: Vec<_> = fields
        .iter()
        .filter(|f| !other_systems(f) && !named.contains(f.as_str()))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:#?}");
}
