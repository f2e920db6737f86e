//! Init's part, first half: the tree is put together on top of the host's root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::ops::{Action, Bind, Filesystem, MountOp, Remount};
use super::options::{Propagation, Sharing};
use super::plan::RootfsPlan;
use super::sources::Source;
use super::{MountsOf, Sources, copyup, devices, magic, mount, place, sources};
use crate::error::{During, Result};
use crate::files::Root;

/// A complete tree that has not been entered yet: the host's is still reachable by path, the container's by [`Root`].
#[derive(Debug)]
pub struct Assembled {
    pub(super) root: Root,
    pub(super) plan: RootfsPlan,
    /// Mounts that become read-only at the end.
    pub(super) seals: Vec<OwnedFd>,
}

impl AsFd for Assembled {
    /// The container's root directory.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Has the owners of a detached mount translated ([`MountOp::idmap`]), which is one of the plan's mounts, by its number, by who has
/// a say over its filesystem.
pub type Translate<'a> = dyn FnMut(usize, BorrowedFd<'_>) -> Result<()> + 'a;

/// Puts the tree together, in init: in its new mount namespace, and root in its user namespace.
///
/// `translate` is for sources that appear only now; the others are translated.
///
/// # Errors
/// They name the mount: ``mount `/dev/shm`: …``.
pub fn assemble(plan: &RootfsPlan, sources: Sources, translate: &mut Translate<'_>) -> Result<Assembled> {
    // Modes are exactly those asked for; the process gets its own umask later.
    let umask = rustix::process::umask(Mode::empty());
    let assembled = build(plan, sources, translate);
    rustix::process::umask(umask);
    assembled
}

fn build(plan: &RootfsPlan, sources: Sources, translate: &mut Translate<'_>) -> Result<Assembled> {
    match plan.mounts_of {
        MountsOf::Container => {
            place_root(&sources.root, plan).during(|| "mount the root filesystem")?;
        }
        MountsOf::Joined => plan.cover_with(&sources).map(drop)?,
        // The parent has done so, who takes it away again.
        MountsOf::Caller => {}
    }
    let mut assembled = Assembled {
        root: sources.root.into(),
        plan: plan.clone(),
        seals: Vec::new(),
    };
    for (index, (op, source)) in plan.mounts.iter().zip(sources.binds).enumerate() {
        log::debug!("init: {}: mount `{}`", op.field, op.target.display());
        assembled
            .perform(op, source, &mut |tree| translate(index, tree))
            .during(|| format!("mount `{}`", op.target.display()))?;
    }
    for (device, host) in plan.devices.iter().zip(sources.devices) {
        device.make(&assembled.root, host)?;
    }
    if plan.own_dev {
        devices::links(&assembled.root)?;
    }
    Ok(assembled)
}

/// Attaches the root over its own directory, where hooks find it by `root.path`; where nobody looks or the way there is barred to root
/// of the user namespace, on top of `/`: a place every mount namespace has. Lookups that start at the process's root do not see
/// it there until it is entered.
fn place_root(root: &OwnedFd, plan: &RootfsPlan) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let slash = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    mount::inherit(&slash, plan.inherited)?;
    let own = if plan.shown && !plan.no_pivot {
        own_place(root, &plan.root)
    } else {
        None
    };
    let place = own.unwrap_or(slash);
    // Neither may the root itself travel to the host, nor does pivot_root(2) accept a shared parent.
    let private = Propagation {
        sharing: Sharing::Private,
        recursive: false,
    };
    mount::propagate(&mount_of(&place)?, private)?;
    mount::attach(root, &place)
}

/// The directory that the root is a copy of, as this mount namespace has it.
fn own_place(root: &OwnedFd, path: &Path) -> Option<OwnedFd> {
    let place = sources::open_root_dir(path).ok()?;
    let (here, there) = (rustix::fs::fstat(root).ok()?, rustix::fs::fstat(&place).ok()?);
    ((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)).then_some(place)
}

