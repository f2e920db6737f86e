//! What the tree will be, decided before anything is touched.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Hooks, Mount, Spec};
use serde::Serialize;

use super::devices::{self, Device};
use super::entry::Entry;
use super::ops::{Action, Bind, Filesystem, IdMap, MountOp, Remount};
use super::options::{Options, Propagation, Sharing};
use super::{Facts, MountsOf, cgroup, checks};
use crate::error::{Error, Result};
use crate::sys::mount::attr;

/// A container's mount tree, as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RootfsPlan {
    pub(super) root: PathBuf,
    pub(super) readonly: bool,
    /// How mounts that come from the host start out, before options of their own.
    pub(super) inherited: Sharing,
    /// What `linux.rootfsPropagation` makes of the new root at the end.
    pub(super) propagation: Option<Propagation>,
    /// See [`Facts::confined`].
    pub(super) confined: bool,
    pub(super) no_pivot: bool,
    pub(super) mounts_of: MountsOf,
    /// Hooks look for the tree at the root's own path, before it is entered.
    pub(super) shown: bool,
    pub(super) mounts: Vec<MountOp>,
    /// Default devices and links are made, because `/dev` is the container's own.
    pub(super) own_dev: bool,
    pub(super) devices: Vec<Device>,
    pub(super) masked: Vec<PathBuf>,
    pub(super) readonly_paths: Vec<PathBuf>,
    /// SELinux's label of what covers masked directories.
    pub(super) label: Option<String>,
}

impl RootfsPlan {
    /// Plans the tree of `spec` on `rootfs` (absolute and canonical); relative sources are below `bundle`.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field of config.json that cannot be done.
    pub fn from_spec(spec: &Spec, rootfs: &Path, bundle: &Path, facts: &Facts<'_>) -> Result<Self> {
        require_mount_namespace(facts)?;
        let linux = spec.linux().as_ref();
        let context = Context {
            bundle,
            rootfs,
            facts,
            label: linux
                .and_then(|l| l.mount_label().as_deref())
                .filter(|label| !label.is_empty()),
        };
        let propagation = root_propagation(linux.and_then(|l| l.rootfs_propagation().as_deref()))?;
        let mut mounts = Vec::new();
        let entries = spec.mounts().as_deref().unwrap_or_default();
        for (index, mount) in entries.iter().enumerate() {
            context.add(&format!("mounts[{index}]"), mount, &mut mounts)?;
        }
        let own_dev = !mounts.iter().any(|m| m.binds_dev());
        let spec_devices = linux.and_then(|l| l.devices().as_deref()).unwrap_or_default();
        let devices = devices::plan(spec_devices, &mounts, own_dev)?;
        let readonly_paths = paths(
            "linux.readonlyPaths",
            linux.and_then(|l| l.readonly_paths().as_deref()),
        )?;
        let readonly = spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false);
        Ok(Self {
            root: rootfs.to_path_buf(),
            // A cover of the root would be above it, where nobody looks.
            readonly: readonly || readonly_paths.iter().any(|path| is_root(path)),
            inherited: inherited(propagation, facts.confined()),
            propagation,
            confined: facts.confined(),
            no_pivot: facts.no_pivot,
            mounts_of: facts.mounts,
            shown: spec.hooks().as_ref().is_some_and(look_before),
            mounts,
            own_dev,
            devices,
            masked: paths(
                "linux.maskedPaths",
                linux.and_then(|l| l.masked_paths().as_deref()),
            )?,
            readonly_paths,
            label: context.label.map(str::to_owned),
        })
    }

    /// The steps, in order.
    pub fn mounts(&self) -> &[MountOp] {
        &self.mounts
    }
}

fn paths(field: &str, list: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let absolute = |(index, path): (usize, &String)| match Path::new(path).is_absolute() {
        true => Ok(PathBuf::from(path)),
        false => Err(Error::invalid(
            format!("{field}[{index}]"),
            path,
            "must be an absolute path",
        )),
    };
    list.unwrap_or_default()
        .iter()
        .enumerate()
        .map(absolute)
        .collect()
}

fn is_root(path: &Path) -> bool {
    path.components()
        .all(|part| !matches!(part, Component::Normal(_)))
}

/// Among the mounts of others only root of the machine mounts anything.
fn require_mount_namespace(facts: &Facts<'_>) -> Result<()> {
    if facts.mounts == MountsOf::Container || !facts.confined() {
        return Ok(());
    }
    let problem = "must be a new one (without `path`): in a user namespace nothing can be mounted among the mounts of others";
    Err(Error::invalid("linux.namespaces", "mount", problem))
}

fn root_propagation(name: Option<&str>) -> Result<Option<Propagation>> {
    match name {
        None | Some("") => Ok(None),
        Some(name) => Propagation::from_name(name).map(Some).ok_or_else(|| {
            Error::invalid(
                "linux.rootfsPropagation",
                name,
                "must be one of `private`, `slave`, `shared`, `unbindable`, or one of them with a leading `r`",
            )
        }),
    }
}

/// Whether there are hooks that run when the tree is complete and not entered.
fn look_before(hooks: &Hooks) -> bool {
    #[allow(deprecated, reason = "Docker still sends prestart hooks")]
    let prestart = hooks.prestart();
    let kinds = [prestart, hooks.create_runtime(), hooks.create_container()];
    kinds.into_iter().flatten().any(|hooks| !hooks.is_empty())
}

