//! A layer in a subvolume of btrfs, which its quota group holds to a size.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::mount;
use super::volume::{self, Quota, Usage, Volume};
use crate::error::{During, Error, Result};
use crate::files;
use crate::sys::btrfs;

/// What `statfs(2)` calls it.
pub(super) const MAGIC: i64 = 0x9123_683e;

/// A subvolume.
#[derive(Debug)]
pub(super) struct Subvolume {
    place: PathBuf,
}

pub(super) fn is_offered(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|status| status.f_type == MAGIC)
}

impl Subvolume {
    pub(super) fn new(place: PathBuf) -> Self {
        Self { place }
    }

    pub(super) fn is_at(place: &Path) -> bool {
        let is_root = fs::symlink_metadata(place).is_ok_and(|status| status.ino() == btrfs::ROOT_INODE);
        is_root && is_offered(place)
    }

    fn open(&self) -> Result<File> {
        File::open(&self.place).during(|| format!("open `{}`", self.place.display()))
    }

    /// Where it is put together before it takes its place.
    fn next(&self) -> Self {
        let mut name = self.place.file_name().unwrap_or_default().to_os_string();
        name.push(".next");
        Self::new(self.place.with_file_name(name))
    }

    /// The directory it is in, and its name there.
    fn parent(&self) -> Result<(File, CString)> {
        let parent = self.place.parent().unwrap_or(Path::new("/"));
        let name = self.place.file_name().unwrap_or_default().as_bytes();
        let dir = File::open(parent).during(|| format!("open `{}`", parent.display()))?;
        Ok((dir, CString::new(name).map_err(std::io::Error::other)?))
    }

    fn limit(&self, quota: &Quota) -> Result<()> {
        if quota.inodes.is_some() {
            return Err(Error::unsupported(
                "--inodes",
                "btrfs does not count inodes; use --disk alone",
            ));
        }
        let dir = self.open()?;
        if quota.size.is_some() {
            btrfs::enable_quotas(dir.as_fd()).during(|| "switch quotas on")?;
        }
        match btrfs::limit(dir.as_fd(), quota.size) {
            // Without quotas there is nothing to lift.
            Err(e) if quota.size.is_none() => {
                log::debug!("{e}");
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

impl Volume for Subvolume {
    fn place(&self) -> &Path {
        &self.place
    }

    fn create(&self, quota: &Quota) -> Result<()> {
        let make = || -> Result<()> {
            if !Self::is_at(&self.place) {
                if let Some(parent) = self.place.parent() {
                    files::create_dir_all(parent, 0o700)?;
                }
                let (parent, name) = self.parent()?;
                btrfs::create_subvolume(parent.as_fd(), &name)?;
            }
            fs::set_permissions(&self.place, Permissions::from_mode(0o700))?;
            self.limit(quota)
        };
        make().during(|| format!("make the subvolume `{}`", self.place.display()))
    }

    fn layer(&self) -> Result<OwnedFd> {
        mount::detached(&self.place)
    }

    fn resize(&self, quota: &Quota) -> Result<()> {
        let quota = volume::next_quota(quota, &self.usage()?)?;
        self.limit(&quota)
            .during(|| format!("set the quota of `{}`", self.place.display()))
    }

    /// As of the last transaction, which is at most half a minute ago (`commit=` of btrfs(5)).
    fn usage(&self) -> Result<Usage> {
        let dir = self.open()?;
        let ask = || -> Result<Usage> {
            let uuid: String = btrfs::uuid(dir.as_fd())?
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let parts = [
                &uuid[..8],
                &uuid[8..12],
                &uuid[12..16],
                &uuid[16..20],
                &uuid[20..],
            ];
            let number = btrfs::subvolume_of(dir.as_fd())?;
            let group = format!("/sys/fs/btrfs/{}/qgroups/0_{number}", parts.join("-"));
            let value = |name: &str| -> Result<u64> {
                let path = Path::new(&group).join(name);
                let text = files::read_text(&path)?;
                let wrong = |_| Error::Corrupt(format!("`{}` is `{}`", path.display(), text.trim()));
                text.trim().parse().map_err(wrong)
            };
            let limited = value("limit_flags")? & 1 != 0;
            let size = if limited {
                Some(value("max_referenced")?)
            } else {
                None
            };
            let used = value("referenced")?;
            Ok(Usage {
                used,
                free: size.map(|size| size.saturating_sub(used)),
                inodes: None,
                quota: Quota { size, inodes: None },
            })
        };
        ask().during(|| format!("ask for the quota of `{}`", self.place.display()))
    }

    fn is_counted(&self) -> bool {
        true
    }

    /// A tenant with a directory of btrfs could make subvolumes there, which count for nobody (`BTRFS_IOC_SUBVOL_CREATE`).
    fn is_safe_without_overlay(&self) -> bool {
        false
    }

    fn is_copied_at_once(&self) -> bool {
        Self::is_at(&self.place)
    }

    fn copy_to(&self, to: &Path) -> Result<()> {
        let work = || -> Result<()> {
            let (parent, name) = Self::new(to.into()).parent()?;
            Ok(btrfs::snapshot(self.open()?.as_fd(), parent.as_fd(), &name)?)
        };
        work().during(|| format!("make `{}` of `{}`", to.display(), self.place.display()))
    }

    /// Killed in the middle there may be no volume; then the next call makes it.
    fn copy_from(&self, from: &Path, quota: &Quota) -> Result<bool> {
        if !Self::is_at(from) {
            return Ok(false);
        }
        let next = self.next();
        next.remove_alone()?;
        Self::new(from.into()).copy_to(&next.place)?;
        next.limit(quota)?;
        self.remove_alone()?;
        fs::rename(&next.place, &self.place).during(|| format!("put `{}` in place", self.place.display()))?;
        Ok(true)
    }

    fn remove(&self) -> Result<()> {
        self.next().remove_alone()?;
        self.remove_alone()
    }
}

impl Subvolume {
    fn remove_alone(&self) -> Result<()> {
        if !Self::is_at(&self.place) {
            return files::remove_tree(&self.place);
        }
        let work = || -> Result<()> {
            let number = btrfs::subvolume_of(self.open()?.as_fd())?;
            let (parent, name) = self.parent()?;
            btrfs::remove_subvolume(parent.as_fd(), &name)?;
            if let Err(e) = btrfs::forget_group(parent.as_fd(), number) {
                log::debug!("the quota group of `{}` goes later: {e}", self.place.display());
            }
            Ok(())
        };
        work().during(|| format!("remove the subvolume `{}`", self.place.display()))
    }
}
