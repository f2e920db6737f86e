//! One layer of an image: an archive of what it adds to those below it, changes and hides.
//!
//! It is unpacked into an overlay of the layers below, as image-spec `layer.md` has it: the kernel then copies up what a hard
//! link or a directory needs, resolves links of the layers below, and hides what is replaced. What is left in the overlay's
//! upper directory is the layer.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, XattrFlags};
use rustix::io::Errno;

use super::tarball::Tarball;
use super::tree::{Contents, Tree, name_in, set_mtime};
use crate::error::{During, Error, Result};
use crate::files::overlay::{self, Upper};
use crate::files::{self, Root};

/// What a name in a layer's archive means when it begins with `.wh.`: AUFS's way of hiding, which all formats of layers kept.
const PREFIX: &[u8] = b".wh.";
/// Of a directory, hides what the layers below have in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files, which mean nothing.
const RESERVED: &[u8] = b".wh..wh.";

/// How the layers are joined while one is unpacked. `redirect_dir` lets directories be moved, which is how they are removed;
/// `index=off` needs no file handles. What reaches the disk is synced once, at the end.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "on"), ("metacopy", "off"), ("index", "off")];

/// A path of a layer's archive.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A file.
    File,
    /// Hides this path.
    Hides(PathBuf),
    /// Hides all that layers below have in this directory.
    Empties(PathBuf),
    Nothing,
}

/// What a path means.
///
/// # Errors
/// [`Error::Invalid`] for one that would hide `.` or `..`.
fn meaning(path: &Path) -> Result<Meaning> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let dir = path.parent().unwrap_or(Path::new(""));
    let Some(hidden) = name.strip_prefix(PREFIX) else {
        return Ok(Meaning::File);
    };
    Ok(match (name, hidden) {
        (OPAQUE, _) => Meaning::Empties(dir.to_owned()),
        _ if name.starts_with(RESERVED) => Meaning::Nothing,
        (_, b"" | b"." | b"..") => {
            return Err(Error::invalid("archive entry", path.display(), "hides no file"));
        }
        _ => Meaning::Hides(dir.join(OsStr::from_bytes(hidden))),
    })
}

/// Unpacks a layer into `dir/upper` over `below`, the uppermost first. `dir` has that directory and one for overlayfs to work in.
pub(super) fn unpack(below: &[PathBuf], dir: &Path, tarball: &mut Tarball<impl Read>) -> Result<Contents> {
    let upper = Root::open(&dir.join(overlay::UPPER))?;
    if below.is_empty() {
        let mut layer = Layer::new(None);
        return layer.fill(&upper, tarball);
    }
    let mut layer = Layer::new(Some(&upper));
    let contents = {
        let dir = files::open_dir(dir)?;
        let merged = Root::from(overlay::mount(
            &opened(below)?,
            Some(Upper::of(dir.as_fd())),
            &OPTIONS,
        )?);
        layer.fill(&merged, tarball)?
    };
    // Only now: an overlay may not have its layers changed.
    layer.emptied.iter().try_for_each(|dir| {
        let dir = upper.get(&Path::new(".").join(dir), OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .during(|| "hide what is below a directory")
    })?;
    Ok(contents)
}

/// Layers as one tree, to look at.
pub(super) fn view(layers: &[PathBuf]) -> Result<Root> {
    match layers {
        [only] => Root::open(only),
        _ => Ok(Root::from(overlay::mount(&opened(layers)?, None, &[])?)),
    }
}

fn opened(layers: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    layers.iter().map(|dir| files::open_dir(dir)).collect()
}

/// A layer being unpacked.
struct Layer<'u> {
    /// What it has put so far; nothing for the lowest, which hides nothing.
    upper: Option<&'u Root>,
    /// Directories, by their real paths, in which nothing of the layers below is to be seen.
    emptied: Vec<PathBuf>,
}

impl<'u> Layer<'u> {
    fn new(upper: Option<&'u Root>) -> Self {
        Self {
            upper,
            emptied: Vec::new(),
        }
    }

