//! One directory of one cgroup hierarchy.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::setting::{Missing, Setting};
use crate::error::{During, Error, Result};
use crate::files;
use crate::undo::Undo;

/// How often a busy directory is tried again, waiting twice as long each time, 1 ms at first: 2 s in all.
const REMOVAL_ATTEMPTS: u32 = 12;

/// A cgroup's directory, as a handle and as the path it has on the host.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let fd = files::open_dir(&path)?;
        Ok(Self { path, fd })
    }

    /// A directory below this one, or this one again.
    pub(super) fn sub(&self, path: &Path) -> Result<Self> {
        let path = self.path.join(path);
        Self::open(path.clone()).map_err(|e| match e {
            // What callers match is in runc's words.
            e if e.is_gone() => Error::Status(format!(
                "--cgroup: adding pid of a new process to cgroups {}/cgroup.procs: no such file or directory",
                path.display()
            )),
            e => e,
        })
    }

    /// Like [`Dir::open`], with `None` for one that is not there.
    pub(super) fn find(path: PathBuf) -> Result<Option<Self>> {
        match Self::open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if e.is_gone() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates `path` below `mount` with its parents; each level is `connect`ed to the one above. The flag says whether the
    /// last one is new. What is made is undone by `undo`.
    pub(super) fn create(
        mount: &Path,
        path: &Path,
        undo: &mut Undo<'_>,
        connect: &dyn Fn(&Self, &Self) -> Result<()>,
    ) -> Result<(Self, bool)> {
        let mut here = Self::open(mount.to_path_buf())?;
        let mut new = false;
        for part in path.components().skip(1) {
            let child = here.path.join(part);
            new = make(&child)?;
            if new {
                let made = child.clone();
                undo.push(move || Ok(std::fs::remove_dir(made)?));
            }
            let child = Self::open(child)?;
            connect(&here, &child)?;
            here = child;
        }
        Ok((here, new))
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        files::read_at(self.as_fd(), file).during(|| self.name())
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        files::write_at(self.as_fd(), file, value).during(|| self.name())
    }

    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::statat(self.as_fd(), file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn name(&self) -> String {
        format!("cgroup `{}`", self.path.display())
    }

    /// Writes one setting, minding what its absence on this kernel means. A weight is absent too where the file is there, but
    /// is about devices of another scheduler (`EOPNOTSUPP`).
    pub(super) fn set(&self, setting: &Setting) -> Result<()> {
        let Err(first) = self.write(&setting.file, &setting.value) else {
            return Ok(());
        };
        let is_elsewhere = first.errno() == Some(Errno::OPNOTSUPP.raw_os_error());
        let is_missing = first.is_gone() && self.has("cgroup.procs");
        if !(is_elsewhere || is_missing) {
            return Err(first);
        }
        match &setting.missing {
            Missing::Skip => Ok(()),
            Missing::Refuse if is_elsewhere => Err(first),
            Missing::Refuse => Err(self.lacks(&setting.file)),
            Missing::Instead(file, value) => self.write(file, value).map_err(|e| match e {
                e if !e.is_gone() => e,
                _ if is_elsewhere => first,
                _ => self.lacks(&format!("{}` or `{file}", setting.file)),
            }),
        }
    }

    fn lacks(&self, file: &str) -> Error {
        Error::unsupported(
            format!("limit `{file}`"),
            format!(
                "{} has no such file: the controller is not enabled there or the kernel is too old",
                self.name()
            ),
        )
    }

    /// Writes the settings of one controller. Some depend on the old value of another (memory ≤ memory and swap, burst ≤
    /// quota): the kernel refuses with `EINVAL` what does not fit yet, so it is tried again once its siblings are in place.
    /// That serves raising and lowering alike, without reading anything back.
    pub(super) fn set_all(&self, settings: &[Setting]) -> Result<()> {
        let mut left: Vec<&Setting> = settings.iter().collect();
        loop {
            let mut refused = Vec::new();
            let mut first = None;
            for setting in &left {
                match self.set(setting) {
                    Ok(()) => {}
                    Err(e) if e.errno() == Some(Errno::INVAL.raw_os_error()) => {
                        refused.push(*setting);
                        first.get_or_insert(e);
                    }
                    Err(e) => return Err(e),
                }
            }
            match first {
                None => return Ok(()),
                Some(e) if refused.len() == left.len() => return Err(e),
                Some(_) => left = refused,
            }
        }
    }

    /// Moves a process here.
    pub(super) fn join(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Moves the calling thread, the only one of its process, here (v1 alone has `tasks`).
    ///
    /// The kernel need not hold off forks and exits for a thread that moves itself, so this does not wait for a grace period
    /// (`cgroup_procs_write_start`, since 5.6; older kernels wait).
    pub(super) fn enter(&self) -> Result<()> {
        self.write("tasks", "0")
    }

    /// All processes here and below.
    pub(super) fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        let mut enter = |dir: BorrowedFd<'_>| match files::read_at(dir, "cgroup.procs") {
            Ok(text) => {
                pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
                Ok(())
            }
            // A threaded cgroup2: its processes are listed by the domain above it.
            Err(e) if e.errno() == Some(Errno::OPNOTSUPP.raw_os_error()) || is_gone(&e) => Ok(()),
            Err(e) => Err(e),
        };
        walk(self.as_fd(), &mut enter, &mut |_, _| Ok(())).during(|| self.name())?;
        pids.sort_unstable();
        pids.dedup();
        // 0 stands for a process outside of our pid namespace, which we could not name.
        pids.retain(|p| *p > 0);
        Ok(pids)
    }

    /// Gives the directory and those of the `files` that are there to a user.
    pub(super) fn chown(&self, uid: u32, gid: u32, files: &[&str]) -> Result<()> {
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        let group = Some(rustix::fs::Gid::from_raw(gid));
        let chown = |file: &str, flags| match rustix::fs::chownat(self.as_fd(), file, owner, group, flags) {
            Err(Errno::NOENT) if !file.is_empty() => Ok(()),
            other => {
                other.during(|| format!("{}: give `{file}` to user `{uid}`, group `{gid}`", self.name()))
            }
        };
        chown("", AtFlags::EMPTY_PATH)?;
        files
            .iter()
            .try_for_each(|file| chown(file, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Removes the directory and all below it, which a tenant may have made. Processes that are just being reaped keep a
    /// cgroup busy for a moment.
    ///
    /// # Errors
    /// `EBUSY` when processes are left after 2 s.
    pub(super) fn remove(&self) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        for _ in 1..REMOVAL_ATTEMPTS {
            match self.remove_now() {
                Err(e) if e.errno() == Some(Errno::BUSY.raw_os_error()) => {}
                other => return other,
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.remove_now()
    }

    /// Removes the directory unless something is in it.
    pub(super) fn remove_if_empty(&self) -> Result<()> {
        match rmdir(rustix::fs::CWD, self.path.as_os_str()) {
            Err(e) if e.errno() == Some(Errno::BUSY.raw_os_error()) => Ok(()),
            other => forgive(other).during(|| format!("remove {}", self.name())),
        }
    }

    /// First without a look inside: most have nothing below them.
    fn remove_now(&self) -> Result<()> {
        let remove = |parent: BorrowedFd<'_>, name: &OsStr| forgive(rmdir(parent, name));
        let all = || -> Result<()> {
            match remove(rustix::fs::CWD, self.path.as_os_str()) {
                Err(e) if e.errno() == Some(Errno::BUSY.raw_os_error()) => {}
                other => return other,
            }
            match walk(self.as_fd(), &mut |_| Ok(()), &mut |p, n| remove(p, n)) {
                Err(e) if !is_gone(&e) => return Err(e),
                _ => {}
            }
            remove(rustix::fs::CWD, self.path.as_os_str())
        };
        all().during(|| format!("remove {}", self.name()))
    }
}

fn rmdir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn forgive(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if is_gone(&e) => Ok(()),
        other => other,
    }
}

/// `ENODEV` is what a file says that was opened just before its cgroup went.
pub(super) fn is_gone(e: &Error) -> bool {
    e.is_gone() || e.errno() == Some(Errno::NODEV.raw_os_error())
}

fn make(path: &Path) -> Result<bool> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e).during(|| format!("create cgroup `{}`", path.display())),
    }
}

