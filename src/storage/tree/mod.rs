//! Trees of files, copied as they are: owners, modes, times, extended attributes with overlayfs' own, hard links, holes, whiteouts.
//!
//! ```text
//!  sync    one tree made equal to another, at a cost that grows with what differs
//!  diff    what differs
//!  walk    two trees gone through side by side
//!  node    one file: what it is, and how its like is made
//!  owners  all files given to others
//!  note    which state of which file a copy is of
//! ```
//! A tenant shapes these trees: paths are of any length and depth, names are any bytes, links lead anywhere. Everything is done by
//! descriptor and name, and no link is followed.

mod diff;
mod node;
mod note;
mod owners;
mod sync;
mod walk;

pub use diff::{Change, ChangeKind, changes};
pub use node::{Node, attributes, is_whiteout, list, look};
pub use note::Identity;
pub use owners::{Heirs, hand_over};
pub use sync::{Copied, Direction, Sync};
pub use walk::{Step, Walk};

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::Result;

/// How a directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory in another, never by a link.
pub fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}
