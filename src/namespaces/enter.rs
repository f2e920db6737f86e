//! Entering namespaces: for the moment of a clone, so that the child is born in them, or for good.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use super::{Kind, Namespaces};
use crate::error::{During, Error, Result};

/// The namespaces that a parent holds around the clone of init, and leaves again when dropped.
///
/// Joining an existing pid or time namespace concerns children only, and a child in a new user namespace may not join what
/// the host owns: so the parent joins, clones, and goes back.
#[derive(Debug, Default)]
pub struct Held {
    back: Vec<(Kind, OwnedFd)>,
}

impl Held {
    /// Enters every joined namespace of the list, except the user namespace (there is no way back from it) and the mount
    /// namespace (which init joins by itself: it would take our current directory).
    pub fn enter(namespaces: &Namespaces) -> Result<Self> {
        let mut held = Self { back: Vec::new() };
        for (kind, path) in namespaces.all_joined() {
            if !matches!(kind, Kind::User | Kind::Mount) {
                held.enter_one(kind, path)?;
            }
        }
        Ok(held)
    }

    /// Makes a new time namespace for the next child and sets its clocks (`time_namespaces(7)`: the offsets are fixed once
    /// a process lives in it).
    pub fn new_time(&mut self, offsets: &str) -> Result<()> {
        let back = open(Path::new("/proc/self/ns/time"))?;
        nix::sched::unshare(CloneFlags::from_bits_retain(Kind::Time.flag() as i32))
            .during(|| "make a time namespace")?;
        self.back.push((Kind::Time, back));
        if !offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", offsets).during(|| "set `linux.timeOffsets`")?;
        }
        Ok(())
    }

    fn enter_one(&mut self, kind: Kind, path: &Path) -> Result<()> {
        let own = open(&Path::new("/proc/self/ns").join(kind.file()))?;
        join(kind, path)?;
        self.back.push((kind, own));
        Ok(())
    }

    /// Stays in the namespaces for good.
    pub fn stay(mut self) {
        self.back.clear();
    }

    /// Goes back to the namespaces the process came from.
    pub fn leave(mut self) -> Result<()> {
        self.go_back()
    }

    fn go_back(&mut self) -> Result<()> {
        while let Some((kind, fd)) = self.back.pop() {
            return_to(fd.as_fd(), kind)?;
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(e) = self.go_back() {
            // Going on in a tenant's namespace would be worse than dying.
            log::error!("{e}");
            std::process::abort();
        }
    }
}

/// The way of a process into a time namespace that it makes for itself.
#[derive(Debug)]
pub struct Clocks {
    offsets: File,
}

impl Clocks {
    /// The way there, for an init that makes its own. To be called while the process may be looked into: the file of one that is
    /// hidden belongs to the host's root.
    pub fn open(namespaces: &Namespaces) -> Result<Option<Self>> {
        if !namespaces.is_late(Kind::Time) {
            return Ok(None);
        }
        let offsets = File::options().write(true).open("/proc/self/timens_offsets");
        let offsets = offsets.during(|| "open `/proc/self/timens_offsets`")?;
        Ok(Some(Self { offsets }))
    }

    /// Makes the namespace, sets its clocks and goes there.
    pub fn enter(mut self, offsets: &str) -> Result<()> {
        unshare(Kind::Time)?;
        if !offsets.is_empty() {
            let written = self.offsets.write_all(offsets.as_bytes());
            written.during(|| "set `linux.timeOffsets`")?;
        }
        join(Kind::Time, "/proc/self/ns/time_for_children".as_ref())
    }
}

/// Joins the namespace at `path`, which must be of this kind.
pub fn join(kind: Kind, path: &Path) -> Result<()> {
    let fd = open(path)?;
    set(fd.as_fd(), kind).map_err(|e| match e {
        Error::Io(io) if io.raw_os_error() == Some(Errno::EINVAL as i32) => Error::invalid(
            "linux.namespaces",
            path.display(),
            format!("is not a usable {} namespace", kind.file()),
        ),
        e => Error::During {
            what: format!("join namespace `{}`", path.display()),
            source: Box::new(e),
        },
    })
}

/// Goes back to a namespace of which a handle was kept.
pub fn return_to(namespace: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    set(namespace, kind).during(|| format!("go back to the own {} namespace", kind.file()))
}

/// Joins all these namespaces of a process at once, in the order the kernel knows to be right (`setns(2)` with a pidfd).
pub fn join_process(pidfd: BorrowedFd<'_>, kinds: &[Kind]) -> Result<()> {
    let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
    match nix::sched::setns(pidfd, CloneFlags::from_bits_retain(flags as i32)) {
        // It has ended since it was looked at.
        Err(Errno::ESRCH) => Err(Error::Status("container not running".into())),
        other => other.during(|| "join the container's namespaces"),
    }
}

/// Joins these namespaces one by one, in their order, which is [`Kind::ALL`]'s: what comes first gives the right to the rest.
pub fn join_each(namespaces: &[(Kind, OwnedFd)]) -> Result<()> {
    for (kind, namespace) in namespaces {
        set(namespace.as_fd(), *kind).during(|| format!("join the container's {} namespace", kind.file()))?;
    }
    Ok(())
}

/// Moves this thread into a mount namespace of its own: what it mounts shows nowhere else and goes with it. What the host unmounts
/// still goes here as well.
pub fn leave_mounts() -> Result<()> {
    unshare(Kind::Mount)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).during(|| "part from the host's mounts")
}

/// Makes a namespace of this kind for the calling process.
pub fn unshare(kind: Kind) -> Result<()> {
    nix::sched::unshare(CloneFlags::from_bits_retain(kind.flag() as i32))
        .during(|| format!("make a {} namespace", kind.file()))
}

fn set(fd: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    Ok(nix::sched::setns(
        fd,
        CloneFlags::from_bits_retain(kind.flag() as i32),
    )?)
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .during(|| format!("open namespace `{}`", path.display()))
}
