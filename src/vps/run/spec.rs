//! Rendering a VPS as an OCI configuration: a pure function of record, image, paths and host facts.
//!
//! What is rendered is written to the bundle and goes through the same door as every OCI caller's configuration, so
//! nothing a VPS gets is out of reach of `condo-runtime` with that file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Map, Value, json};

use super::nodes::Node;
use crate::error::{During, Result};
use crate::vps::record::facts::{Clocks, Facts};
use crate::vps::record::store::Record;

pub(super) mod capabilities;
pub(super) mod mounts;
mod resources;

pub(super) use resources::{processors, resources};

/// What the image says about the system in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The program and arguments of PID 1.
    pub args: Vec<String>,
    /// Its environment beside what every init has.
    pub env: Vec<(String, String)>,
    /// Where it begins.
    pub cwd: PathBuf,
    /// Who it is, and with whom: root, but for images of a single program.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its further groups.
    pub groups: Vec<u32>,
}

/// Everything rendering depends on.
#[derive(Debug)]
pub struct Input<'a> {
    /// The VPS.
    pub record: &'a Record,
    /// Its PID 1.
    pub init: &'a Init,
    /// Where its root disk is mounted.
    pub rootfs: &'a Path,
    /// Where its device nodes are, and which.
    pub(super) nodes: (&'a Path, &'a [Node]),
    /// Where the directories for container engines are, and the places inside that get one.
    pub engines: (&'a Path, &'a [&'static str]),
    /// Where its own disk is mounted, while a rescue system has its place.
    pub own: Option<&'a Path>,
    /// Its cgroup, absolute.
    pub cgroup: &'a str,
    /// The whole disk behind its root, needed when the limits concern the disk.
    pub disk: Option<(u32, u32)>,
    /// The host.
    pub facts: &'a Facts,
    /// System calls it is refused.
    pub seccomp: Option<LinuxSeccomp>,
}

/// The version of the specification the configuration follows.
const VERSION: &str = "1.2.0";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files: systemd's own defaults, because select(2) breaks above 1024 and databases want the hard limit.
const OPEN_FILES: (u64, u64) = (1024, 1_048_576);

/// Renders the configuration.
///
/// # Errors
/// [`crate::error::Error::Unsupported`] when a limit concerns the disk and `disk` is not given.
pub fn render(input: Input<'_>) -> Result<Spec> {
    let value = document(&input)?;
    let mut spec: Spec = serde_json::from_value(value).during(|| "render the configuration")?;
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(input.seccomp);
    }
    Ok(spec)
}

/// The configuration as the specification writes it. A test holds that the typed form loses nothing of it.
fn document(input: &Input<'_>) -> Result<Value> {
    let record = input.record;
    Ok(json!({
        "ociVersion": VERSION,
        "hostname": record.hostname(),
        "root": { "path": input.rootfs, "readonly": false },
        "process": process(input),
        "mounts": mounts::mounts(input),
        "linux": linux(input)?,
    }))
}

fn process(input: &Input<'_>) -> Value {
    let init = input.init;
    let capabilities = capabilities::KEPT;
    // Whoever is not root has none, but may gain what a file grants.
    let held = if init.uid == 0 {
        capabilities.as_slice()
    } else {
        &[]
    };
    let hard = OPEN_FILES.1.min(input.facts.open_files);
    json!({
        "terminal": true,
        "user": { "uid": init.uid, "gid": init.gid, "additionalGids": init.groups },
        "args": init.args,
        "env": environment(input.record, init),
        "cwd": init.cwd,
        // Inheritable and ambient stay empty: what an exec inherits by them is no longer decided here (CVE-2022-29162).
        "capabilities": {
            "bounding": capabilities,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES.0.min(hard), "hard": hard }],
        // sudo, su and ping need to gain what their files grant; the bounding set is the fence.
        "noNewPrivileges": false,
        // A daemon that protects itself (negative) must not protect its tenants as well.
        "oomScoreAdj": input.facts.oom_score.max(0),
    })
}

/// What PID 1 finds: systemd's container interface, and a PATH and TERM for inits that set none.
fn environment(record: &Record, init: &Init) -> Vec<String> {
    let mut env = BTreeMap::from([("PATH", PATH), ("TERM", "linux")]);
    env.extend(init.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    env.extend(record.config.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    env.extend([("container", "condo"), ("container_uuid", &record.uuid)]);
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn linux(input: &Input<'_>) -> Result<Value> {
    let record = input.record;
    let map = json!([{ "containerID": 0, "hostID": record.uid_base, "size": record.ids() }]);
    let clocks = input.facts.clocks;
    let kinds = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"];
    let namespaces: Vec<Value> = kinds
        .iter()
        .chain(clocks.is_some().then_some(&"time"))
        .map(|kind| json!({ "type": kind }))
        .collect();
    let mut resources = resources(record, &record.config.limits, input.disk, input.facts)?;
    resources["devices"] = resources::devices(input.nodes.1);
    Ok(json!({
        "namespaces": namespaces,
        "timeOffsets": clocks.map(offsets).unwrap_or_default(),
        "uidMappings": map,
        "gidMappings": map,
        "cgroupsPath": input.cgroup,
        "resources": resources,
        "sysctl": sysctls(record),
        // Mounts inside reach what systemd starts: it hands credentials to its services over a mount made later.
        "rootfsPropagation": "rshared",
        "maskedPaths": mounts::MASKED,
        "readonlyPaths": mounts::READONLY,
    }))
}

/// Its clocks begin when it does, as those of a machine: `uptime` is its own.
pub(super) fn offsets(now: Clocks) -> Map<String, Value> {
    let back = |seconds: i64| json!({ "secs": -seconds, "nanosecs": 0 });
    Map::from_iter([
        ("monotonic".to_owned(), back(now.monotonic)),
        ("boottime".to_owned(), back(now.boottime)),
    ])
}

/// What one VPS may have of what costs the host's memory and is no memory by the kernel's count: generous for a server with
/// containers of its own.
const OWN: [(&str, u32); 8] = [
    ("max_user_namespaces", 1024),
    ("max_pid_namespaces", 1024),
    ("max_ipc_namespaces", 1024),
    ("max_uts_namespaces", 1024),
    ("max_mnt_namespaces", 1024),
    ("max_cgroup_namespaces", 1024),
    ("max_time_namespaces", 1024),
    // Each is a network stack with tables of its own.
    ("max_net_namespaces", 256),
];

/// [`OWN`] as kernel parameters.
pub(super) fn own_limits() -> impl Iterator<Item = (String, String)> {
    OWN.iter()
        .map(|(name, value)| (format!("user.{name}"), value.to_string()))
}

fn sysctls(record: &Record) -> BTreeMap<String, String> {
    let mut all: BTreeMap<_, _> = own_limits().collect();
    // ping without privileges, for every group of the VPS (a group outside of the map is refused by the kernel).
    all.insert(
        "net.ipv4.ping_group_range".into(),
        format!("0 {}", record.ids() - 1),
    );
    all
}

#[cfg(test)]
mod tests;
