//! Files into a VPS and out of it.
//!
//! ```text
//!  attributes  access lists and the like
//!  side    where a path leads: on the host, or in a VPS ([`guest`])
//!  walk    reads a file or a folder with all that is in it, or a tar archive (stream)
//!  place   writes what was read: below a folder, or as a tar archive (stream)
//!   single  one file, folder or link by itself
//! ```
//! One side of every copy belongs to a tenant, who may change it meanwhile. No link of its leads out of its root, none is followed
//! below what the operator named, and nothing but files, folders and links is ever opened or made.

mod attributes;
mod file;
pub mod guest;
mod place;
mod side;
pub mod single;
mod stream;
mod walk;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

use guest::Guest;
use place::{Folder, Owners};
use side::{Destination, Side, Source};
use walk::Walk;

pub use attributes::Attributes;
pub use file::Meta;

/// How to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// Keep user and group numbers and extended attributes; else what goes in is root's, and what comes out is the caller's.
    pub archive: bool,
    /// Copy what a link leads to where the link itself was named.
    pub follow: bool,
}

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, folders and links.
    pub files: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What is neither and was left out: a sentence each, of the first of them.
    pub left_out: Vec<String>,
    /// How many were left out.
    pub omitted: u64,
}

/// Of so many it is told what was left out: a tenant can make millions.
const TOLD: u64 = 20;

impl Copied {
    fn leave_out(&mut self, path: &Path, why: &str) {
        if self.omitted < TOLD {
            self.left_out.push(format!("`{}` {why}", path.display()));
        }
        self.omitted += 1;
    }
}

impl Condo {
    /// Copies a file or folder of the host into a VPS, which may run or not: below `to` if that is a folder, else to that name.
    /// Of a path that ends in `/.` the content is copied.
    ///
    /// # Errors
    /// [`crate::error::Error::Invalid`] for what is neither file, folder nor link, and where the two kinds do not go together. A file
    /// shows under its name only when it is whole; what was copied of a folder before a failure is there.
    pub fn copy_in(&self, from: &Path, name: &Name, to: &Path, manner: Manner) -> Result<Copied> {
        let source = Side::Host.source(from, manner.follow)?;
        let guest = self.guest(name)?;
        let owners = owners_inside(&guest, manner.archive);
        transfer(&source, Side::Guest(&guest), to, owners)
    }

    /// Copies a file or folder of a VPS to the host. What carries the set-user-ID bit inside does not on the host.
    ///
    /// # Errors
    /// As for [`Condo::copy_in`].
    pub fn copy_out(&self, name: &Name, from: &Path, to: &Path, manner: Manner) -> Result<Copied> {
        let guest = self.guest(name)?;
        let source = Side::Guest(&guest).source(from, manner.follow)?;
        let owners = if manner.archive {
            Owners::Same
        } else {
            Owners::Caller
        };
        transfer(&source, Side::Host, to, owners)
    }

    /// Writes a file or folder of a VPS as a tar archive, owners as they are inside.
    pub fn archive_out(
        &self,
        name: &Name,
        from: &Path,
        to: &mut dyn Write,
        manner: Manner,
    ) -> Result<Copied> {
        let guest = self.guest(name)?;
        let source = Side::Guest(&guest).source(from, manner.follow)?;
        let mut archive = stream::Writer::new(to);
        let copied = Walk::new(source.side, &mut archive).copy(&source, &source.archived())?;
        archive.finish()?;
        Ok(copied)
    }

    /// Unpacks a tar archive, plain or compressed, into a folder of a VPS.
    pub fn archive_in(&self, from: impl Read, name: &Name, to: &Path, manner: Manner) -> Result<Copied> {
        let guest = self.guest(name)?;
        let dir = Side::Guest(&guest).dir(to)?;
        let owners = owners_inside(&guest, manner.archive);
        let mut folder = Folder::new(Side::Guest(&guest), dir, owners);
        stream::unpack(from, &mut folder)
    }
}

fn owners_inside(guest: &Guest, archive: bool) -> Owners {
    match archive {
        true => Owners::Shifted(guest.ids()),
        false => Owners::Root(guest.ids().base),
    }
}

fn transfer(source: &Source<'_>, side: Side<'_>, to: &Path, owners: Owners) -> Result<Copied> {
    let Destination { dir, first } = side.destination(to, source)?;
    let mut folder = Folder::new(side, dir, owners);
    Walk::new(source.side, &mut folder).copy(source, &first)
}

/// A path inside of a VPS: relative ones begin at `/`.
fn rooted(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
