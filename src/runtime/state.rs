//! What is kept on disk about a container.
//!
//! ```text
//! <root>/<id>/            made by `create`: whoever makes it owns the id
//!        lock             flock(2), held by every operation that changes the container
//!        state.json       facts; written before the cgroup is made, and again before init is released
//!        config.json      the bundle's, as it was at create
//!        called-off       there when a hook of `create` has deleted the container, which `create` then does
//!        exec.fifo        there until `start`; init waits for a byte from it
//!        door.sock        where init hands out its namespaces until then, if its user is an ordinary one
//!        figures.json     who tells the container's figures, where somebody does
//!        agent.sock       where they hear of the system call filters of what enters the container
//!        notify/          for the container's socket of `sd_notify(3)`, where the caller of `create` had one
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use super::id::Id;
use super::status::Identity;
use crate::cgroups::{Allocation, Home};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::namespaces::Kind;
use crate::namespaces::ranges::{self, Held};

/// The facts about one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the runtime spec the bundle was written for.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    #[serde(with = "any_path")]
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    #[serde(with = "any_path")]
    pub rootfs: PathBuf,
    /// The bundle's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Host user who created it.
    pub owner: u32,
    /// The init process; absent until it has been born.
    pub init: Option<Identity>,
    /// Whether the cgroup and the class of caches below are this container's: they are named here before that is known.
    #[serde(default = "claimed")]
    pub claimed: bool,
    /// Where its cgroup is; absent for a container without one.
    pub cgroup: Option<Home>,
    /// Its share of caches and memory bandwidth, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Allocation>,
    /// User ids of the machine that it holds; absent for one that brought its own map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Held>,
    /// The namespaces it does not share with the host.
    pub namespaces: Vec<Kind>,
    /// The id of the mount that covers the root filesystem's place, where the container is among the caller's mounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<u64>,
    /// What init inherited of its caller's descriptors, by CRIU's names, from 0 on; empty for what does not lead out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// A checkpoint that serves memory to whoever fetches it, until it is told to give up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Identity>,
    /// Whether init runs startContainer hooks, for whose success `start` has to wait.
    #[serde(default)]
    pub start_hooks: bool,
    /// Hooks for `start`.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// Hooks for `delete`.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

/// Paths are bytes, which JSON has no word for: one that is not UTF-8 is a list of numbers.
mod any_path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        let form = path.to_str().map_or_else(
            || Form::Bytes(path.as_os_str().as_bytes().to_vec()),
            |text| Form::Text(text.to_owned()),
        );
        form.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

/// What a state that does not say has: it was written when all was made.
fn claimed() -> bool {
    true
}

impl State {
    /// The OCI state of the spec, as hooks get it; 0 for a container without an init.
    pub fn oci(&self, pid: i32, status: &str) -> Vec<u8> {
        let mut value = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            // JSON has no bytes: what is not UTF-8 is replaced, as by other runtimes.
            "bundle": self.bundle.to_string_lossy(),
            "annotations": self.annotations,
        });
        if pid > 0 {
            value["pid"] = pid.into();
        }
        value.to_string().into_bytes()
    }
}

/// Whoever waits for the lock may make its file anew while the directory is emptied (`run`, whose container is deleted by another).
const REMOVALS: u32 = 10;

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    id: Id,
}

impl Folder {
    /// Where the container's state is or will be.
    pub fn new(root: &Path, id: &Id) -> Self {
        Self {
            path: root.join(id.as_str()),
            id: id.clone(),
        }
    }

