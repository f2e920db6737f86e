//! cgroup v2: one directory with everything.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::below::Below;
use super::dir::Dir;
use super::hierarchy::{Hierarchy, keyed, kill_each};
use super::stats::{self, Stats};
use crate::error::{During, Error, Result};
use crate::files;
use crate::host::CgroupLayout;
use crate::undo::Undo;

/// How long freezing may take: a process in an uninterruptible wait, such as one for a dead NFS server, delays it.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// The files a delegatee needs, where the kernel does not say (before 4.15).
const DELEGATED: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

/// Sub-cgroups a delegatee may make, below one another too: systemd makes some 50. Each costs the host memory, and those with
/// the memory controller an id, of which the host has 65,535.
const DESCENDANTS: &str = "1024";
/// How many levels of them.
const DEPTH: &str = "32";

/// A cgroup2 directory.
#[derive(Debug)]
pub(super) struct Unified {
    dir: Dir,
    mount: PathBuf,
}

impl Unified {
    /// Creates the directory and its parents. With `enable`, every controller there is comes along; the flag says whether
    /// the directory is new.
    pub(super) fn create(
        mount: &Path,
        path: &Path,
        enable: bool,
        undo: &mut Undo<'_>,
    ) -> Result<(Self, bool)> {
        let connect = |parent: &Dir, _: &Dir| {
            if enable { enable_all(parent) } else { Ok(()) }
        };
        let (dir, new) = Dir::create(mount, path, undo, &connect)?;
        let mount = mount.to_path_buf();
        Ok((Self { dir, mount }, new))
    }

    /// A directory below this one.
    pub(super) fn sub(&self, path: &Path) -> Result<Self> {
        let mount = self.mount.clone();
        Ok(Self {
            dir: self.dir.sub(path)?,
            mount,
        })
    }

    /// Opens the directory, if it is there.
    pub(super) fn find(mount: &Path, path: &Path) -> Result<Option<Self>> {
        let dir = Dir::find(below(mount, path))?;
        let mount = mount.to_path_buf();
        Ok(dir.map(|dir| Self { dir, mount }))
    }

    /// Enables one controller from the mount down to this directory.
    pub(super) fn enable(&self, controller: &str) -> Result<()> {
        let depth = self
            .dir
            .path
            .strip_prefix(&self.mount)
            .map_or(0, |p| p.components().count());
        let ancestors: Vec<_> = self.dir.path.ancestors().skip(1).take(depth).collect();
        for ancestor in ancestors.into_iter().rev() {
            Dir::open(ancestor.to_path_buf())?.write("cgroup.subtree_control", &format!("+{controller}"))?;
        }
        Ok(())
    }

    /// Waits until `cgroup.events` says so; `false` when it did not in time.
    fn wait_event(&self, key: &str, value: u64, limit: Duration) -> Result<bool> {
        let wait = || -> Result<bool> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let events = rustix::fs::openat(self.dir.as_fd(), "cgroup.events", flags, Mode::empty())?;
            let end = Instant::now() + limit;
            loop {
                let mut text = [0; 256];
                let length = rustix::io::pread(&events, &mut text, 0)?;
                if keyed(&String::from_utf8_lossy(&text[..length]), key) == Some(value) {
                    return Ok(true);
                }
                let Some(left) = end.checked_duration_since(Instant::now()) else {
                    return Ok(false);
                };
                // The kernel signals a change since the last read.
                let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
                match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
                    Err(Errno::INTR) => {}
                    other => drop(other?),
                }
            }
        };
        wait().during(|| format!("wait for `{key} {value}` in cgroup `{}`", self.dir.path.display()))
    }

    /// Bounds what is made below, unless the spec did so already. The file stays ours when the directory is delegated.
    fn bound(&self, file: &str, most: &str) -> Result<()> {
        match self.dir.read(file) {
            Ok(now) if now.trim() == "max" => self.dir.write(file, most),
            // Kernels before 4.14.
            Err(e) if e.is_gone() && self.dir.has("cgroup.procs") => Ok(()),
            other => other.map(drop),
        }
    }

    fn event(&self, key: &str) -> Result<u64> {
        Ok(keyed(&self.dir.read("cgroup.events")?, key).unwrap_or_default())
    }
}

impl Hierarchy for Unified {
    fn dirs(&self) -> Vec<(&str, &Dir)> {
        vec![("", &self.dir)]
    }

    fn place(&self, _: &str) -> Result<&Dir> {
        Ok(&self.dir)
    }

    fn cgroup2(&self) -> Option<&Dir> {
        Some(&self.dir)
    }

    fn below(&self, paths: &Below) -> Result<Box<dyn Hierarchy>> {
        if let Some(controller) = paths.unknown(&[]) {
            let problem = "names a controller: with cgroup v2 all share one path";
            return Err(Error::invalid("--cgroup", controller, problem));
        }
        Ok(Box::new(self.sub(paths.path(&[]))?))
    }

