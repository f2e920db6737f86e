//! What lies on the host, opened in the parent and inherited by init as descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use super::devices::Device;
use super::mount;
use super::ops::{Action, Bind, IdMap, MountOp};
use super::options::Sharing;
use super::plan::RootfsPlan;
use crate::error::{During, Error, Result};
use crate::files::Root;
use crate::sys::mount::{Attributes, attr, set_attributes};

/// Makes a user namespace with these user and group maps.
pub type UsernsFor<'a> = dyn FnMut(&[LinuxIdMapping], &[LinuxIdMapping]) -> Result<OwnedFd> + 'a;

/// Detached mounts of everything the tree takes from the host. They vanish when dropped.
#[derive(Debug)]
pub struct Sources {
    pub(super) root: OwnedFd,
    /// One for each of the plan's mounts; `None` for what is no bind mount, or optional and not there.
    pub(super) binds: Vec<Option<Source>>,
    /// One for each of the plan's devices; `None` where init makes the node itself.
    pub(super) devices: Vec<Option<OwnedFd>>,
}

/// The source of a bind mount, as a detached mount.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) tree: OwnedFd,
    /// Whoever opened it may know: a FUSE file system answers its owner alone, and refuses root of the container's user namespace.
    pub(super) is_directory: bool,
}

impl Source {
    fn of(node: &OwnedFd, recursive: bool) -> Result<Self> {
        Ok(Self {
            tree: mount::clone(node, recursive)?,
            is_directory: FileType::from_raw_mode(rustix::fs::fstat(node)?.st_mode) == FileType::Directory,
        })
    }
}

impl RootfsPlan {
    /// Opens what the tree takes from the host. Nothing is changed on the host.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a source that is missing or a rootfs that is a symbolic link; `EPERM` without `CAP_SYS_ADMIN`.
    pub fn open_sources(&self) -> Result<Sources> {
        let root = open_root(&self.root, self.inherited)
            .during(|| format!("open rootfs `{}`", self.root.display()))?;
        let binds = self
            .mounts
            .iter()
            .map(|op| op.open_source(self.inherited))
            .collect::<Result<_>>()?;
        let devices = self
            .devices
            .iter()
            .map(|device| {
                if self.confined {
                    open_device(device)
                } else {
                    Ok(None)
                }
            })
            .collect::<Result<_>>()?;
        Ok(Sources { root, binds, devices })
    }
}

/// A device of the host, cut off from the peers of the host's mount: nothing can be mounted below a node, and CRIU cannot bring back
/// nodes of several names that are peers of one another.
fn open_device(device: &Device) -> Result<Option<OwnedFd>> {
    let node = device.open_host()?;
    node.iter()
        .try_for_each(|node| mount::inherit(node, Sharing::Private))?;
    Ok(node)
}

/// The rootfs as a tree of its own. Its path is canonical, so a symbolic link anywhere on it was put there after the check.
pub(super) fn open_root(path: &Path, sharing: Sharing) -> Result<OwnedFd> {
    let tree = mount::clone(&open_root_dir(path)?, true)?;
    // Never a peer of the host's mount: what is mounted below it must not appear on the host. A shared root is in "a new peer
    // group" (rootfsPropagation in the runtime spec), and in no other.
    let apart = match sharing {
        Sharing::Shared => Sharing::Private,
        other => other,
    };
    mount::inherit(&tree, apart)?;
    Ok(tree)
}

/// The rootfs as a place of the host's.
pub(super) fn open_root_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|e| match e {
        rustix::io::Errno::LOOP => {
            Error::invalid("root.path", path.display(), "is or passes a symbolic link")
        }
        rustix::io::Errno::NOENT => Error::invalid("root.path", path.display(), "does not exist"),
        rustix::io::Errno::NOTDIR => Error::invalid("root.path", path.display(), "is not a directory"),
        other => other.into(),
    })
}

