//! Mounts as descriptors: cloned, created, changed and put in place without a path.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, XattrFlags, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use super::magic;
use super::ops::{Bind, Filesystem};
use super::options::{Change, LOCKABLE, Propagation, Sharing};
use crate::error::{During, Error, Result};
use crate::files::overlay::layers_of;
use crate::sys::mount::{Attributes, attr, set_attributes};

/// The longest value `fsconfig(2)` takes.
const MAX_VALUE: usize = 255;

/// A detached copy of what `fd` (also an `O_PATH` one) is.
pub(super) fn clone(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(fd, "", flags)?)
}

/// Whether this is the top of a mount.
pub(super) fn is_top(fd: impl AsFd) -> Result<bool> {
    let seen = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Puts a detached mount in its place.
pub(super) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", place, "", flags)?)
}

/// Changes attributes. Only the bits named are touched, so those that a user namespace has locked stay as they are.
pub(super) fn change(mount: impl AsFd, recursive: bool, change: Change) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    let attributes = Attributes {
        set: change.set,
        clear: change.clear,
        ..Attributes::default()
    };
    Ok(set_attributes(mount.as_fd(), recursive, &attributes)?)
}

/// Changes attributes of something that was mounted before, by the options of `field`.
///
/// What more privileged users set on a mount is locked in a user namespace that did not make it (`mount_namespaces(7)`). An
/// option that would clear it is an error; a wish about access times, which costs nobody anything, gives way.
pub(super) fn change_inherited(mount: impl AsFd, recursive: bool, wanted: Change, field: &str) -> Result<()> {
    let result = change(&mount, recursive, wanted);
    match result {
        Err(e) if is_denied(&e) => {
            let rest = wanted.without_atime();
            if rest != wanted && change(&mount, recursive, rest).is_ok() {
                return Ok(());
            }
            match wanted.clear & LOCKABLE {
                0 => Err(e),
                cleared => Err(locked(cleared, field)),
            }
        }
        other => other,
    }
}

/// Changes the attributes of a bind mount that is not in place yet.
///
/// `confined` says that the mount is for a user namespace other than the one that its source belongs to. What the source is
/// mounted with is locked there: what nobody asked for stays, and what the options would change is an error.
pub(super) fn change_bind(mount: impl AsFd, bind: &Bind, confined: bool, field: &str) -> Result<()> {
    if !confined {
        let whole = Change {
            set: bind.top.set,
            clear: bind.top.clear | bind.unwanted,
        };
        match change(&mount, false, whole) {
            // The caller is in such a user namespace himself.
            Err(e) if is_denied(&e) => {}
            other => return other,
        }
    }
    let now = attributes(&mount)?;
    let lost = now & bind.top.clear & LOCKABLE;
    let times = attr::ATIME_MASK | attr::NODIRATIME;
    let other_times = bind.top.clear & times != 0 && (now ^ bind.top.set) & times != 0;
    if lost != 0 || other_times {
        return Err(locked(lost, field));
    }
    let rest = Change {
        set: bind.top.set & !times,
        clear: (bind.top.clear | bind.unwanted) & attr::NOSYMFOLLOW,
    };
    change(&mount, false, rest)
}

/// What a mount is mounted with, and that of its filesystem's `ro`.
fn attributes(mount: impl AsFd) -> Result<u64> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let flags = rustix::fs::fstatvfs(mount)?.f_flag;
    let plain = [
        (Flags::RDONLY, attr::RDONLY),
        (Flags::NOSUID, attr::NOSUID),
        (Flags::NODEV, attr::NODEV),
        (Flags::NOEXEC, attr::NOEXEC),
        (Flags::NODIRATIME, attr::NODIRATIME),
        (Flags::NOATIME, attr::NOATIME),
    ];
    let set = plain.iter().filter(|(flag, _)| flags.contains(*flag));
    let set = set.fold(0, |set, (_, bit)| set | bit);
    Ok(match flags.intersects(Flags::NOATIME | Flags::RELATIME) {
        true => set,
        false => set | attr::STRICTATIME,
    })
}

fn is_denied(e: &Error) -> bool {
    e.errno() == Some(Errno::PERM.raw_os_error())
}