/// What the host's mounts are to the container: `shared` only if the root is asked to be, and never out of a user namespace,
/// from where mounts must not reach the host.
fn inherited(propagation: Option<Propagation>, confined: bool) -> Sharing {
    match propagation.map(|p| p.sharing) {
        Some(Sharing::Shared) if !confined => Sharing::Shared,
        None | Some(Sharing::Shared | Sharing::Slave) => Sharing::Slave,
        Some(Sharing::Private | Sharing::Unbindable) => Sharing::Private,
    }
}

/// What turns entries of the spec into steps.
struct Context<'a> {
    bundle: &'a Path,
    rootfs: &'a Path,
    facts: &'a Facts<'a>,
    label: Option<&'a str>,
}

impl Context<'_> {
    fn add(&self, field: &str, mount: &Mount, ops: &mut Vec<MountOp>) -> Result<()> {
        let entry = Entry {
            field,
            target: checks::target(
                &format!("{field}.destination"),
                self.without_root(mount.destination()),
            )?,
            options: Options::parse(mount.options().as_deref().unwrap_or_default()),
            mount,
            label: self.label,
        };
        let fstype = mount.typ().as_deref().unwrap_or("");
        let bind = entry.options.bind.or_else(|| (fstype == "bind").then_some(false));
        checks::place(&entry, fstype, bind.is_some())?;
        checks::idmap(&entry, bind.is_some(), self.facts)?;
        match (fstype, bind) {
            _ if entry.options.remount => ops.push(entry.op(remount(&entry, bind.is_some()))),
            (_, Some(recursive)) => ops.push(entry.op(Action::Bind(self.bind(&entry, recursive)?))),
            ("", None) => {
                return Err(Error::invalid(
                    format!("{field}.type"),
                    "",
                    "must name a filesystem unless the mount is a `bind`",
                ));
            }
            ("cgroup" | "cgroup2", None) => cgroup::plan(self.facts, &entry, fstype, ops)?,
            ("sysfs", None) if self.facts.confined() && !self.facts.netns => {
                ops.push(entry.op(Action::Bind(host_sysfs(&entry))));
            }
            (fstype, None) => ops.push(entry.op(Action::New(self.filesystem(&entry, fstype)))),
        }
        Ok(())
    }

    fn bind(&self, entry: &Entry<'_>, recursive: bool) -> Result<Bind> {
        let source = entry.mount.source().as_ref().ok_or_else(|| {
            Error::invalid(format!("{}.source", entry.field), "", "is needed by a bind mount")
        })?;
        checks::bind_options(entry)?;
        let (uid, gid) = checks::mappings(entry.mount);
        let idmap = (entry.options.idmap.is_some() || !uid.is_empty()).then(|| IdMap {
            recursive: entry.options.idmap == Some(true),
            maps: (!uid.is_empty()).then(|| (uid.to_vec(), gid.to_vec())),
        });
        let (top, unwanted) = entry.options.of_bind();
        // Without the `.` of relative ones.
        let source: PathBuf = self.bundle.join(source).components().collect();
        let inside = self.within_root(&source);
        Ok(Bind {
            top,
            unwanted,
            idmap,
            inside: inside.is_some(),
            ..entry.bind(inside.unwrap_or(source), recursive)
        })
    }

    /// Some callers write where a mount's place is on the host; other runtimes take the rootfs away from it.
    fn without_root<'p>(&self, destination: &'p Path) -> &'p Path {
        destination.strip_prefix(self.rootfs).unwrap_or(destination)
    }

    /// The path inside of a source in the root filesystem, which is looked up like every path of the container's.
    fn within_root(&self, source: &Path) -> Option<PathBuf> {
        let rest = source.strip_prefix(self.rootfs).ok()?;
        let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && rest != Path::new("")).then(|| Path::new("/").join(rest))
    }

    fn filesystem(&self, entry: &Entry<'_>, fstype: &str) -> Filesystem {
        let mut filesystem = entry.filesystem(fstype);
        let readonly = filesystem.attributes & attr::RDONLY != 0;
        // A tmpfs gets its content first: devices, places for later mounts.
        filesystem.seal = readonly && fstype == "tmpfs";
        if filesystem.seal {
            filesystem.attributes &= !attr::RDONLY;
        }
        let kernel_made = matches!(fstype, "tmpfs" | "proc" | "sysfs" | "devpts" | "mqueue");
        if readonly && !kernel_made {
            // The filesystem of a read-only device must not even try to write its journal.
            filesystem.data.insert(0, "ro".to_owned());
        }
        entry.labelled(filesystem)
    }
}

/// The whole `/sys` of the host: a user namespace may create sysfs only for a network namespace it owns.
fn host_sysfs(entry: &Entry<'_>) -> Bind {
    let mut bind = entry.bind(PathBuf::from("/sys"), true);
    // What was asked of one mount must hold for all that now come along.
    bind.tree.set |= bind.top.set & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
    bind
}

fn remount(entry: &Entry<'_>, bind: bool) -> Action {
    let readonly = entry.options.top.set & attr::RDONLY != 0;
    let superblock = (!bind).then(|| {
        let mut data = entry.data();
        data.insert(0, if readonly { "ro" } else { "rw" }.to_owned());
        data
    });
    Action::Remount(Remount {
        superblock,
        top: entry.options.top,
        tree: entry.options.tree,
        propagation: entry.options.propagation.clone(),
    })
}

#[cfg(test)]
mod tests;
