//! The root disk of a VPS: an image it shares with others below, a layer of its own on top, and the block device beneath.

//!
//! The layer of its own lies in a [`Volume`], of which there are several kinds ([`Backend`]), one file each.

mod btrfs;
mod device;
mod disk;
mod disk_file;
pub mod engine;
mod ext4;
mod folder;
mod mount;
mod project;
mod reserve;
pub mod tree;
mod usage;
mod volume;

pub use device::{check_weighed, whole_disk_of};
pub use disk::RootDisk;
pub use volume::{Backend, Quota, Usage, Volume, remove_copy};

use serde::{Deserialize, Serialize};

/// A range of host user and group numbers: `base` is root inside, and no two VPSs share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host number of the first id, 0 inside.
    pub base: u32,
    /// How many ids there are.
    pub size: u32,
}