/// Goes through a tree: `enter` is called for each directory before those below it, `leave` for each but the top one after
/// them, with its parent and its name.
///
/// Holds one descriptor however deep the tree is, because a tenant decides how deep; `..` is safe to follow, because the
/// kernel lets nobody move a cgroup to another parent.
fn walk(
    top: BorrowedFd<'_>,
    enter: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &OsStr) -> Result<()>,
) -> Result<()> {
    let mut here = open_at(top, OsStr::new("."))?;
    enter(here.as_fd())?;
    let mut names: Vec<OsString> = Vec::new();
    let mut left = vec![children(here.as_fd())?];
    while let Some(siblings) = left.last_mut() {
        if let Some(name) = siblings.pop() {
            match open_at(here.as_fd(), &name) {
                Err(e) if is_gone(&e) => continue,
                opened => here = opened?,
            }
            enter(here.as_fd())?;
            names.push(name);
            left.push(children(here.as_fd())?);
        } else {
            left.pop();
            if let Some(name) = names.pop() {
                here = open_at(here.as_fd(), OsStr::new(".."))?;
                leave(here.as_fd(), &name)?;
            }
        }
    }
    Ok(())
}

fn open_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn children(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        match entry {
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".." {
                    names.push(OsStr::from_bytes(name).to_os_string());
                }
            }
            // The directory went while it was read.
            Err(Errno::NOENT) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(names)
}
