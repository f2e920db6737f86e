//! Paths hidden from the container, and paths it may not write.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use super::ops::Filesystem;
use super::options::Sharing;
use super::{Assembled, devices, entry, magic, mount};
use crate::error::{During, Result};
use crate::sys::mount::attr;

/// Directories that stay empty, because the kernel made them for file systems (`sysfs_create_mount_point` in fs/sysfs/mount.c).
const PLACES: [&str; 3] = [
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/fs/fuse/connections",
];
/// What covers something is not written, nor does it hold programs or devices.
const SEALED: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;

/// What paths are covered with.
#[derive(Default)]
struct Covers {
    /// A `/dev/null`, for files.
    null: Option<OwnedFd>,
    /// A mounted empty directory.
    empty: Option<OwnedFd>,
}

impl Assembled {
    /// Covers files by `/dev/null` and directories by an empty one.
    pub(super) fn mask(&self) -> Result<()> {
        let mut covers = Covers::default();
        for path in &self.plan.masked {
            self.mask_one(path, &mut covers)
                .during(|| format!("mask `{}`", path.display()))?;
        }
        Ok(())
    }

    fn mask_one(&self, path: &Path, covers: &mut Covers) -> Result<()> {
        let Some(place) = self.existing(path)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&place)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let null = match covers.null.take() {
                Some(null) => null,
                None => self.null()?,
            };
            mount::attach(&mount::clone(&null, false)?, &place)?;
            covers.null = Some(null);
            return Ok(());
        }
        let cover = match &covers.empty {
            Some(first) => mount::clone(first, false)?,
            None => self.empty()?,
        };
        mount::attach(&cover, &place)?;
        covers.empty.get_or_insert(cover);
        Ok(())
    }

    /// A directory that can hold nothing: one of the kernel's, as a tmpfs costs time, and memory of every cgroup there is.
    /// Only a tmpfs takes a label.
    fn empty(&self) -> Result<OwnedFd> {
        let label = self.plan.label.as_deref();
        let mut places = PLACES.iter().filter(|_| label.is_none());
        let Some(place) = places.find_map(|place| self.unused(Path::new(place))) else {
            return mount::create(&nothing(label));
        };
        let cover = mount::clone(&place, false)?;
        mount::set(&cover, SEALED)?;
        // What the host mounts there stays with the place.
        mount::inherit(&cover, Sharing::Private)?;
        Ok(cover)
    }

    /// A place of sysfs's for another file system, where there is none.
    fn unused(&self, path: &Path) -> Option<OwnedFd> {
        let place = self.existing(path).ok()??;
        let free = !mount::is_top(&place).ok()?;
        (free && magic::is(&place, magic::SYSFS).ok()?).then_some(place)
    }

    /// `/dev/null`, checked: the image's could be anything (CVE-2025-31133). The container's own, because the host's would give it
    /// an inode to lock and to watch that others use; the host's for one that has none.
    fn null(&self) -> Result<OwnedFd> {
        let null = devices::null();
        match self.existing(&null.path)? {
            Some(own) if null.verify(own.as_fd()).is_ok() => Ok(own),
            _ => null.find_host(),
        }
    }

    /// Makes what is at the paths read-only, without the mounts below.
    pub(super) fn make_readonly(&self) -> Result<()> {
        for path in &self.plan.readonly_paths {
            self.readonly_one(path)
                .during(|| format!("make `{}` read-only", path.display()))?;
        }
        Ok(())
    }

    fn readonly_one(&self, path: &Path) -> Result<()> {
        let Some(place) = self.existing(path)? else {
            return Ok(());
        };
        let cover = mount::clone(&place, true)?;
        mount::set(&cover, attr::RDONLY)?;
        mount::attach(&cover, &place)
    }

    /// What is at `path`; a kernel without it, or an image without it, has nothing to hide.
    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.root.get(path, OFlags::PATH) {
            Err(e) if e.is_gone() => Ok(None),
            Err(e) if e.errno() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) => Ok(None),
            other => other.map(Some),
        }
    }
}

/// An empty directory that can hold nothing.
pub(super) fn nothing(label: Option<&str>) -> Filesystem {
    let mut data = vec!["nr_inodes=1".to_owned(), "mode=755".to_owned()];
    data.extend(label.map(entry::context));
    Filesystem {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        data,
        attributes: SEALED,
        seal: false,
        copy_up: false,
        propagation: Vec::new(),
        label: None,
    }
}