impl MountOp {
    fn open_source(&self, sharing: Sharing) -> Result<Option<Source>> {
        let Action::Bind(bind @ Bind { inside: false, .. }) = &self.action else {
            return Ok(None);
        };
        let node = match rustix::fs::openat(CWD, &bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        {
            Err(rustix::io::Errno::NOENT) if bind.optional => return Ok(None),
            Err(rustix::io::Errno::NOENT) => return Err(self.missing(bind)),
            other => other.during(|| self.opening(bind))?,
        };
        let source = Source::of(&node, bind.recursive).during(|| self.opening(bind))?;
        mount::inherit(&source.tree, sharing).during(|| self.opening(bind))?;
        Ok(Some(source))
    }

    /// Opens a source of [`Bind::inside`], as it is now.
    pub(super) fn open_inside(&self, bind: &Bind, root: &Root) -> Result<Source> {
        let place = match root.get(&bind.source, OFlags::PATH) {
            Err(e) if e.is_gone() => return Err(self.missing(bind)),
            other => other?,
        };
        Source::of(&place, bind.recursive).during(|| self.opening(bind))
    }

    fn missing(&self, bind: &Bind) -> Error {
        Error::invalid(
            format!("{}.source", self.field),
            bind.source.display(),
            format!("does not exist; it is to appear at `{}`", self.target.display()),
        )
    }

    fn opening(&self, bind: &Bind) -> String {
        format!(
            "mount `{}`: {}.source: open `{}`",
            self.target.display(),
            self.field,
            bind.source.display()
        )
    }
}

impl Sources {
    /// Takes other detached mounts: one for the root filesystem, and device nodes by their paths inside.
    pub fn with(
        mut self,
        plan: &RootfsPlan,
        root: Option<OwnedFd>,
        devices: Vec<(PathBuf, OwnedFd)>,
    ) -> Self {
        self.root = root.unwrap_or(self.root);
        for (path, node) in devices {
            let at = plan.devices.iter().position(|device| device.path == path);
            if let Some(place) = at.and_then(|at| self.devices.get_mut(at)) {
                *place = Some(node);
            }
        }
        self
    }

    /// Translates owners where the plan asks for it. In the parent, before init attaches anything.
    ///
    /// `userns_for` makes a user namespace with the given user and group maps; a mount without maps of its own takes
    /// `container_userns`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a filesystem that cannot translate owners.
    pub fn idmap(
        &self,
        plan: &RootfsPlan,
        userns_for: &mut UsernsFor<'_>,
        container_userns: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        for (op, source) in plan.mounts.iter().zip(&self.binds) {
            if let Some(source) = source {
                op.idmap(source.tree.as_fd(), userns_for, container_userns)?;
            }
        }
        Ok(())
    }
}

impl MountOp {
    /// Translates the owners of this bind mount, which is not in place yet, if that is asked for: see [`Sources::idmap`].
    pub fn idmap(
        &self,
        tree: BorrowedFd<'_>,
        userns_for: &mut UsernsFor<'_>,
        container_userns: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let Some(idmap) = self.wanted_idmap() else {
            return Ok(());
        };
        let own = idmap.maps.as_ref().map(|(uid, gid)| userns_for(uid, gid));
        let own = own.transpose()?;
        let userns = own.as_ref().map(AsFd::as_fd).or(container_userns);
        let userns = userns.ok_or_else(|| {
            Error::invalid(
                &self.field,
                self.target.display(),
                "has no user namespace to map to",
            )
        })?;
        translate(tree, idmap.recursive, userns)
            .during(|| format!("mount `{}`: {}: map owners", self.target.display(), self.field))
    }

    /// How owners are to be translated, if they are.
    pub fn wanted_idmap(&self) -> Option<&IdMap> {
        match &self.action {
            Action::Bind(bind) => bind.idmap.as_ref(),
            _ => None,
        }
    }
}

fn translate(tree: BorrowedFd<'_>, recursive: bool, userns: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attributes {
        set: attr::IDMAP,
        userns: Some(userns),
        ..Attributes::default()
    };
    match set_attributes(tree, recursive, &attributes) {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            Err(Error::unsupported(
                "an id-mapped mount",
                "the source's filesystem, or one below it, cannot translate owners",
            ))
        }
        other => Ok(other?),
    }
}
