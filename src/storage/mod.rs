//! The root disk of a VPS: an image it shares with others below, a layer of its own on top, and the block device beneath.

mod device;
mod disk;
mod usage;

pub use device::whole_disk_of;
pub use disk::RootDisk;

use serde::{Deserialize, Serialize};

/// A range of host user and group numbers: `base` is root inside, and no two VPSs share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host number of the first id, 0 inside.
    pub base: u32,
    /// How many ids there are.
    pub size: u32,
}
