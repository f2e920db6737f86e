//! Whose user ids a container of an engine's has.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::namespaces::Kind;
use crate::namespaces::ranges::{self, Claimed};
use crate::namespaces::user::{IdMap, namespace_of};
use crate::runtime::bundle;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::state::Folder;
use crate::vps::record::ids::NESTING_RANGES;

/// How the engines say that a container is one of a pod's, and of which: kind and id of the container that holds the pod's
/// namespaces. containerd; CRI-O, Podman.
const PODS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    (
        "io.kubernetes.cri-o.ContainerType",
        "io.kubernetes.cri-o.SandboxID",
    ),
];

/// Where the user ids come from.
pub(super) enum Users {
    /// Nobody else's on the machine.
    Own(Claimed),
    /// Those of its pod, whose namespaces belong to them: the user namespace, its map, and the container that has it.
    Pod { init: i32, ids: IdMap, maps: [Value; 2] },
    /// Those that the engine chose, which also gave it a root filesystem with these owners.
    Engines,
}

/// What the configuration says of them.
pub(super) struct Entry {
    /// The user namespace that is joined, where it is not a new one.
    pub(super) path: Option<PathBuf>,
    /// `uidMappings` and `gidMappings`; nothing where the engine has written them.
    pub(super) maps: Option<[Value; 2]>,
}

/// Chooses, and claims what nobody else may have. `folder` is where the container's state will be.
pub(super) fn choose(config: &Value, root: &Path, folder: &Folder) -> Result<Users> {
    if namespace(config, "user").is_some() {
        return Ok(Users::Engines);
    }
    match pod(config)
        .map(|sandbox| join(root, sandbox))
        .transpose()?
        .flatten()
    {
        Some(pod) => Ok(pod),
        None => folder.claim_ids(NESTING_RANGES).map(Users::Own),
    }
}

/// The entry of `linux.namespaces` of this kind.
pub(super) fn namespace<'a>(config: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = config["linux"]["namespaces"].as_array()?.iter();
    all.find(|entry| entry["type"] == kind)
}

/// The container that holds the namespaces of this one's pod.
fn pod(config: &Value) -> Option<&str> {
    let annotation = |name: &str| config["annotations"][name].as_str();
    let of = |(kind, id)| {
        (annotation(kind) == Some("container"))
            .then(|| annotation(id))
            .flatten()
    };
    PODS.into_iter().find_map(of)
}

/// Whether a container is one that holds the namespaces of a pod, and does nothing else, by its annotations.
pub(super) fn holds_pod<'a>(annotation: impl Fn(&str) -> Option<&'a String>) -> bool {
    let mut kinds = PODS.into_iter().filter_map(|(kind, _)| annotation(kind));
    kinds.any(|kind| kind == "sandbox")
}

/// The user namespace of a pod, if it has one.
fn join(root: &Path, sandbox: &str) -> Result<Option<Users>> {
    let container = match Container::load(root, &Id::new(sandbox)?) {
        // Another runtime's.
        Err(Error::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let raw = container.config()?;
    let ids = IdMap::from_spec(&bundle::parse(&raw)?)?;
    if ids.is_empty() {
        return Ok(None);
    }
    container.running_init()?;
    let init = container.state().init.map_or(0, |init| init.pid);
    let mut linux = serde_json::from_slice::<Value>(&raw)?["linux"].take();
    let maps = ["uidMappings", "gidMappings"].map(|field| linux[field].take());
    Ok(Some(Users::Pod { init, ids, maps }))
}

impl Users {
    fn map(&self) -> Option<IdMap> {
        match self {
            Self::Own(claimed) => {
                let held = claimed.held();
                Some(IdMap::shifted(held.base, held.count * ranges::SIZE))
            }
            Self::Pod { ids, .. } => Some(ids.clone()),
            Self::Engines => None,
        }
    }

    /// A user namespace with the map, to translate owners by.
    pub(super) fn namespace(&self) -> Result<Option<OwnedFd>> {
        match self {
            Self::Pod { init, .. } => namespace_of(*init, Kind::User).map(Some),
            _ => self.map().map(|ids| ids.into_namespace()).transpose(),
        }
    }

    /// User and group of the host who are root inside.
    pub(super) fn root(&self) -> (u32, u32) {
        self.map().and_then(|ids| ids.root()).unwrap_or_default()
    }

    /// How many there are, where that is known.
    pub(super) fn count(&self) -> Option<u32> {
        match self {
            Self::Own(claimed) => Some(claimed.held().count * ranges::SIZE),
            _ => None,
        }
    }

    pub(super) fn entry(&self) -> Entry {
        match self {
            Self::Own(claimed) => {
                let map = json!([{ "containerID": 0, "hostID": claimed.held().base, "size": self.count() }]);
                Entry {
                    path: None,
                    maps: Some([map.clone(), map]),
                }
            }
            Self::Pod { init, maps, .. } => Entry {
                path: Some(format!("/proc/{init}/ns/user").into()),
                maps: Some(maps.clone()),
            },
            Self::Engines => Entry {
                path: None,
                maps: None,
            },
        }
    }

    /// What the container has to give back.
    pub(super) fn claimed(self) -> Option<Claimed> {
        match self {
            Self::Own(claimed) => Some(claimed),
            _ => None,
        }
    }
}
