//! What becomes of a container's configuration when it is to be a VPS.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::super::nodes::Node;
use super::super::spec::capabilities::KEPT;
use super::super::spec::{self, mounts};
use super::ANNOTATION;
use super::place::Translation;
use super::users::{Entry, namespace};
use crate::error::{Error, Result};
use crate::namespaces::Kind;
use crate::seccomp::{self, Concessions};
use crate::vps::record::facts::Clocks;

/// What is decided outside of the configuration.
pub(super) struct Given {
    /// Its user ids.
    pub(super) users: Entry,
    /// How many there are.
    pub(super) ids: Option<u32>,
    /// The machine's memory, in bytes.
    pub(super) memory: u64,
    /// Where its clocks can be its own: what the host's say.
    pub(super) clocks: Option<Clocks>,
    /// How owners are translated, for each of the configuration's mounts.
    pub(super) binds: Vec<Translation>,
    /// Places for the layers of engines inside, and their directories.
    pub(super) plain: Vec<(&'static str, PathBuf)>,
    /// The machine's id inside.
    pub(super) uuid: Option<String>,
    /// Devices of the host's for containers inside.
    pub(super) devices: Vec<Node>,
    /// Where who answers its `sysinfo(2)` is to be found.
    pub(super) agent: Option<PathBuf>,
}

/// What root of a VPS needs of a network that belongs to the host, where it has no capabilities: ports below 1024, and `ping`.
const OF_HOSTS_NETWORK: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// What a VPS has to itself, with how engines are told to share it.
pub(super) const OWN: [(&str, Kind, &str); 5] = [
    ("pid", Kind::Pid, "--pid"),
    ("network", Kind::Network, "--network"),
    ("ipc", Kind::Ipc, "--ipc"),
    ("uts", Kind::Uts, "--uts"),
    ("mount", Kind::Mount, ""),
];

/// Programs that are the first of a whole system.
const INITS: [&str; 4] = ["init", "systemd", "openrc-init", "runit-init"];

/// Names what a container is to share with the host that a VPS has to itself.
pub(super) fn refuse_shared(config: &Value) -> Result<()> {
    let shared = OWN.iter().find(|(kind, ..)| namespace(config, kind).is_none());
    shared.map_or(Ok(()), |(kind, _, option)| Err(self::shared(kind, option)))
}

/// The error about a namespace that is the host's.
pub(super) fn shared(kind: &str, option: &str) -> Error {
    let problem = match option {
        "" => "is missing: a VPS has its own".to_owned(),
        option => format!("is the host's: a VPS has its own; leave out `{option} host`"),
    };
    Error::invalid("linux.namespaces", kind, problem)
}

/// Makes the configuration a VPS's. Returns the kernel's parameters that are for somebody else to set, because its network is not
/// its own.
pub(super) fn rewrite(config: &mut Value, given: &Given) -> Vec<(String, String)> {
    let system = is_system(config);
    let network = namespace(config, "network").is_some_and(|entry| entry.get("path").is_none());
    let memory = config["linux"]["resources"]["memory"]["limit"].as_u64();
    let memory = memory.map_or(given.memory, |limit| limit.min(given.memory));
    namespaces(config, given);
    config["mounts"] = all_mounts(config, given, (system, network), memory).into();
    process(config, given, system);
    let parameters = sysctls(config, given, network);
    devices(config, given);
    let linux = &mut config["linux"];
    linux["maskedPaths"] = json!(mounts::MASKED);
    linux["readonlyPaths"] = json!(mounts::READONLY);
    linux["rootfsPropagation"] = "rshared".into();
    linux["seccomp"] = json!(seccomp::vps_profile(
        Concessions::default(),
        given.agent.as_deref()
    ));
    config["annotations"][ANNOTATION] = "true".into();
    parameters
}

/// Whether the program is the init of a whole system.
fn is_system(config: &Value) -> bool {
    let program = config["process"]["args"][0].as_str().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    program.starts_with('/') && INITS.contains(&name)
}

fn namespaces(config: &mut Value, given: &Given) {
    let linux = &mut config["linux"];
    if let Some([uids, gids]) = &given.users.maps {
        linux["uidMappings"] = uids.clone();
        linux["gidMappings"] = gids.clone();
    }
    let clocks = given.clocks.filter(|_| linux.get("timeOffsets").is_none());
    let mut own = vec!["user", "cgroup"];
    if let (Some(clocks), None) = (clocks, namespace(config, "time")) {
        own.push("time");
        config["linux"]["timeOffsets"] = spec::offsets(clocks).into();
    }
    own.retain(|kind| namespace(config, kind).is_none());
    let Some(all) = config["linux"]["namespaces"].as_array_mut() else {
        return;
    };
    for kind in own {
        all.push(match &given.users.path {
            Some(path) if kind == "user" => json!({ "type": kind, "path": path }),
            _ => json!({ "type": kind }),
        });
    }
}

/// File systems of a VPS, and then what the engine mounts besides.
fn all_mounts(config: &Value, given: &Given, (system, network): (bool, bool), memory: u64) -> Vec<Value> {
    let engines = config["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = |place: &str| engines.iter().find(|mount| mount["destination"] == place);
    let mut all = Vec::new();
    for mut own in [mounts::file_systems(memory), mounts::whole()].concat() {
        let place = own["destination"].as_str().unwrap_or_default().to_owned();
        let of_network = own["type"] == "sysfs" && !network;
        let ours = match place.as_str() {
            // Its size is the user's choice, or it is the pod's.
            "/dev/shm" => at(&place).is_none(),
            "/run" | "/run/lock" => system && at(&place).is_none(),
            "/dev/.condo/sys" => network,
            _ => true,
        };
        if ours && of_network {
            // No second instance of what shows a network that is the host's.
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            own = json!({ "destination": place, "type": "bind", "source": "/sys", "options": options });
        }
        all.extend(ours.then_some(own));
    }
    let replaced: Vec<Value> = all.iter().map(|mount| mount["destination"].clone()).collect();
    let translations = given.binds.iter().copied().chain(std::iter::repeat(None));
    for (mount, translation) in engines.iter().zip(translations) {
        if !replaced.contains(&mount["destination"]) {
            all.push(translated(mount.clone(), translation));
        }
    }
    let taken: Vec<Value> = all.iter().map(|mount| mount["destination"].clone()).collect();
    let free = given
        .plain
        .iter()
        .filter(|(place, _)| !taken.iter().any(|taken| taken == place));
    all.extend(free.map(|(place, source)| {
        json!({ "destination": place, "type": "bind", "source": source, "options": ["bind", "idmap"] })
    }));
    all
}

fn translated(mut mount: Value, translation: Translation) -> Value {
    if let Some(option) = translation {
        match mount["options"].as_array_mut() {
            Some(options) => options.push(option.into()),
            None => mount["options"] = json!([option]),
        }
    }
    mount
}

/// The capabilities of a process, which root holds and others may gain.
pub(super) fn capabilities(held: bool) -> Value {
    let held = if held { KEPT.as_slice() } else { &[] };
    json!({ "bounding": KEPT, "effective": held, "permitted": held, "inheritable": [], "ambient": [] })
}

fn process(config: &mut Value, given: &Given, system: bool) {
    let process = &mut config["process"];
    process["capabilities"] = capabilities(process["user"]["uid"].as_u64().unwrap_or(0) == 0);
    if let Some(process) = process.as_object_mut() {
        process.remove("apparmorProfile");
    }
    if !system {
        return;
    }
    // systemd's container interface.
    let mut env: Vec<Value> = process["env"].as_array().cloned().unwrap_or_default();
    let ours = |entry: &Value| entry.as_str().is_some_and(|entry| entry.starts_with("container"));
    env.retain(|entry| !ours(entry));
    env.push("container=condo".into());
    env.extend(
        given
            .uuid
            .as_ref()
            .map(|uuid| format!("container_uuid={uuid}").into()),
    );
    process["env"] = env.into();
}

fn sysctls(config: &mut Value, given: &Given, network: bool) -> Vec<(String, String)> {
    let mut all: Map<String, Value> = config["linux"]["sysctl"].as_object().cloned().unwrap_or_default();
    if given.users.path.is_none() {
        all.extend(spec::own_limits().map(|(name, value)| (name, value.into())));
    }
    let ping = "net.ipv4.ping_group_range";
    match given.ids.filter(|_| network) {
        Some(ids) => drop(all.insert(ping.into(), format!("0 {}", ids - 1).into())),
        // A group outside of the map is refused by the kernel.
        None if network => drop(all.remove(ping)),
        None => {}
    }
    let mut parameters = Vec::new();
    if !network {
        for (name, value) in OF_HOSTS_NETWORK {
            all.entry(name).or_insert_with(|| value.into());
        }
        let of_network = |name: &String| name.starts_with("net.") || name.starts_with("net/");
        let names: Vec<String> = all.keys().filter(|name| of_network(name)).cloned().collect();
        for name in names {
            let value = all.remove(&name);
            let value = value
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            parameters.push((name, value));
        }
    }
    config["linux"]["sysctl"] = all.into();
    parameters
}

fn devices(config: &mut Value, given: &Given) {
    let mut nodes = config["linux"]["devices"].as_array().cloned().unwrap_or_default();
    let rules = &mut config["linux"]["resources"]["devices"];
    let mut allowed = rules.as_array().cloned().unwrap_or_default();
    for Node { name, number } in &given.devices {
        let (path, major, minor) = (Path::new("/dev").join(name), number.major, number.minor);
        let path = json!(path);
        if !nodes.iter().any(|node| node["path"] == path) {
            nodes.push(
                json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666 }),
            );
        }
        allowed.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    *rules = allowed.into();
    config["linux"]["devices"] = nodes.into();
}

#[cfg(test)]
mod tests;
