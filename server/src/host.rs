//! What of the API is about the host: its resources, its one storage pool, and what it has none of.

use axum::extract::{Path, State};
use condo::vps::record::instance::Condo;
use condo::vps::report::metrics::MEDIA_TYPE;
use serde_json::{Value, json};

use crate::reply::{Answer, Problem, Reply};
use crate::request::{DEFAULT, Params};
use crate::server::Server;

/// `GET /1.0/metrics`: what VPSs use, without an envelope.
pub(crate) async fn metrics(State(server): State<Server>) -> Answer {
    let text = server.read(|condo| condo.metrics()).await?;
    Ok(Reply::Raw(MEDIA_TYPE, Vec::new(), text.into()))
}

/// `GET /1.0/warnings`: what is wrong is told by `condo doctor`.
pub(crate) async fn warnings() -> Answer {
    Ok(Reply::Sync(json!([])))
}

/// `GET /1.0/cluster`: there is none.
pub(crate) async fn cluster() -> Answer {
    Ok(Reply::Sync(
        json!({ "enabled": false, "server_name": "", "member_config": [] }),
    ))
}

/// All else about clusters.
pub(crate) async fn no_cluster() -> Answer {
    Err(Problem::bad(
        "this server is not clustered, and cannot be: each host stands alone",
    ))
}

/// The addresses of all instances of the request's project.
fn instances(condo: &Condo) -> condo::error::Result<Vec<String>> {
    let records = condo.members()?;
    Ok(records
        .iter()
        .map(|record| format!("/1.0/instances/{}", record.name))
        .collect())
}

/// `GET /1.0/storage-pools`.
pub(crate) async fn pools(server: Server, params: Params) -> Answer {
    Ok(Reply::Sync(match params.recursion() {
        0 => json!(["/1.0/storage-pools/default"]),
        _ => json!([the_pool(&server).await?]),
    }))
}

async fn the_pool(server: &Server) -> Result<Value, Problem> {
    let (mut users, source) = server
        .read(|condo| Ok((instances(condo)?, condo.folders.lib().display().to_string())))
        .await?;
    users.push("/1.0/profiles/default".to_owned());
    Ok(json!({
        "name": DEFAULT, "description": "Where all VPSs and images are", "driver": "dir", "status": "Created",
        "config": { "source": source }, "used_by": users, "locations": ["none"],
    }))
}

fn must_be_the_pool(name: &str) -> Result<(), Problem> {
    if name == DEFAULT {
        return Ok(());
    }
    Err(Problem::missing("Storage pool", name))
}

/// `GET /1.0/storage-pools/NAME`.
pub(crate) async fn pool(server: Server, Path(name): Path<String>) -> Answer {
    must_be_the_pool(&name)?;
    let object = the_pool(&server).await?;
    Ok(Reply::marked(&object, &object["config"]))
}

/// `GET /1.0/storage-pools/NAME/resources`.
pub(crate) async fn pool_resources(State(server): State<Server>, Path(name): Path<String>) -> Answer {
    must_be_the_pool(&name)?;
    let found = server
        .read(|condo| Ok(rustix::fs::statvfs(condo.folders.lib())?))
        .await?;
    let block = found.f_frsize;
    Ok(Reply::Sync(json!({
        "space": {
            "used": found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(block),
            "total": found.f_blocks.saturating_mul(block),
        },
        "inodes": { "used": found.f_files.saturating_sub(found.f_ffree), "total": found.f_files },
    })))
}

/// `GET /1.0/storage-pools/NAME/volumes`: disks belong to their VPSs, and there are no others.
pub(crate) async fn volumes(Path(name): Path<String>) -> Answer {
    must_be_the_pool(&name)?;
    Ok(Reply::Sync(json!([])))
}

/// `GET /1.0/resources`.
pub(crate) async fn resources(State(server): State<Server>) -> Answer {
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    let (cpus, memory, swap) = server
        .read(|condo| {
            let facts = condo::vps::record::facts::Facts::probe(&condo.host)?;
            Ok((facts.cpus, facts.memory, facts.swap))
        })
        .await?;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    };
    let cores = cpus.iter().map(|cpu| {
        json!({
            "core": cpu, "die": 0, "frequency": 0,
            "threads": [{ "id": cpu, "thread": 0, "online": true, "numa_node": 0, "isolated": false }],
        })
    });
    let socket = json!({
        "name": "", "vendor": "", "socket": 0, "frequency": 0, "frequency_minimum": 0, "frequency_turbo": 0,
        "cache": [], "cores": cores.collect::<Vec<_>>(),
    });
    let none = json!({ "total": 0, "cards": [], "disks": [], "devices": [] });
    Ok(Reply::Sync(json!({
        "cpu": { "architecture": machine, "sockets": [socket], "total": cpus.len() },
        "memory": {
            "total": memory, "used": memory.saturating_sub(kib("MemAvailable") << 10), "nodes": [],
            "hugepages_total": 0, "hugepages_used": 0, "hugepages_size": kib("Hugepagesize") << 10,
        },
        "swap": { "total": swap, "used": swap.saturating_sub(kib("SwapFree") << 10) },
        "gpu": none, "network": none, "storage": none, "usb": none, "pci": none,
        "system": {
            "uuid": "", "vendor": "", "product": "", "family": "", "version": "", "sku": "", "serial": "", "type": "",
            "firmware": null, "chassis": null, "motherboard": null,
        },
    })))
}
