//! The files of a VPS as seen from inside, whether or not it runs.
//!
//! They are reached by a handle of its root: of a running one that of its init, with all that is mounted inside; of a stopped one
//! its disk, mounted for this alone where nobody else sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::file::Ids;
use crate::error::{During, Error, Result};
use crate::files::{Lock, Root};
use crate::namespaces::enter;
use crate::namespaces::user::IdMap;
use crate::storage::Owners;
use crate::sys::cred::FsIdentity;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// Filesystems that hold nothing but files (`statfs(2)`): overlay, tmpfs, ramfs, ext4, xfs, btrfs. In a procfs or sysfs, which a
/// tenant may mount wherever we are told to go, real root would change the host by what it writes.
const ORDINARY: [u64; 6] = [
    0x794c_7630,
    0x0102_1994,
    0x8584_58f6,
    0xef53,
    0x5846_5342,
    0x9123_683e,
];

/// The files of one VPS. While it lives nobody starts, stops or changes the VPS.
#[derive(Debug)]
pub struct Guest {
    root: Root,
    ids: Ids,
    /// Its init, if it runs.
    init: Option<OwnedFd>,
    _lock: Lock,
}

impl Condo {
    /// Opens the files of a VPS, running, frozen or stopped.
    pub fn guest(&self, name: &Name) -> Result<Guest> {
        let (record, lock) = self.hold_settled(name)?;
        pending::refuse(&record)?;
        let status = self.status(name)?;
        let (root, init) = match status {
            VpsStatus::Stopped => (self.mounted(&record)?, None),
            VpsStatus::Created => return Err(Error::Busy("the VPS".into())),
            VpsStatus::Running | VpsStatus::Paused => {
                let (root, init) = self.root_of_init(name)?;
                (root, Some(init))
            }
        };
        let guest = Guest {
            root,
            ids: Ids {
                base: record.uid_base,
                count: record.ids(),
            },
            init,
            _lock: lock,
        };
        guest.check()?;
        Ok(guest)
    }

    fn root_of_init(&self, name: &Name) -> Result<(Root, OwnedFd)> {
        let container = self.container(name)?.ok_or_else(over)?;
        let init = container.init().ok_or_else(over)?;
        let pid = container.state().init.map_or(0, |init| init.pid);
        // The trailing dot: the last component of a root must not be a link, and `/proc/PID/root` is one.
        Ok((Root::open(Path::new(&format!("/proc/{pid}/root/.")))?, init))
    }

    /// Mounts the disk of a stopped VPS, by a thread with a mount namespace of its own: it is attached nowhere else.
    fn mounted(&self, record: &Record) -> Result<Root> {
        let disk = self.disk(record)?;
        let userns = IdMap::shifted(record.uid_base, record.ids()).into_namespace()?;
        let range = record.range();
        let assemble = move || -> Result<OwnedFd> {
            enter::leave_mounts()?;
            let userns = userns.as_fd();
            disk.assemble(Owners { userns, range })
        };
        let assembled = std::thread::scope(|scope| scope.spawn(assemble).join());
        let gone = |_| Error::Corrupt("the thread that mounts the disk is gone".into());
        Ok(Root::from(assembled.map_err(gone)??))
    }
}

fn over() -> Error {
    Error::Status("the VPS has stopped meanwhile; try again".into())
}

impl Guest {
    /// Fails once the VPS this was opened for has ended: after a reboot from inside, its disk is somebody else's to change.
    pub(super) fn check(&self) -> Result<()> {
        let Some(init) = &self.init else {
            return Ok(());
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut [PollFd::new(init, PollFlags::IN)], Some(&now)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(_) => Err(over()),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens what is at `path` inside, links followed inside of the root.
    pub(super) fn get(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.check()?;
        self.root.get(path, flags)
    }

    /// See [`Root::follow`].
    pub(super) fn follow(&self, path: &Path) -> Result<(OwnedFd, std::ffi::OsString)> {
        self.check()?;
        self.root.follow(path)
    }

    /// Its user ids.
    pub(super) fn ids(&self) -> Ids {
        self.ids
    }

    /// The host's number of its user 0.
    pub(in crate::vps) fn base(&self) -> u32 {
        self.ids.base
    }

    /// Its root.
    pub(in crate::vps) fn root(&self) -> &Root {
        &self.root
    }

    /// Makes this thread its root towards filesystems: real root has no number there.
    pub(super) fn identity(&self) -> Result<FsIdentity> {
        FsIdentity::assume(self.ids.base, self.ids.base).during(|| "become the VPS's root for files")
    }
}

/// Whether an open file or directory is on a filesystem that holds nothing but files.
pub(super) fn is_ordinary(file: BorrowedFd<'_>) -> Result<bool> {
    let found = rustix::fs::fstatfs(file).during(|| "look at the filesystem")?;
    Ok(u64::try_from(found.f_type).is_ok_and(|kind| ORDINARY.contains(&kind)))
}
