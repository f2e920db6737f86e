//! A layer in a file system of its own: ext4 in a sparse file, through a loop device.
//!
//! ```text
//! place/disk.ext4    the file; as long as the disk is large, and only what was written takes up room
//! place/loop         number of the loop device it had last
//! place/disk.tmp     one that is being made
//! place/disk.undo    what it takes to undo growing it, while that goes on
//! ```
//! The device lets go of the file when the last mount of it is gone, whoever is killed when (`LO_FLAGS_AUTOCLEAR`). Input and output
//! go past the host's page cache (direct IO), so that no page is kept twice, and what the VPS deletes becomes a hole again (discard).

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use rustix::thread::{CapabilitySet, capabilities};

use super::ext4::{self, BLOCK, Superblock};
use super::volume::{Quota, Usage, Volume};
use crate::error::{During, Error, Result};
use crate::files::{self, Lock};
use crate::sys::{loop_device, quota};

/// How long a device that was let go may take until it is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody may be faster in taking a free loop device.
const TRIES: u32 = 64;

/// A disk in a file.
#[derive(Debug)]
pub(super) struct DiskFile {
    place: PathBuf,
}

impl DiskFile {
    pub(super) fn new(place: PathBuf) -> Self {
        Self { place }
    }

    pub(super) fn is_at(place: &Path) -> bool {
        files::exists(&place.join("disk.ext4"))
    }

    fn file(&self) -> PathBuf {
        self.place.join("disk.ext4")
    }

    fn open(&self) -> Result<File> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(self.file())
            .during(|| format!("open `{}`", self.file().display()))
    }

    fn undo(&self) -> PathBuf {
        self.place.join("disk.undo")
    }

    /// Grows file and file system. The kernel does it for a mounted one, if we may ask for it; one that is not mounted can do without.
    fn grow(&self, file: &File, size: u64) -> Result<()> {
        let may = capabilities(None)?
            .effective
            .contains(CapabilitySet::SYS_RESOURCE);
        if !may && self.attached(file)?.is_some() {
            let why = "condo lacks CAP_SYS_RESOURCE here, without which ext4 does not grow while it is mounted; stop the VPS first";
            return Err(Error::unsupported("growing the disk of a running VPS", why));
        }
        ext4::undo_grow(&self.file(), &self.undo())?;
        file.set_len(size)?;
        if !may {
            return ext4::grow(&self.file(), &self.undo());
        }
        let layer = self.layer()?;
        let (_, device) = self.attach(file)?;
        loop_device::follow_size(device.as_fd())?;
        let top = rustix::fs::openat(&layer, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(quota::grow_ext4(top.as_fd(), size / u64::from(BLOCK))?)
    }

    /// The loop device that the file has now.
    fn attached(&self, file: &File) -> Result<Option<(u32, File)>> {
        let noted = files::read_text(&self.place.join("loop")).ok();
        let Some(number) = noted.and_then(|text| text.trim().parse().ok()) else {
            return Ok(None);
        };
        let Ok(device) = open_device(number) else {
            return Ok(None);
        };
        let status = file.metadata()?;
        // Holding the device open keeps it from letting go meanwhile.
        let same = loop_device::file_of(device.as_fd()).is_ok_and(|of| of == (status.dev(), status.ino()));
        Ok(same.then_some((number, device)))
    }

    /// The same, and a new one where it has none: two would overwrite each other's blocks. The number is noted first, so that no kill
    /// leaves a device that is not known.
    fn attach(&self, file: &File) -> Result<(u32, File)> {
        let _lock = Lock::wait(&self.place.join("lock"))?;
        if let Some(found) = self.attached(file)? {
            return Ok(found);
        }
        let control = File::open("/dev/loop-control").map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::unsupported(
                "a disk in a file",
                "this kernel has no loop devices (`modprobe loop`)",
            ),
            _ => e.into(),
        })?;
        for _ in 0..TRIES {
            let number = loop_device::free(control.as_fd())?;
            let note = self.place.join("loop");
            files::write_small(&note, number.to_string().as_bytes(), 0o600)?;
            let device = open_device(number)?;
            match loop_device::configure(device.as_fd(), file.as_fd(), BLOCK) {
                Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                other => return Ok(other.map(|()| (number, device))?),
            }
        }
        Err(Error::Busy("every free loop device".into()))
    }
}

