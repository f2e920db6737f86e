//! `state`, `list` and `--version`.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;

use super::args;
use super::output::print;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::state;
use crate::runtime::status::Status;

/// What `state` and `list --format json` show, in runc's shape.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: Status,
    bundle: Cow<'a, str>,
    rootfs: Cow<'a, str>,
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a std::collections::BTreeMap<String, String>>,
    owner: String,
}

fn shown<'a>(container: &'a Container, host: &Host) -> Shown<'a> {
    let state = container.state();
    let status = container.status(host);
    let pid = state
        .init
        .filter(|_| status != Status::Stopped)
        .map_or(0, |init| init.pid);
    Shown {
        oci_version: &state.oci_version,
        id: &state.id,
        pid,
        status,
        bundle: state.bundle.to_string_lossy(),
        rootfs: state.rootfs.to_string_lossy(),
        created: &state.created,
        annotations: Some(&state.annotations).filter(|a| !a.is_empty()),
        owner: user_name(state.owner),
    }
}

/// The name of a host user, read from the file: a static program has no name service.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_string())
    });
    found.unwrap_or_else(|| format!("#{uid}"))
}

/// `state`
pub(super) fn state(host: &Host, root: &Path, args: &args::Id) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    print(&format!(
        "{}\n",
        serde_json::to_string_pretty(&shown(&container, host))?
    ))
}

/// `list`
pub(super) fn list(host: &Host, root: &Path, args: &args::List) -> Result<u8> {
    let found: Vec<Container> = state::ids(root)?
        .iter()
        .filter_map(|id| Container::load(root, id).ok())
        .collect();
    let rows: Vec<Shown<'_>> = found.iter().map(|c| shown(c, host)).collect();
    if args.quiet {
        return print(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>());
    }
    match args.format.as_str() {
        "json" if rows.is_empty() => print("null\n"),
        "json" => print(&format!("{}\n", serde_json::to_string(&rows)?)),
        "table" => print(&table(&rows)),
        other => Err(Error::invalid(
            "--format",
            other,
            "is not a format: use `table` or `json`",
        )),
    }
}

/// Columns at least 12 wide and 3 apart, as runc's tabwriter makes them.
fn table(rows: &[Shown<'_>]) -> String {
    let mut lines = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    lines.extend(rows.iter().map(|row| {
        let bundle = row.bundle.to_string();
        [
            row.id.into(),
            row.pid.to_string(),
            row.status.to_string(),
            bundle,
            row.created.into(),
            row.owner.clone(),
        ]
    }));
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len() + 3)
            .max()
            .unwrap_or(0)
            .max(12)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&line[5]);
        text.push('\n');
    }
    text
}

/// `--version`
pub(super) fn version() -> Result<u8> {
    let commit = option_env!("CONDO_COMMIT").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    let name = super::help::name(std::env::args_os().next().as_ref());
    print(&format!(
        "{name} version {version}\ncommit: {commit}\nspec: {}\n",
        super::spec::VERSION
    ))
}
