//! `spec`: a config.json to start from.

use serde_json::{Value, json};

use super::args::Spec;
use crate::error::{Error, Result};
use crate::files;
use crate::host::{Caller, CgroupLayout};

/// The version of the runtime spec that is implemented.
pub(super) const VERSION: &str = "1.3.0";

/// `spec`
pub(super) fn spec(args: &Spec) -> Result<u8> {
    let path = args.bundle.join("config.json");
    if files::exists(&path) {
        let problem = "exists; remove it first";
        return Err(Error::invalid("file", path.display(), problem));
    }
    let unified = CgroupLayout::probe().is_ok_and(|layout| matches!(layout, CgroupLayout::Unified(_)));
    let mut config = default(unified);
    if args.rootless {
        make_rootless(&mut config, &Caller::probe());
    }
    let mut text = serde_json::to_string_pretty(&config)?;
    text.push('\n');
    files::write_atomic(&path, text.as_bytes(), 0o666)?;
    Ok(0)
}

/// A shell in `rootfs`, with the isolation that engines start from. A cgroup namespace is part of it on hosts with cgroup v2 alone, as
/// engines have it.
fn default(unified: bool) -> Value {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if unified {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "condo",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/sys/devices/virtual/powercap", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let quiet = ["nosuid", "noexec", "nodev"];
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &quiet),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

/// Changes a config so that an ordinary user can run it: its own user namespace in which the caller is root, the host's
/// network and so the host's `/sys`, no owners that are not mapped, no limits.
fn make_rootless(config: &mut Value, caller: &Caller) {
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network" && n["type"] != "user");
        namespaces.push(json!({ "type": "user" }));
    }
    let own = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    linux["uidMappings"] = own(caller.uid);
    linux["gidMappings"] = own(caller.gid);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            let owner = |o: &Value| {
                o.as_str()
                    .is_some_and(|o| o.starts_with("uid=") || o.starts_with("gid="))
            };
            options.retain(|option| !owner(option));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What differs from the config for root, as `path: value`.
    #[test]
    fn an_ordinary_user_s_config_differs_where_it_must() {
        let caller = Caller {
            uid: 12345,
            gid: 54321,
            admin: false,
            privileged: false,
        };
        let (root, mut user) = (default(true), default(true));
        make_rootless(&mut user, &caller);
        let kinds: Vec<_> = user["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        assert_eq!(
            user["linux"]["uidMappings"],
            json!([{ "containerID": 0, "hostID": 12345, "size": 1 }])
        );
        assert_eq!(
            user["linux"]["gidMappings"],
            json!([{ "containerID": 0, "hostID": 54321, "size": 1 }])
        );
        assert_eq!(user["linux"].get("resources"), None);
        let sys = json!({ "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        assert_eq!(user["mounts"][5], sys);
        let pts = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        assert_eq!(user["mounts"][2]["options"], pts);
        for same in ["process", "root", "hostname", "ociVersion"] {
            assert_eq!(user[same], root[same], "{same}");
        }
        for same in ["maskedPaths", "readonlyPaths"] {
            assert_eq!(user["linux"][same], root["linux"][same], "{same}");
        }
    }
}