    fn fill(&mut self, root: &Root, tarball: &mut Tarball<impl Read>) -> Result<Contents> {
        let mut tree = Tree::over(root);
        while let Some(entry) = tarball.next()? {
            match (meaning(&entry.path)?, self.upper) {
                (Meaning::File, _) => tree.put(&entry, tarball)?,
                (Meaning::Hides(path), Some(upper)) => self
                    .hide(root, &mut tree, upper, &path)
                    .during(|| format!("hide `{}`", path.display()))?,
                (Meaning::Empties(path), Some(_)) => self
                    .empty(root, &path)
                    .during(|| format!("hide what is in `{}`", path.display()))?,
                _ => {}
            }
        }
        tree.finish()
    }

    /// Hides a file of the layers below. One that this layer has brought itself stays, whatever the order in the archive.
    fn hide(&mut self, root: &Root, tree: &mut Tree<'_>, upper: &Root, path: &Path) -> Result<()> {
        let (parent, name) = (
            path.parent().unwrap_or(Path::new("")),
            path.file_name().unwrap_or_default(),
        );
        let Some(dir) = directory(root, parent)? else {
            return Ok(());
        };
        match of_this_layer(upper, path)? {
            Some(FileType::Directory) => self.emptied.push(real_path(&dir)?.join(name)),
            Some(_) => {}
            None => {
                tree.leave()?;
                let mtime = rustix::fs::fstat(&dir)?.st_mtime;
                remove(&dir, name)?;
                set_mtime(&dir, mtime)?;
            }
        }
        Ok(())
    }

    /// Notes a directory to be made opaque, and has it copied up.
    fn empty(&mut self, root: &Root, path: &Path) -> Result<()> {
        if let Some(dir) = directory(root, path)? {
            set_mtime(&dir, rustix::fs::fstat(&dir)?.st_mtime)?;
            self.emptied.push(real_path(&dir)?);
        }
        Ok(())
    }
}

/// What this layer has at a path already; not what hides something of another.
fn of_this_layer(upper: &Root, path: &Path) -> Result<Option<FileType>> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let Some(dir) = directory(upper, parent)? else {
        return Ok(None);
    };
    let status = match rustix::fs::statat(
        &dir,
        path.file_name().unwrap_or_default(),
        AtFlags::SYMLINK_NOFOLLOW,
    ) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    // Archives bring no device nodes: one is overlayfs' whiteout.
    let kind = FileType::from_raw_mode(status.st_mode);
    Ok((kind != FileType::CharacterDevice).then_some(kind))
}

fn directory(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.get(&Path::new(".").join(path), OFlags::PATH | OFlags::DIRECTORY) {
        Err(e) if e.is_gone() || e.errno() == Some(Errno::NOTDIR.raw_os_error()) => Ok(None),
        other => other.map(Some),
    }
}

/// Removes what a name of an open directory is, with all below.
fn remove(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => files::remove_tree(&name_in(dir, name)),
        other => Ok(other?),
    }
}

/// Where a directory is in its own root, without links.
fn real_path(dir: &OwnedFd) -> Result<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    // A mount that is attached nowhere is its own root.
    Ok(path.strip_prefix("/").unwrap_or(&path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hide() {
        let of = |path: &str| meaning(Path::new(path)).unwrap();
        assert_eq!(of("etc/passwd"), Meaning::File);
        assert_eq!(of(""), Meaning::File);
        assert_eq!(of("etc/.wh.passwd"), Meaning::Hides("etc/passwd".into()));
        assert_eq!(of(".wh.etc"), Meaning::Hides("etc".into()));
        assert_eq!(of("etc/.wh..wh..opq"), Meaning::Empties("etc".into()));
        assert_eq!(of(".wh..wh.plnk"), Meaning::Nothing);
        assert_eq!(of(".wh.etc/passwd"), Meaning::File);
        for bad in ["etc/.wh.", "etc/.wh..", ".wh..."] {
            assert!(meaning(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