fn open_device(number: u32) -> Result<File> {
    let path = format!("/dev/loop{number}");
    let file = File::options().read(true).write(true).open(&path);
    file.during(|| format!("open `{path}`"))
}

impl Volume for DiskFile {
    fn place(&self) -> &Path {
        &self.place
    }

    fn create(&self, quota: &Quota) -> Result<()> {
        if Self::is_at(&self.place) {
            return Ok(());
        }
        let size = quota
            .size
            .ok_or_else(|| Error::invalid("--disk", "", "is missing: a disk in a file has a size"))?;
        files::create_private(&self.place)?;
        let unfinished = self.place.join("disk.tmp");
        files::remove_file(&unfinished)?;
        let make = || -> Result<()> {
            let options = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(
                &unfinished,
                options,
                Mode::from_raw_mode(0o600),
            )?);
            file.set_len(size)?;
            ext4::format(&unfinished, size, quota.inodes)?;
            // After a power loss the name must not be there without what it names.
            file.sync_all()?;
            Ok(std::fs::rename(&unfinished, self.file())?)
        };
        make()
            .during(|| format!("make the disk `{}`", self.file().display()))
            .inspect_err(|_| {
                let _ = files::remove_file(&unfinished);
            })
    }

    fn layer(&self) -> Result<OwnedFd> {
        let file = self.open()?;
        let mount = || -> Result<OwnedFd> {
            ext4::undo_grow(&self.file(), &self.undo())?;
            let (number, _device) = self.attach(&file)?;
            let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", format!("/dev/loop{number}"))?;
            fsconfig_set_flag(&context, "discard")?;
            // A sparse file is zero where nothing was written: tables of inodes need no zeroes.
            fsconfig_set_flag(&context, "noinit_itable")?;
            fsconfig_set_string(&context, "errors", "remount-ro")?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
            Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
        };
        mount().during(|| format!("mount `{}`", self.file().display()))
    }

    fn resize(&self, quota: &Quota) -> Result<()> {
        let file = self.open()?;
        let size = file.metadata()?.len();
        if quota.inodes.is_some() {
            return Err(Error::unsupported(
                "another number of inodes",
                "a disk in a file has as many as it was made for, and grows by its size: use --disk",
            ));
        }
        let wanted = quota.size.unwrap_or(size);
        if wanted < size {
            return Err(Error::unsupported(
                "a smaller disk",
                "ext4 in a file only grows; create another VPS and copy what it is to have",
            ));
        }
        self.grow(&file, wanted)
            .during(|| format!("grow `{}`", self.file().display()))
    }

    fn usage(&self) -> Result<Usage> {
        let file = self.open()?;
        let quota = |inodes| Quota {
            size: file.metadata().ok().map(|status| status.len()),
            inodes: Some(inodes),
        };
        if self.attached(&file)?.is_none() {
            let held = Superblock::read(&file)?;
            return Ok(Usage {
                used: held.used,
                free: None,
                inodes: Some(held.inodes_used),
                quota: quota(held.inodes),
            });
        }
        let held = rustix::fs::fstatvfs(&self.layer()?)?;
        Ok(Usage {
            used: (held.f_blocks - held.f_bfree) * held.f_frsize,
            free: Some(held.f_bavail * held.f_frsize),
            inodes: Some(held.f_files - held.f_ffree),
            quota: quota(held.f_files),
        })
    }

    fn is_counted(&self) -> bool {
        true
    }

    /// Waits for the device to go, which happens when the last process that had the disk mounted has ended.
    fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(file) = self.open() {
            if self.attached(&file)?.is_none() {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::Busy(format!("the disk `{}`", self.file().display())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        files::remove_tree(&self.place)
    }
}