    /// Makes the directory; whoever succeeds owns the id. An ordinary user's (`private`) is nobody else's business.
    pub fn claim(&self, private: bool) -> Result<Lock> {
        let mode = if private { 0o700 } else { 0o711 };
        if let Some(root) = self.path.parent() {
            files::create_dir_all(root, mode)?;
        }
        use std::os::unix::fs::DirBuilderExt;
        match std::fs::DirBuilder::new().mode(mode).create(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::Exists {
                kind: "container",
                name: self.id.to_string(),
            }),
            other => {
                other.during(|| format!("create `{}`", self.path.display()))?;
                self.lock().inspect_err(|_| drop(std::fs::remove_dir(&self.path)))
            }
        }
    }

    /// Waits until no other operation changes the container.
    ///
    /// # Errors
    /// [`Error::Status`] where that operation waits for us, who are one of its hooks.
    pub fn lock(&self) -> Result<Lock> {
        match self.try_lock() {
            Err(Error::Busy(_)) if self.waits_for_us() => Err(Error::Status(format!(
                "container `{}` is still being made, and waits for the hook that calls this",
                self.id
            ))),
            Err(Error::Busy(_)) => Lock::wait(&self.path.join("lock")).map_err(|e| self.missing(e)),
            other => other,
        }
    }

    /// Whether who changes the container waits for us, one of its hooks.
    pub fn waits_for_us(&self) -> bool {
        Lock::is_held_above(&self.path.join("lock"))
    }

    /// Has the `create` that is under way fail, and clear up, when its hooks have run.
    pub fn call_off(&self) -> Result<()> {
        files::write_atomic(&self.called_off(), b"", 0o600)
    }

    /// Whether a hook has called the container off.
    pub fn is_called_off(&self) -> bool {
        files::exists(&self.called_off())
    }

    fn called_off(&self) -> PathBuf {
        self.path.join("called-off")
    }

    /// The lock, or [`Error::Busy`] while another operation has it.
    pub fn try_lock(&self) -> Result<Lock> {
        Lock::now(&self.path.join("lock")).map_err(|e| self.missing(e))
    }

    fn missing(&self, e: Error) -> Error {
        if e.is_gone() {
            Error::NotFound {
                kind: "container",
                name: self.id.to_string(),
            }
        } else {
            e
        }
    }

    /// Whether there is such a container.
    pub fn exists(&self) -> bool {
        files::exists(&self.path)
    }

    /// The facts; [`Error::NotFound`] without the directory, `None` in a directory that was left half-made.
    pub fn load(&self) -> Result<Option<State>> {
        match files::read(&self.path.join("state.json")) {
            Ok(raw) => {
                let state = serde_json::from_slice(&raw)
                    .during(|| format!("`{}`", self.path.join("state.json").display()))?;
                Ok(Some(state))
            }
            Err(e) if e.is_gone() && self.exists() => Ok(None),
            Err(e) => Err(self.missing(e)),
        }
    }

    /// Replaces the facts.
    pub fn save(&self, state: &State) -> Result<()> {
        files::write_atomic(&self.path.join("state.json"), &serde_json::to_vec(state)?, 0o644)
    }

    /// Keeps the config as it was at create.
    pub fn save_config(&self, raw: &[u8]) -> Result<()> {
        files::write_atomic(&self.path.join("config.json"), raw, 0o600)
    }

    /// The config as it was at create.
    pub fn config(&self) -> Result<Vec<u8>> {
        files::read(&self.path.join("config.json"))
    }

    /// The fifo that init waits on.
    pub fn fifo(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    /// Where init hands out its namespaces.
    pub fn door(&self) -> PathBuf {
        self.path.join("door.sock")
    }

    /// Where it says who tells the container's figures.
    pub fn figures(&self) -> PathBuf {
        self.path.join("figures.json")
    }

    /// Who tells them, and who does when that is killed, dead or alive.
    pub fn tellers(&self) -> Vec<Identity> {
        let told = || serde_json::from_slice(&files::read(&self.figures()).ok()?).ok();
        told().unwrap_or_default()
    }

    /// Where they hear of the system call filters of processes that enter the container.
    pub fn agent(&self) -> PathBuf {
        self.path.join("agent.sock")
    }

    /// The directory that the container sees with its socket of `sd_notify(3)`. On the host nobody but the owner gets as far.
    pub fn notify(&self) -> PathBuf {
        self.path.join("notify/inside")
    }

    /// Gives back the user ids that the container holds, or, of one that was left half-made, may hold.
    pub fn release_ids(&self, held: Option<Held>) -> Result<()> {
        ranges::release_container(&self.path, held)
    }

    /// Claims user ids for the container.
    ///
    /// # Errors
    /// As [`ranges::Claimed::for_container`].
    pub fn claim_ids(&self, count: u32) -> Result<ranges::Claimed> {
        ranges::Claimed::for_container(&self.path, count)
    }

    /// Removes the directory and with it the claim on the id.
    pub fn remove(&self) -> Result<()> {
        let not_empty = Some(rustix::io::Errno::NOTEMPTY.raw_os_error());
        for _ in 1..REMOVALS {
            match files::remove_tree(&self.path) {
                Err(e) if e.errno() == not_empty => {}
                other => return other,
            }
        }
        files::remove_tree(&self.path)
    }
}

/// The ids of all containers below a root, half-made ones included.
pub fn ids(root: &Path) -> Result<Vec<Id>> {
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("read `{}`", root.display()))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(Ok(id)) = entry.file_name().to_str().map(Id::new)
        {
            ids.push(id);
        }
    }
    ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(ids)
}
