//! Disks that hold all of a root, and not only what differs from an image: what of copying is not for them.

use crate::error::{Error, Result};
use crate::storage::Backend;
use crate::vps::record::disk::Disk;
use crate::vps::record::instance::Condo;

/// Refuses to make `what` of a disk that has all of its image in it: an archive has what differs from the image.
pub(super) fn refuse(backend: Backend, what: &str) -> Result<()> {
    if !backend.is_whole() {
        return Ok(());
    }
    let why = format!(
        "its disk is a copy of its image (storage back end `{backend}`), and what is written are differences from that; \
         condo cp copies files out of it"
    );
    Err(Error::unsupported(what, why))
}

impl Condo {
    /// Refuses to make a VPS here whose disk would be filled from one of the other kind, as `disk` is.
    pub(super) fn must_be_alike(&self, disk: &Disk, what: &str) -> Result<()> {
        let made = self.new_disk(disk)?.backend;
        if made.is_whole() == disk.backend.is_whole() {
            return Ok(());
        }
        let why = format!(
            "disks are of the storage back end `{made}` here, and what it is filled from is of `{}`: \
             one of the two has all of its image in it, the other differences from that; condo cp copies files",
            disk.backend
        );
        Err(Error::unsupported(what, why))
    }
}