    fn processes(&self) -> &Dir {
        &self.dir
    }

    /// Nothing: the process was born here, or is moved by [`Cgroup::adopt`](super::Cgroup::adopt).
    fn join(&self, _: i32) -> Result<()> {
        Ok(())
    }

    fn enter(&self) -> Result<()> {
        Ok(())
    }

    fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        self.bound("cgroup.max.descendants", DESCENDANTS)?;
        self.bound("cgroup.max.depth", DEPTH)?;
        let listed = files::read_text(Path::new("/sys/kernel/cgroup/delegate"));
        let listed = listed.unwrap_or_else(|_| DELEGATED.into());
        self.dir.chown(uid, gid, &listed.lines().collect::<Vec<_>>())
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let value = u64::from(frozen);
        self.dir.write("cgroup.freeze", &value.to_string())?;
        if self.wait_event("frozen", value, FREEZE_LIMIT)? {
            return Ok(());
        }
        if frozen {
            self.dir.write("cgroup.freeze", "0")?;
        }
        Err(Error::Busy(format!(
            "cgroup `{}` (not all of its processes would freeze or thaw)",
            self.dir.path.display()
        )))
    }

    fn is_frozen(&self) -> Result<bool> {
        // By a cgroup above; or by its own file, as soon as that says so: one of its processes may not stand still yet.
        Ok(self.event("frozen")? == 1 || self.dir.read("cgroup.freeze")?.trim() == "1")
    }

    fn kill(&self) -> Result<()> {
        match self.dir.write("cgroup.kill", "1") {
            // Kernels before 5.14.
            Err(e) if e.is_gone() && self.dir.has("cgroup.procs") => kill_each(self),
            other => other,
        }
    }

    fn is_populated(&self) -> Result<bool> {
        Ok(self.event("populated")? == 1)
    }

    fn wait_empty(&self, limit: Duration) -> Result<bool> {
        self.wait_event("populated", 0, limit)
    }

    fn oom_kills(&self) -> Result<u64> {
        if !self.dir.has("memory.events") {
            return Ok(0);
        }
        let events = self.dir.read("memory.events")?;
        Ok(keyed(&events, "oom_kill").unwrap_or_default())
    }

    fn stats(&self) -> Result<Stats> {
        stats::v2::read(&self.dir)
    }
}

/// The cgroup2 directory a running process is in, or `None` on a host with v1 alone.
///
/// `exec` clones into this one and not into the container's: its init may have moved itself into a sub-cgroup and enabled
/// controllers, after which the container's own cgroup takes no processes.
///
/// # Errors
/// One with [`Error::is_gone`] when the process is gone; [`Error::Unsupported`] when it is outside of our cgroup namespace.
pub fn birth_of(layout: &CgroupLayout, pid: i32) -> Result<Option<OwnedFd>> {
    let place = place_of(layout, pid)?;
    place.map(|path| files::open_dir(&path)).transpose()
}

/// Where that directory is.
pub(super) fn place_of(layout: &CgroupLayout, pid: i32) -> Result<Option<PathBuf>> {
    let Some(mount) = layout.unified() else {
        return Ok(None);
    };
    let text = files::read_text(Path::new(&format!("/proc/{pid}/cgroup")))?;
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Ok(None);
    };
    let path = Path::new(path);
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(Error::unsupported(
            format!("cgroup `{}` of process `{pid}`", path.display()),
            "it is outside of this cgroup namespace",
        ));
    }
    Ok(Some(below(mount, path)))
}

/// `path` is absolute as seen from the mount.
pub(super) fn below(mount: &Path, path: &Path) -> PathBuf {
    mount.join(path.strip_prefix("/").unwrap_or(path))
}

/// Enables for the children of `parent` every controller it has and they do not.
fn enable_all(parent: &Dir) -> Result<()> {
    let available = parent.read("cgroup.controllers")?;
    let enabled = parent.read("cgroup.subtree_control")?;
    let enabled: Vec<_> = enabled.split_ascii_whitespace().collect();
    let missing: Vec<String> = available
        .split_ascii_whitespace()
        .filter(|c| !enabled.contains(c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let result = parent.write("cgroup.subtree_control", &missing.join(" "));
    let errno = result
        .as_ref()
        .err()
        .and_then(Error::errno)
        .map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::BUSY) => Err(Error::invalid(
            "cgroup path",
            parent.path.display(),
            "has processes of its own, and cgroup v2 divides resources only among cgroups without: choose another parent \
             or move them into a child",
        )),
        // A cgroup above the one delegated to us: what is not enabled there cannot be had, and the limit that needs it says so.
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(()),
        // One of them is refused (`cpu` while realtime processes exist, say): the others shall not suffer.
        Some(_) => {
            for controller in missing {
                if let Err(e) = parent.write("cgroup.subtree_control", &controller) {
                    log::debug!("controller not enabled: {e}");
                }
            }
            Ok(())
        }
        None => result,
    }
}
