//! What archives of root filesystems leave out, because whoever made them mounts it: `docker export` and mmdebstrap have no
//! content of `/dev`, others not even the directory.

use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::error::{During, Result};
use crate::files::Root;

/// Directories of every system (`hier(7)`) and their modes.
const DIRECTORIES: [(&str, u32); 7] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Makes the directories that are missing. What is there, a link too, stays.
pub(super) fn fill(root: &Root) -> Result<()> {
    for (name, mode) in DIRECTORIES {
        match rustix::fs::mkdirat(root, name, Mode::RWXU) {
            Err(Errno::EXIST) => continue,
            other => other.during(|| format!("make `/{name}`"))?,
        }
        // Whatever the umask is. Nobody else writes here yet.
        rustix::fs::chmodat(root, Path::new(name), Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}
