//! `update`: new limits for a container that runs.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::args::Update;
use super::numbers;
use crate::error::{During, Error, Result};
use crate::files;
use crate::host::Host;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::spelling;
use crate::vps::run::adopt::{self, processors};

/// `update`
pub(super) fn update(host: &Host, root: &Path, args: &Update) -> Result<u8> {
    let container = Container::load(root, &Id::new(&args.id)?)?;
    let wanted = match &args.resources {
        Some(source) => document(source)?,
        None => from_flags(args)?,
    };
    let schemata: Vec<String> = [&args.l3_cache_schema, &args.mem_bw_schema]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if !schemata.is_empty() {
        container.reallocate(&schemata)?;
    }
    if wanted.as_object().is_some_and(Map::is_empty) {
        return Ok(0);
    }
    let named = wanted["cpu"]["cpus"]
        .as_str()
        .is_some_and(|list| !list.is_empty());
    let ours = !named && adopt::is_adopted(&container) && processors::are_ours(host, &container);
    container.update(host, wanted)?;
    if ours {
        processors::fit(host, &container);
    }
    Ok(0)
}

/// `LinuxResources` as JSON, from a file or from standard input (`-`).
fn document(source: &Path) -> Result<Value> {
    let raw = if source == Path::new("-") {
        let mut raw = Vec::new();
        std::io::stdin()
            .read_to_end(&mut raw)
            .during(|| "read the resources from standard input")?;
        raw
    } else {
        files::read(source)?
    };
    let field = || format!("--resources `{}`", source.display());
    match serde_json::from_slice(&spelling::correct(&raw)).during(field)? {
        Value::Null => Ok(Map::new().into()),
        object @ Value::Object(_) => Ok(object),
        _ => Err(Error::invalid(
            "--resources",
            source.display(),
            "must hold a JSON object of limits",
        )),
    }
}

fn from_flags(args: &Update) -> Result<Value> {
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        log::warn!(
            "--kernel-memory and --kernel-memory-tcp have no effect: the kernel has no such limits any more"
        );
    }
    let mut wanted = Map::new();
    let mut put = |section: &str, fields: &[(&str, Option<Value>)]| {
        let given: Map<String, Value> = fields
            .iter()
            .filter_map(|(key, value)| Some(((*key).to_string(), value.clone()?)))
            .collect();
        if !given.is_empty() {
            wanted.insert(section.into(), given.into());
        }
    };
    // Callers that pass their own user's words on may have none.
    let bytes = |option: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| numbers::bytes(option, text)).transpose()
    };
    put(
        "cpu",
        &[
            ("period", args.cpu_period.map(Value::from)),
            ("quota", args.cpu_quota.map(Value::from)),
            ("burst", args.cpu_burst.map(Value::from)),
            ("shares", args.cpu_share.map(Value::from)),
            ("realtimePeriod", args.cpu_rt_period.map(Value::from)),
            ("realtimeRuntime", args.cpu_rt_runtime.map(Value::from)),
            ("idle", args.cpu_idle.map(Value::from)),
            ("cpus", args.cpuset_cpus.clone().map(Value::from)),
            ("mems", args.cpuset_mems.clone().map(Value::from)),
        ],
    );
    put(
        "memory",
        &[
            ("limit", bytes("--memory", &args.memory)?.map(Value::from)),
            (
                "reservation",
                bytes("--memory-reservation", &args.memory_reservation)?.map(Value::from),
            ),
            (
                "swap",
                bytes("--memory-swap", &args.memory_swap)?.map(Value::from),
            ),
        ],
    );
    put("pids", &[("limit", args.pids_limit.map(Value::from))]);
    put("blockIO", &[("weight", args.blkio_weight.map(Value::from))]);
    Ok(json!(wanted))
}
