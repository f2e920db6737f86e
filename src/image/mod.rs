//! Images: root filesystems that VPSs share as their read-only lower layer.
//!
//! ```text
//! <lib>/images/                0700: the trees hold set-user-ID files that real root owns
//!   <name>/manifest.json       what condo knows about it
//!   <name>/rootfs/             the tree, owners as in the archive (0 is root)
//!   .tmp-<name>/               being made or removed, by whoever holds the lock
//!   .lock-<name>
//! ```
//! An image comes out of an archive ([`Images::import`]) or of a [`Recipe`] ([`Images::build`]). Both are hostile input: every
//! write goes through one `Tree`, which resolves nothing outside of the root.

mod archive;
mod build;
mod busybox;
mod debian;
mod entry;
mod inspect;
mod name;
mod recipe;
mod room;
mod store;
mod tarball;
mod tree;

pub use archive::{Archive, OnProgress, Progress};
pub use entry::{Entry, Kind, Sparse};
pub use name::validate_name;
pub use recipe::Recipe;
pub use store::{Image, Images, ImportOptions, Manifest};
pub use tarball::{Limits, Tarball};

/// How many user and group ids there are in a VPS, and so in an image: 0 to one below.
pub const OWNERS: u32 = 1 << 16;
