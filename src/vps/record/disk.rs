//! A VPS's disk as it is asked for: by which back end, how large.

use serde::{Deserialize, Serialize};

use super::instance::Condo;
use super::size;
use super::store::Record;
use crate::error::{During, Error, Result};
use crate::storage::{Backend, Quota, Volume};

/// A smaller one is a forgotten suffix, and has no room for a file system's own needs.
const MIN_SIZE: u64 = 16 << 20;
/// An init alone makes dozens of files.
const MIN_INODES: u64 = 64;
/// File systems count in these.
const BLOCK: u64 = 4096;

/// The disk of a VPS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// What keeps it. It stays the same for as long as the VPS is there.
    pub backend: Backend,
    /// How many bytes fit into it; without, as many as there is room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How many files and directories fit into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

impl Disk {
    /// A disk that is asked for; what keeps it is chosen when it is made.
    pub fn wanted(quota: Quota) -> Self {
        Self {
            backend: Backend::default(),
            size: quota.size,
            inodes: quota.inodes,
        }
    }

    /// Refuses limits that no disk can have.
    pub(super) fn check(&self) -> Result<()> {
        match (self.size, self.inodes) {
            (Some(size), _) if size < MIN_SIZE => {
                let problem = "is below 16M; sizes without a suffix are bytes";
                Err(Error::invalid("--disk", size::display(size), problem))
            }
            (_, Some(inodes)) if inodes < MIN_INODES => Err(Error::invalid(
                "--inodes",
                inodes,
                "is below 64, less than a system needs",
            )),
            _ => Ok(()),
        }
    }

    /// Its limits.
    pub fn quota(&self) -> Quota {
        Quota {
            size: self.size,
            inodes: self.inodes,
        }
    }

    /// The same with other limits, where `quota` has some.
    pub(in crate::vps) fn changed(&self, quota: &Quota) -> Self {
        Self {
            size: quota.size.map(|size| size.next_multiple_of(BLOCK)).or(self.size),
            inodes: quota.inodes.or(self.inodes),
            ..*self
        }
    }

    /// Whether it is as disks are that nothing is said about.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl Condo {
    /// The disk of a new VPS: `wanted`, with what is set for the host and what its file system offers. What kept a disk elsewhere does
    /// not matter.
    ///
    /// # Errors
    /// Where a disk of that kind cannot be had or held to its size.
    pub(in crate::vps) fn new_disk(&self, wanted: &Disk) -> Result<Disk> {
        let set = self.settings()?.storage;
        let lib = self.folders.lib();
        let size = wanted.size.or(set.size).map(|size| size.next_multiple_of(BLOCK));
        let limited = size.is_some() || wanted.inodes.is_some();
        let backend = match set.backend {
            Some(backend) => backend,
            None if !self.host.caller.privileged => Backend::Copy,
            None if limited => Backend::offered_at(lib),
            None => Backend::Folder,
        };
        let backend = match backend {
            Backend::Folder if limited => {
                let why = "the setting `storage.backend` is `folder`, which has no limits; see condo.toml";
                return Err(Error::unsupported("--disk", why));
            }
            Backend::Copy if limited => {
                let why = match self.host.caller.privileged {
                    true => "the setting `storage.backend` is `copy`, which has no limits; see condo.toml",
                    false => {
                        "a VPS inside another has its place on the disk of that one, which has the limit"
                    }
                };
                return Err(Error::unsupported("--disk", why));
            }
            Backend::File if size.is_none() && limited => {
                let inodes = wanted.inodes.unwrap_or(0);
                return Err(Error::invalid("--inodes", inodes, "needs --disk here"));
            }
            // A file system of its own has a size.
            Backend::File if size.is_none() => Backend::Folder,
            other => other,
        };
        backend.check_at(lib)?;
        if let Some(size) = size {
            self.check_room(size)?;
        }
        Ok(Disk {
            backend,
            size,
            inodes: wanted.inodes,
        })
    }

    /// Refuses a disk that would not fit if the host's file system were empty. More than is free may be promised.
    pub(in crate::vps) fn check_room(&self, size: u64) -> Result<()> {
        let lib = self.folders.lib();
        let host = rustix::fs::statvfs(lib).during(|| format!("look at `{}`", lib.display()))?;
        let all = host.f_blocks.saturating_mul(host.f_frsize);
        if size <= all {
            return Ok(());
        }
        let problem = format!("is above the {} of the host's file system", size::display(all));
        Err(Error::invalid("--disk", size::display(size), problem))
    }

    /// Where a VPS's own layer lies. Touches nothing.
    pub(in crate::vps) fn volume(&self, record: &Record) -> Box<dyn Volume> {
        let place = self.folders.disk(&record.name);
        record.config.disk.backend.volume(place)
    }
}
