//! `/` and `/1.0`: what is served here.

use axum::extract::State;
use serde_json::{Value, json};

use crate::reply::{Answer, Reply};
use crate::server::Server;

/// Parts of the API that came after its first version and that are there. Clients ask for what is not, or do without: nothing is
/// listed that does not work.
const EXTENSIONS: &[&str] = &[
    "container_exec_recording",
    "container_exec_signal_handling",
    "container_exec_user_group_cwd",
    "etag",
    "event_lifecycle",
    "console",
    "instances",
    "operation_description",
    // Without it clients do not show an instance at all. There are no backups yet.
    "container_backup",
    "container_full",
    "api_filtering",
    "patch",
    "network",
    "directory_manipulation",
    "file_append",
    "file_delete",
    "file_get_symlink",
    "file_symlinks",
    "id_map",
    "unix_socket_endpoints",
];

/// `GET /`: the versions of the API.
pub(crate) async fn versions() -> Answer {
    Ok(Reply::Sync(json!(["/1.0"])))
}

/// `GET /1.0`.
pub(crate) async fn server(State(server): State<Server>) -> Answer {
    let system = rustix::system::uname();
    let words = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let machine = words(system.machine());
    let cgroups = server
        .read(|condo| Ok(condo.host.cgroups.unified().is_some()))
        .await?;
    let value: Value = json!({
        "config": {},
        "api_extensions": EXTENSIONS,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted",
        "auth_methods": ["tls"],
        "public": false,
        "environment": {
            "addresses": [],
            "architectures": [machine],
            "certificate": "",
            "certificate_fingerprint": "",
            "driver": "condo",
            "driver_version": env!("CARGO_PKG_VERSION"),
            "firewall": "nftables",
            "kernel": words(system.sysname()),
            "kernel_architecture": machine,
            "kernel_features": { "unified_cgroups": cgroups.to_string() },
            "kernel_version": words(system.release()),
            "lxc_features": {},
            "os_name": "",
            "os_version": "",
            "project": "default",
            // What clients look for before they speak to it.
            "server": "lxd",
            "server_clustered": false,
            "server_event_mode": "full-mesh",
            "server_name": words(system.nodename()),
            "server_pid": std::process::id(),
            "server_version": "5.0.2",
            "storage": "dir",
            "storage_version": "1",
            "storage_supported_drivers": [],
        },
    });
    Ok(Reply::Sync(value))
}
