//! What of a VPS's configuration takes the kernel before there is a container: its files through the id map, and parameters of a
//! network that is the host's to set.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree};
use serde_json::Value;

use super::super::engines;
use super::super::nodes::{self, Node};
use super::config;
use super::users::namespace;
use crate::error::{During, Error, Result};
use crate::files;
use crate::namespaces::ranges::Claimed;
use crate::namespaces::user::namespace_of;
use crate::namespaces::{Kind, enter};
use crate::runtime::bundle::Bundle;
use crate::runtime::init::parent::Provided;
use crate::storage::engine::{self, can_map_owners};

/// How a mount's owners are translated, as an option of the mount.
pub(super) type Translation = Option<&'static str>;

/// The files of a container through its id map.
pub(super) struct Translated {
    rootfs: OwnedFd,
    binds: Vec<Translation>,
    plain: Vec<(&'static str, PathBuf)>,
    nodes: Vec<(PathBuf, OwnedFd)>,
}

impl Translated {
    /// What the configuration is to say of it: an option for each mount, and directories for the layers of engines inside.
    pub(super) fn said(&mut self) -> (Vec<Translation>, Vec<(&'static str, PathBuf)>) {
        (std::mem::take(&mut self.binds), std::mem::take(&mut self.plain))
    }

    /// What it cannot name, with the user ids that are claimed.
    pub(super) fn provide(self, ids: Option<Claimed>) -> Provided {
        let (rootfs, devices) = (Some(self.rootfs), self.nodes);
        Provided {
            rootfs,
            devices,
            ids,
            agent: None,
        }
    }
}

/// Translates what can be: the root filesystem has to, a volume of a filesystem that cannot shows all as nobody's.
pub(super) fn translate(
    bundle: &Bundle,
    config: &Value,
    userns: &OwnedFd,
    (root, nodes): ((u32, u32), &[Node]),
) -> Result<Translated> {
    let path = bundle.rootfs()?;
    let (translated, nodes) = away_from_mounts(|| {
        let translated = engine::translated(&path, userns.as_fd(), root)?;
        Ok((translated, make_nodes(&path, nodes, root.0)?))
    })?;
    let mounts = config["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let binds = mounts
        .iter()
        .map(|mount| translation(bundle, mount, userns))
        .collect::<Result<_>>()?;
    let plain = match &translated.plain {
        Some(dir) => make_plain(&path, dir)?,
        None => Vec::new(),
    };
    let rootfs = translated.tree;
    Ok(Translated {
        rootfs,
        binds,
        plain,
        nodes,
    })
}

/// Device nodes that nobody else has, with root inside as their owner. For a moment they cover `place`.
fn make_nodes(place: &Path, nodes: &[Node], root: u32) -> Result<Vec<(PathBuf, OwnedFd)>> {
    nodes::make(place, nodes, root)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let open = |node: &Node| -> Result<_> {
        let mount = open_tree(CWD, place.join(&node.name), flags)?;
        Ok((Path::new("/dev").join(&node.name), mount))
    };
    let opened = nodes.iter().map(open).collect();
    rustix::mount::unmount(place, UnmountFlags::DETACH)?;
    opened
}

/// Does something in a mount namespace of its own, and comes back.
fn away_from_mounts<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = namespace_of(i32::try_from(std::process::id()).unwrap_or(0), Kind::Mount)?;
    let here = std::env::current_dir().ok();
    enter::leave_mounts()?;
    let done = work();
    enter::return_to(home.as_fd(), Kind::Mount)?;
    // That it had to leave as well.
    here.map_or(Ok(()), std::env::set_current_dir)
        .during(|| "go back to the current directory")?;
    done
}

fn translation(bundle: &Bundle, mount: &Value, userns: &OwnedFd) -> Result<Translation> {
    let options = || {
        mount["options"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    let has = |name: &str| options().any(|option| option == name);
    let asked = has("idmap") || has("ridmap") || mount.get("uidMappings").is_some();
    let bind = mount["type"] == "bind" || has("bind") || has("rbind");
    let Some(source) = mount["source"].as_str().filter(|_| bind && !asked) else {
        return Ok(None);
    };
    let source = bundle.path.join(source);
    if !files::exists(&source) {
        // The plan says so, with the mount's name.
        return Ok(None);
    }
    if has("rbind") && can_map_owners(&source, true, userns.as_fd())? {
        return Ok(Some("ridmap"));
    }
    if can_map_owners(&source, false, userns.as_fd())? {
        return Ok(Some("idmap"));
    }
    log::warn!(
        "`{}`: its filesystem cannot translate owners, all of it is nobody's inside",
        source.display()
    );
    Ok(None)
}

/// Directories for layers, where the image has nothing in their places.
fn make_plain(rootfs: &Path, dir: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let places = engines::free(rootfs)?;
    let made = places.into_iter().map(|place| {
        let own = dir.join(engines::name(place));
        files::create_dir_all(&own, 0o700).map(|()| (place, own))
    });
    made.collect()
}

/// Refuses namespaces that are named by a path and are the host's: so an engine says `--network host`.
pub(super) fn refuse_hosts(config: &Value) -> Result<()> {
    for (kind, of, option) in config::OWN.iter().filter(|(.., option)| !option.is_empty()) {
        let path = namespace(config, kind).and_then(|entry| entry["path"].as_str());
        let own = Path::new("/proc/self/ns").join(of.file());
        if let Some(path) = path
            && is_same(Path::new(path), &own)
        {
            return Err(config::shared(kind, option));
        }
    }
    Ok(())
}

fn is_same(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(rustix::fs::stat);
    matches!((a, b), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Sets parameters in the network namespace that is joined: it belongs to the host, so that nobody inside may.
pub(super) fn set_in_network(config: &Value, parameters: &[(String, String)]) -> Result<()> {
    let path = namespace(config, "network").and_then(|entry| entry["path"].as_str());
    let (Some(path), false) = (path.map(Path::new), parameters.is_empty()) else {
        return Ok(());
    };
    let set = || -> Result<()> {
        enter::join(Kind::Network, path)?;
        for (name, value) in parameters {
            let file = Path::new("/proc/sys").join(name.replace('.', "/"));
            std::fs::write(&file, value).during(|| format!("set sysctl `{name}` to `{value}`"))?;
        }
        Ok(())
    };
    // The thread ends there.
    std::thread::scope(|scope| scope.spawn(set).join())
        .unwrap_or_else(|_| Err(Error::Corrupt("a thread that sets sysctls died".into())))
}
