//! The kernel's parameters as the container's own procfs shows them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::{Assembled, magic};
use crate::error::Result;
use crate::files::Root;

/// The root directory of a procfs, wherever that is mounted (`PROC_ROOT_INO` of the kernel).
const ROOT_INODE: u64 = 1;

impl Assembled {
    /// The procfs at `/proc` of the container, without what is mounted below it; `None` where there is none, or a part of one.
    pub fn procfs(&self) -> Option<Root> {
        let look = || -> Result<Option<OwnedFd>> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let found = self.root.get(Path::new("/proc"), flags)?;
            let is_whole = rustix::fs::fstat(&found)?.st_ino == ROOT_INODE;
            Ok((is_whole && magic::is(&found, magic::PROC)?).then_some(found))
        };
        look().ok().flatten().map(Root::of_one_mount)
    }
}
