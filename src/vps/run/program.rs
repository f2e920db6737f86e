//! What PID 1 is, as the image has it: program, environment, user and directory.

use std::path::{Path, PathBuf};

use super::provision::Pending;
use super::spec::Init;
use super::users;
use crate::error::{During, Result};
use crate::files::Root;
use crate::image::Manifest;

/// The init of an image whose disk is mounted, before which the pending is done.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for a user that the disk does not know.
pub(super) fn of(manifest: &Manifest, mounted: &Path, pending: &Pending) -> Result<Init> {
    let process = &manifest.process;
    // A system begins as root, whatever its files say of that.
    let (uid, gid, groups) = if process.user.is_empty() {
        (0, 0, Vec::new())
    } else {
        let root = Root::open(mounted)?;
        let user = users::find(&root, Some(&process.user)).during(|| "find the user that the image names")?;
        (user.uid, user.gid, user.groups)
    };
    let line = |line: &String| {
        line.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    Ok(Init {
        // Only root can do it; a program that runs as another is no system that waits for it.
        args: if uid == 0 {
            pending.before(&manifest.init)
        } else {
            manifest.init.clone()
        },
        env: process.env.iter().filter_map(line).collect(),
        cwd: Path::new("/").join(PathBuf::from(&process.working_dir)),
        uid,
        gid,
        groups,
    })
}