/// The top directory of the mount that a directory is in.
fn mount_of(place: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(place, ".", flags, Mode::empty())?;
    loop {
        if mount::is_top(&dir)? {
            return Ok(dir);
        }
        dir = rustix::fs::openat(&dir, "..", flags, Mode::empty())?;
    }
}

impl Assembled {
    /// Makes a directory of the process's, as other runtimes do. Where that fails, going there fails too and says what matters.
    pub fn make_directory(&self, path: &Path) {
        if self.root.get(path, OFlags::PATH).is_err() {
            let _ = self.root.create_dir_all(path, 0o755);
        }
    }

    fn perform(
        &mut self,
        op: &MountOp,
        source: Option<Source>,
        translate: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        match &op.action {
            Action::Bind(bind) if bind.inside => {
                let source = op.open_inside(bind, &self.root)?;
                if bind.idmap.is_some() {
                    translate(source.tree.as_fd())?;
                }
                self.bind(op, bind, &source)
            }
            Action::Bind(bind) => match source {
                Some(source) => self.bind(op, bind, &source),
                None => Ok(()),
            },
            Action::New(fs) => self.new_filesystem(&op.target, fs),
            Action::Remount(change) => self.remount(op, change),
            Action::Link(to) => devices::link(&self.root, &op.target, to, false),
        }
    }

    fn bind(&self, op: &MountOp, bind: &Bind, source: &Source) -> Result<()> {
        let Source { tree, is_directory } = source;
        let target = op.target.as_path();
        if target == Path::new("/proc") {
            magic::require(tree, magic::PROC, "procfs")?;
        }
        let place = place::of_mount(&self.root, target, *is_directory)?;
        // What init itself has mounted, it may mount otherwise; the kernel locks the rest.
        let confined = self.plan.confined && !bind.inside;
        mount::change_bind(tree, bind, confined, &op.field)?;
        mount::change_inherited(tree, true, bind.tree, &op.field)?;
        for &propagation in &bind.propagation {
            mount::propagate(tree, propagation)?;
        }
        mount::attach(tree, &place)
    }

    fn new_filesystem(&mut self, target: &Path, fs: &Filesystem) -> Result<()> {
        let mut fs = fs.clone();
        if let Some(mode) = self.image_mode(target, &fs) {
            fs.data.push(mode);
        }
        let place = if matches!(fs.fstype.as_str(), "proc" | "sysfs") {
            place::plain_directory(&self.root, target)?
        } else {
            place::of_mount(&self.root, target, true)?
        };
        let new = mount::create(&fs)?;
        if fs.copy_up {
            copyup::copy(&place, &new).during(|| "copy up what the image has there")?;
        }
        for &propagation in &fs.propagation {
            mount::propagate(&new, propagation)?;
        }
        mount::attach(&new, &place)?;
        if fs.seal {
            self.seals.push(new);
        }
        Ok(())
    }

    /// A tmpfs on a directory of the image takes its permissions, so that `/tmp` stays what it is.
    fn image_mode(&self, target: &Path, fs: &Filesystem) -> Option<String> {
        if fs.fstype != "tmpfs" || fs.data.iter().any(|d| d.starts_with("mode=")) {
            return None;
        }
        let there = self.root.get(target, OFlags::PATH).ok()?;
        let stat = rustix::fs::fstat(there).ok()?;
        Some(format!("mode={:o}", stat.st_mode & 0o7777))
    }

    fn remount(&self, op: &MountOp, change: &Remount) -> Result<()> {
        let place = self.root.get(&op.target, OFlags::PATH)?;
        if let Some(data) = &change.superblock {
            mount::reconfigure(&place, data)?;
        }
        mount::change_inherited(&place, false, change.top, &op.field)?;
        mount::change_inherited(&place, true, change.tree, &op.field)?;
        for &propagation in &change.propagation {
            mount::propagate(&place, propagation)?;
        }
        Ok(())
    }
}
