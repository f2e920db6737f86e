//! Putting figures over the files they stand for, in a mount namespace of somebody else's.
//!
//! The kernel asks for the name of each file on the way, so it is a thread that goes there, while the process itself answers. What
//! is at the places is the tenant's doing: nothing but procfs and sysfs is covered, no link is followed, and a thread that waits
//! for a file system of the tenant's is left to itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
    unmount,
};

use super::{ALLOWED, Figure, Server, Source};
use crate::error::{During, Error, Result};
use crate::pace::Pace;

/// How long the thread may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Magic numbers of `linux/magic.h`.
const PROC: rustix::fs::FsWord = 0x9fa0;
const SYSFS: rustix::fs::FsWord = 0x6265_6572;
const FUSE: rustix::fs::FsWord = 0x6573_5546;

pub(super) fn install(
    server: &mut Server,
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    source: &mut dyn Source,
) -> Result<()> {
    let figures = server.figures();
    let mut pace = Pace::new(ALLOWED);
    let (mount, namespace) = (mount.try_clone_to_owned()?, namespace.try_clone_to_owned()?);
    // Its other end closes when the thread is done, whatever became of it.
    let (done, alive) = io::pipe()?;
    let thread = std::thread::spawn(move || {
        let result = go(&mount, &namespace, figures);
        drop(alive);
        result
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        let mut fds = [
            PollFd::from_borrowed_fd(server.device(), PollFlags::IN),
            PollFd::new(&done, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => continue,
            other => other.during(|| "wait for the figures to be in their places")?,
        };
        let (asked, over) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if over {
            break;
        }
        if !asked {
            return Err(Error::Busy("the places of its figures".into()));
        }
        server.answer(source, &mut pace);
    }
    let died = || {
        Err(Error::Corrupt(
            "the thread that puts figures in their places died".into(),
        ))
    };
    thread.join().unwrap_or_else(|_| died())
}

fn go(mount: &OwnedFd, namespace: &OwnedFd, figures: &[Figure]) -> Result<()> {
    let aside = || -> Result<()> {
        // A thread alone may have a mount namespace of its own, which also parts it from the working directory of the others.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // Before Linux 6.15 only what is mounted in the own namespace can be cloned.
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(mount, "", CWD, "/proc", flags)?)
    };
    aside().during(|| "mount the figures")?;
    let mut files = Vec::new();
    for figure in figures {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let file =
            open_tree(mount, figure.name, flags).during(|| format!("open figure `{}`", figure.name))?;
        files.push((figure.place, file));
    }
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS).during(|| "enter the mount namespace")?;
    for (place, file) in files {
        cover(place, &file).during(|| format!("cover `{place}`"))?;
    }
    Ok(())
}

fn cover(place: &str, file: &OwnedFd) -> Result<()> {
    let Some((mut there, mut magic)) = look(place)? else {
        return Ok(());
    };
    if magic == FUSE {
        unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        match look(place)? {
            Some(beneath) => (there, magic) = beneath,
            None => return Ok(()),
        }
    }
    if ![PROC, SYSFS].contains(&magic) {
        return Ok(());
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(file, "", &there, "", flags)?)
}

/// What is at a place, and on which kind of file system; `None` where there is nothing of that name.
fn look(place: &str) -> Result<Option<(OwnedFd, rustix::fs::FsWord)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat2(CWD, place, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other?,
    };
    match rustix::fs::fstatfs(found.as_fd()) {
        // What a server left that is gone.
        Err(Errno::NOTCONN) => Ok(Some((found, FUSE))),
        about => Ok(Some((found, about?.f_type))),
    }
}
