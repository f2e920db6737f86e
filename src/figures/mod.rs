//! Files whose text is made at the moment they are read: what a container is told of the machine it is on, in the places where
//! programs look (`/proc/meminfo`).
//!
//! ```text
//!  Server::mount     a FUSE file system of a few files, attached nowhere, and the descriptor by which they are answered for
//!  Server::install   puts each over the file of procfs or sysfs it stands for, in the mount namespace of a container
//!  Server::answer    one step of whatever loop the serving process has; the text comes from a [`Source`]
//! ```
//! The kernel asks the process that holds the descriptor, which may hand it on; when nobody holds it any more the files say
//! `ENOTCONN`, and a new server is installed over them. The format of what is asked is in `wire`.

mod install;
mod server;
mod wire;

pub use server::{Server, Source, can_be_told};

use crate::pace::Bounds;

/// How many questions are answered: at the host's expense, outside of the container's limits.
pub const ALLOWED: Bounds = Bounds {
    burst: 4000,
    rate: 2000,
    worth: 20,
};

/// A file that is answered for, and the one it stands for in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name in the file system.
    pub name: &'static str,
    /// What it covers: a file of procfs or sysfs.
    pub place: &'static str,
}
