//! The root disk of a VPS: an image it shares with others below, a layer of its own on top, and the block device beneath. Or a copy of the
//! image, where that cannot be.
//!
//! The layer of its own lies in a [`Volume`], of which there are several kinds ([`Backend`]), one file each.

mod btrfs;
mod copied;
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

use std::os::fd::BorrowedFd;

/// A range of host user and group numbers: `base` is root inside, and no two VPSs share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The host number of the first id, 0 inside.
    pub base: u32,
    /// How many ids there are.
    pub size: u32,
}

/// Whom the files of a mounted disk belong to.
#[derive(Debug, Clone, Copy)]
pub struct Owners<'a> {
    /// A user namespace with the id map of the VPS.
    pub userns: BorrowedFd<'a>,
    /// The ids that it maps, from 0 on.
    pub range: IdRange,
}
