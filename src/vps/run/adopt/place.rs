//! What of a VPS's configuration takes the kernel before there is a container: its files through the id map, and parameters of a
//! network that is the host's to set.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::engines;
use super::users::namespace;
use crate::error::{During, Error, Result};
use crate::files;
use crate::namespaces::user::namespace_of;
use crate::namespaces::{Kind, enter};
use crate::runtime::bundle::Bundle;
use crate::storage::engine::{self, can_map_owners};

/// How a mount's owners are translated, as an option of the mount.
pub(super) type Translation = Option<&'static str>;

/// The files of a container through its id map.
pub(super) struct Translated {
    rootfs: OwnedFd,
    binds: Vec<Translation>,
    plain: Vec<(&'static str, PathBuf)>,
}

impl Translated {
    /// The root filesystem, an option for each mount, and directories for the layers of engines inside.
    pub(super) fn parts(self) -> (Option<OwnedFd>, Vec<Translation>, Vec<(&'static str, PathBuf)>) {
        (Some(self.rootfs), self.binds, self.plain)
    }
}

/// Translates what can be: the root filesystem has to, a volume of a filesystem that cannot shows all as nobody's.
pub(super) fn translate(
    bundle: &Bundle,
    config: &Value,
    userns: &OwnedFd,
    root: (u32, u32),
) -> Result<Translated> {
    let path = bundle.rootfs()?;
    let translated = away_from_mounts(|| engine::translated(&path, userns.as_fd(), root))?;
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
    Ok(Translated { rootfs, binds, plain })
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

/// Sets parameters in the network namespace that is joined: it belongs to the host, so that nobody inside may.
///
/// # Errors
/// [`Error::Invalid`] for the host's own network, which nobody's parameters are to change.
pub(super) fn set_in_network(config: &Value, parameters: &[(String, String)]) -> Result<()> {
    let path = namespace(config, "network").and_then(|entry| entry["path"].as_str());
    let (Some(path), false) = (path.map(Path::new), parameters.is_empty()) else {
        return Ok(());
    };
    let same = |a: &Path, b: &Path| -> Result<bool> {
        let [a, b] = [rustix::fs::stat(a)?, rustix::fs::stat(b)?];
        Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    };
    if same(path, Path::new("/proc/self/ns/net"))? {
        let (name, value) = &parameters[0];
        let field = format!("linux.sysctl[{name:?}]");
        return Err(Error::invalid(
            field,
            value,
            "would change the host: the network is the caller's own",
        ));
    }
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
