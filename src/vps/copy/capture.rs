//! A VPS's layer copied as of one moment. First while it runs, which takes long and gets most of it; then what has changed since,
//! while it stands still.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::CWD;

use crate::error::{During, Error, Result};
use crate::files;
use crate::storage::RootDisk;
use crate::storage::tree::{Copied, Direction, Sync, open_dir};
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::Record;
use crate::vps::record::view::VpsStatus;

/// The parts of a layer that are a VPS's own: what it has changed of the image, and what lies beside it.
pub(super) const PARTS: [&str; 2] = ["upper", "plain"];
/// Where files are made, beside the parts.
const STAGE: &str = "stage";

/// A layer that was copied.
#[derive(Debug)]
pub(super) struct Captured {
    /// What it took.
    pub(super) copied: Copied,
    /// How long the VPS stood still, if it ran.
    pub(super) frozen: Option<Duration>,
    /// The VPS at that moment.
    pub(super) record: Record,
    /// Whether it had been started before.
    pub(super) started: bool,
}

/// A copying that goes on.
struct Copying {
    sync: Sync,
    to: OwnedFd,
    older: Option<OwnedFd>,
}

impl Condo {
    /// Copies a VPS's layer into the new directory `to`, with the help of an older copy of it. The caller holds the lock of copies.
    pub(super) fn capture(&self, name: &Name, to: &Path, older: Option<&Path>) -> Result<Captured> {
        if let Some(captured) = self.capture_at_once(name, to)? {
            return Ok(captured);
        }
        let mut copying = self.begin_copying(to, older)?;
        if self.status(name)? != VpsStatus::Stopped {
            self.copy_living(name, &mut copying)?;
        }
        let (record, _lock) = self.hold_settled(name)?;
        let layer = self.layer(&record)?;
        let sync = &mut copying.sync;
        sync.begin(&layer, true)?;
        let still = self.hold_still(name)?;
        sync.still();
        parts(sync, &layer, &copying.to, copying.older.as_ref())?;
        let frozen = still.map(|still| still.go_on()).transpose()?;
        end(&copying.to)?;
        Ok(self.captured(record, copying.sync.copied(), frozen))
    }

    /// The same where the back end does it in one step.
    fn capture_at_once(&self, name: &Name, to: &Path) -> Result<Option<Captured>> {
        let (record, _lock) = self.hold_settled(name)?;
        let volume = self.volume(&record);
        if !volume.is_copied_at_once() {
            return Ok(None);
        }
        let layer = self.layer(&record)?;
        if let Some(parent) = to.parent() {
            files::create_dir_all(parent, 0o700)?;
        }
        // While it goes on: what is written then need not be while it stands still.
        rustix::fs::syncfs(&layer).during(|| "write the layer's pages to disk")?;
        let still = self.hold_still(name)?;
        volume.copy_to(to)?;
        let frozen = still.map(|still| still.go_on()).transpose()?;
        Ok(Some(self.captured(record, Copied::default(), frozen)))
    }

    /// The same as of no moment: what a tenant changes meanwhile is old or new, or is not there.
    pub(super) fn capture_roughly(&self, name: &Name, to: &Path, older: Option<&Path>) -> Result<Captured> {
        let mut copying = self.begin_copying(to, older)?;
        let record = self.copy_living(name, &mut copying)?;
        end(&copying.to)?;
        Ok(self.captured(record, copying.sync.copied(), None))
    }

    fn begin_copying(&self, to: &Path, older: Option<&Path>) -> Result<Copying> {
        files::create_dir_all(to, 0o700)?;
        let to = at(to)?;
        Ok(Copying {
            sync: Sync::new(Direction::Take, stage(&to)?),
            older: older.map(at).transpose()?,
            to,
        })
    }

    fn copy_living(&self, name: &Name, copying: &mut Copying) -> Result<Record> {
        let record = self.store.get(name)?;
        let layer = self.layer(&record)?;
        copying.sync.begin(&layer, true)?;
        match parts(&mut copying.sync, &layer, &copying.to, copying.older.as_ref()) {
            Err(e) if e.is_full() => return Err(e),
            // Its tenant moves things about. The next round gets what is missing.
            Err(e) => log::debug!("a first round of copying ended early: {e}"),
            Ok(()) => {}
        }
        Ok(record)
    }

    fn captured(&self, record: Record, copied: Copied, frozen: Option<Duration>) -> Captured {
        Captured {
            copied,
            frozen,
            started: files::exists(&self.folders.seat(&record.name).provisioned()),
            record,
        }
    }

    /// A VPS's own layer, which is made if it has none yet.
    pub(super) fn layer(&self, record: &Record) -> Result<OwnedFd> {
        let image = self.images().get(&record.config.image)?;
        let volume = self.volume(record);
        volume.create(&record.config.disk.quota())?;
        match RootDisk::new(image.layers, self.volume(record)).create(record.range()) {
            Err(e) if matches!(e.root(), Error::Exists { .. }) => {}
            other => other?,
        }
        // The mount is a mere place (O_PATH): `syncfs(2)` wants a directory that is open.
        open_dir(volume.layer()?, ".")
    }

    /// Makes the layer of a VPS that is stopped equal to a copy. The caller holds the VPS's lock.
    pub(super) fn bring(&self, record: &Record, from: &OwnedFd, direction: Direction) -> Result<Copied> {
        let layer = self.layer(record)?;
        let mut sync = Sync::new(direction, stage(&layer)?);
        for part in PARTS {
            match open_dir(from, part) {
                Err(e) if e.is_gone() => files::remove_tree(&path(&layer, part))?,
                other => sync.prune(other?, part_of(&layer, part)?)?,
            }
        }
        parts(&mut sync, from, &layer, None)?;
        end(&layer)?;
        Ok(sync.copied())
    }
}

/// Opens a folder of condo's own.
pub(super) fn at(path: &Path) -> Result<OwnedFd> {
    open_dir(CWD, path).during(|| format!("open `{}`", path.display()))
}

/// One round.
fn parts(sync: &mut Sync, from: &OwnedFd, to: &OwnedFd, older: Option<&OwnedFd>) -> Result<()> {
    for part in PARTS {
        let source = match open_dir(from, part) {
            // No container engine has ever had anything beside the root.
            Err(e) if e.is_gone() => continue,
            other => other?,
        };
        let older = older.and_then(|older| open_dir(older, part).ok());
        sync.run(source, part_of(to, part)?, older)?;
    }
    Ok(())
}

fn part_of(layer: &OwnedFd, part: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(layer, part, rustix::fs::Mode::RWXU) {
        Err(rustix::io::Errno::EXIST) => {}
        other => other?,
    }
    open_dir(layer, part)
}

/// An empty directory for files in the making. What a killed command left in it goes.
fn stage(layer: &OwnedFd) -> Result<OwnedFd> {
    remove_stage(layer)?;
    part_of(layer, STAGE)
}

/// Everything is on the disk before anybody relies on it.
fn end(layer: &OwnedFd) -> Result<()> {
    remove_stage(layer)?;
    rustix::fs::syncfs(layer).during(|| "write the copy to disk")
}

fn remove_stage(layer: &OwnedFd) -> Result<()> {
    files::remove_tree(&path(layer, STAGE))
}

/// For what takes paths. Its last component is not followed there.
fn path(layer: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", layer.as_raw_fd()))
}