fn locked(cleared: u64, field: &str) -> Error {
    let names = [
        (attr::RDONLY, "rw"),
        (attr::NOSUID, "suid"),
        (attr::NODEV, "dev"),
        (attr::NOEXEC, "exec"),
    ];
    let mut asked: Vec<_> = names
        .iter()
        .filter(|(bit, _)| cleared & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if asked.is_empty() {
        asked.push("atime");
    }
    // What is in brackets is what callers of runc look for.
    let problem = "cannot be had: the source is mounted otherwise, which only those who mounted it may change; leave it out \
                   (runc run failed: unable to start container process: error during container init: error mounting: \
                   operation not permitted)";
    Error::invalid(format!("{field}.options"), asked.join(","), problem)
}

/// Sets bits of the mount itself.
pub(super) fn set(mount: impl AsFd, bits: u64) -> Result<()> {
    change(mount, false, Change { set: bits, clear: 0 })
}

/// Changes how later mounts are shared.
pub(super) fn propagate(mount: impl AsFd, to: Propagation) -> Result<()> {
    use rustix::mount::MountPropagationFlags as Flags;
    let flag = match to.sharing {
        Sharing::Private => Flags::PRIVATE,
        Sharing::Slave => Flags::DOWNSTREAM,
        Sharing::Shared => Flags::SHARED,
        Sharing::Unbindable => Flags::UNBINDABLE,
    };
    let attributes = Attributes {
        propagation: flag.bits().into(),
        ..Attributes::default()
    };
    Ok(set_attributes(mount.as_fd(), to.recursive, &attributes)?)
}

/// Cuts what comes from the host off from it, as far as the container shall be.
pub(super) fn inherit(mount: impl AsFd, sharing: Sharing) -> Result<()> {
    match sharing {
        Sharing::Shared => Ok(()),
        sharing => propagate(
            mount,
            Propagation {
                sharing,
                recursive: true,
            },
        ),
    }
}

/// A new instance of a filesystem, detached.
pub(super) fn create(fs: &Filesystem) -> Result<OwnedFd> {
    let context = fsopen(fs.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
        .during(|| format!("open filesystem type `{}`", fs.fstype))?;
    let make = || -> std::result::Result<OwnedFd, Refusal<'_>> {
        fsconfig_set_string(&context, "source", fs.source.as_str())?;
        configure(&context, &fs.data)?;
        fsconfig_create(&context)?;
        // The attributes must be right from the first moment: in a user namespace the kernel compares them with those of the
        // procfs or sysfs that is visible already.
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(fs.attributes).unwrap_or(u32::MAX));
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    };
    let mount = make().map_err(|e| refused(fs, explain(&context, &e)))?;
    if let Some(label) = &fs.label {
        set_label(&mount, label)?;
    }
    match fs.fstype.as_str() {
        "proc" => magic::require(&mount, magic::PROC, "procfs")?,
        "sysfs" => magic::require(&mount, magic::SYSFS, "sysfs")?,
        _ => {}
    }
    Ok(mount)
}

/// As go-selinux's `SetFileLabel`, which engines use for their own files.
fn set_label(mount: &OwnedFd, label: &str) -> Result<()> {
    let root = rustix::fs::openat(
        mount,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::fsetxattr(&root, "security.selinux", label.as_bytes(), XattrFlags::empty())
        .during(|| format!("set label `{label}`"))
}

/// The kernel does not say why it refuses procfs and sysfs.
fn refused(fs: &Filesystem, error: Error) -> Error {
    let namespace = match fs.fstype.as_str() {
        "proc" => "pid",
        "sysfs" => "network",
        _ => return error,
    };
    if error.errno() != Some(Errno::PERM.raw_os_error()) {
        return error;
    }
    Error::During {
        what: format!(
            "in a user namespace this takes a {namespace} namespace of the container's own, and a `{}` on the host with \
             nothing mounted over parts of it",
            if namespace == "pid" { "/proc" } else { "/sys" },
        ),
        source: Box::new(error),
    }
}

/// Changes the options of a mounted filesystem.
pub(super) fn reconfigure(mount: impl AsFd, data: &[String]) -> Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(mount, "", flags)?;
    configure(&context, data)
        .and_then(|()| Ok(fsconfig_reconfigure(&context)?))
        .map_err(|e| explain(&context, &e))
}

/// What a filesystem did not take: an option, or all of them together.
struct Refusal<'a> {
    option: Option<&'a str>,
    error: Errno,
}

impl From<Errno> for Refusal<'_> {
    fn from(error: Errno) -> Self {
        Self { option: None, error }
    }
}

fn configure<'a>(context: &OwnedFd, data: &'a [String]) -> std::result::Result<(), Refusal<'a>> {
    for option in data {
        set_option(context, option).map_err(|error| Refusal {
            option: Some(option),
            error,
        })?;
    }
    Ok(())
}

fn set_option(context: &OwnedFd, option: &str) -> rustix::io::Result<()> {
    match option.split_once('=') {
        // overlayfs has a second name for what does not fit into one value.
        Some(("lowerdir", layers)) if layers.len() > MAX_VALUE => {
            let mut layers = layers_of(layers).into_iter();
            layers.try_for_each(|layer| fsconfig_set_string(context, "lowerdir+", layer))
        }
        // Quotes keep a label's commas together in mount(2); here a value is a value.
        Some((key, value)) if key.ends_with("context") => {
            fsconfig_set_string(context, key, value.trim_matches('"'))
        }
        Some((key, value)) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, option),
    }
}

/// The filesystem says in words what it did not like, one message per `read(2)`: `e tmpfs: Bad value for 'size'`. SELinux, whose
/// options each filesystem has, says nothing.
fn explain(context: &OwnedFd, refusal: &Refusal<'_>) -> Error {
    let mut words = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]);
        words.push(text.trim_end().trim_start_matches("e ").to_owned());
    }
    if words.is_empty() {
        words.extend(refusal.option.map(|option| format!("option `{option}`")));
    }
    let error = Error::from(refusal.error);
    if words.is_empty() {
        return error;
    }
    Error::During {
        what: words.join(", "),
        source: Box::new(error),
    }
}
