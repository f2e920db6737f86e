//! `/` and `/1.0`: what is served here.

use axum::Extension;
use axum::extract::State;
use serde_json::{Value, json};

use crate::reply::{Answer, Reply};
use crate::server::Server;
use crate::trust::{self, Identity, Reach};

/// Parts of the API that came after its first version and that are there. Clients ask for what is not, or do without: nothing is
/// listed that does not work.
const EXTENSIONS: &[&str] = &[
    "api_filtering",
    "backup_override_name",
    "certificate_token",
    "certificate_update",
    "console",
    "container_backup",
    "container_exec_recording",
    "container_exec_signal_handling",
    "container_exec_user_group_cwd",
    "container_full",
    "directory_manipulation",
    "etag",
    "event_lifecycle",
    "file_append",
    "file_delete",
    "file_get_symlink",
    "file_symlinks",
    "id_map",
    "instance_all_projects",
    "instances",
    "metrics",
    "network",
    "network_acl",
    "network_forward",
    "network_leases",
    "network_state",
    "operation_description",
    "patch",
    "project_usage",
    "projects",
    "resources",
    "resources_v2",
    "storage",
    "unix_socket_endpoints",
    "warnings",
];

/// `GET /`: the versions of the API.
pub(crate) async fn versions() -> Answer {
    Ok(Reply::Sync(json!(["/1.0"])))
}

/// `GET /1.0`.
pub(crate) async fn server(State(server): State<Server>, Extension(reach): Extension<Reach>) -> Answer {
    let base = json!({
        "api_extensions": EXTENSIONS, "api_status": "stable", "api_version": "1.0", "auth_methods": ["tls"],
        "public": false,
    });
    if reach == Reach::Nothing {
        let mut base = base;
        base["auth"] = json!("untrusted");
        return Ok(Reply::Sync(base));
    }
    let system = rustix::system::uname();
    let words = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let machine = words(system.machine());
    let serves = server.address.is_some();
    let (cgroups, identity) = server
        .read(move |condo| {
            let identity = serves.then(|| Identity::of(condo)).transpose()?;
            Ok((condo.host.cgroups.unified().is_some(), identity))
        })
        .await?;
    let addresses = server.address.map(|address| match address.ip().is_unspecified() {
        true => trust::addresses(address.port()),
        false => vec![address.to_string()],
    });
    let own = identity.as_ref();
    let mut value: Value = json!({
        "config": {},
        "auth": "trusted",
        "environment": {
            "addresses": addresses.unwrap_or_default(),
            "architectures": [machine],
            "certificate": own.map(|own| own.pem.clone()).unwrap_or_default(),
            "certificate_fingerprint": own.map(|own| trust::fingerprint(&own.certificate)).unwrap_or_default(),
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
    if let (Some(all), Some(base)) = (value.as_object_mut(), base.as_object()) {
        all.extend(base.clone());
    }
    Ok(Reply::Sync(value))
}
