//! A VPS's disk as it is asked for: by which back end, how large.

use serde::{Deserialize, Serialize};

use super::instance::Condo;
use super::store::Record;
use crate::storage::{Backend, Quota, Volume};

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
    /// Its limits.
    pub fn quota(&self) -> Quota {
        Quota {
            size: self.size,
            inodes: self.inodes,
        }
    }

    /// Whether it is as disks are that nothing is said about.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl Condo {
    /// Where a VPS's own layer lies. Touches nothing.
    pub(in crate::vps) fn volume(&self, record: &Record) -> Box<dyn Volume> {
        let place = self.folders.disk(&record.name);
        record.config.disk.backend.volume(place)
    }
}
