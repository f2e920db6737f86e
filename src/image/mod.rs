//! Images: root filesystems that VPSs share as their read-only lower layer.
//!
//! ```text
//! <lib>/images/                0700: the trees hold set-user-ID files that real root owns
//!   <name>/manifest.json       what condo knows about it
//!   <name>/metadata.yaml      what an image of LXD's said of itself
//!   <name>/rootfs/             the tree, owners as in the archive (0 is root), unless it is made of layers
//!   .layers/                   layers, which images share
//!   .tmp-<name>/               being made or removed, by whoever holds the lock
//!   .lock-<name>
//! ```
//! An image comes out of an archive ([`Images::import`]) or of a [`Recipe`] ([`Images::build`]). All are hostile input: every
//! write goes through one `Tree`, which resolves nothing outside of the root.

mod archive;
mod assemble;
mod build;
mod busybox;
mod debian;
mod digest;
mod entry;
mod export;
mod gaps;
mod inspect;
mod layer;
mod layers;
mod layout;
mod making;
mod name;
pub mod oci;
mod prune;
mod recipe;
pub mod registry;
mod room;
mod store;
mod tarball;
mod tree;

pub use archive::{Archive, OnProgress, Progress};
pub use digest::{Digest, hex};
pub use entry::{Entry, Kind, Sparse};
pub use export::write_tree;
pub use layers::Removed;
pub use name::validate_name;
pub use recipe::Recipe;
pub use store::{Image, Images, ImportOptions, Manifest, Process};
pub use tarball::{Limits, Tarball};

/// How many user and group ids the widest VPS has, and so an image: 0 to one below.
pub const OWNERS: u32 = 1 << 22;
