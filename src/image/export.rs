//! An image as one file: a tar archive of `metadata.yaml` and `rootfs/`, as LXD has it. The same image gives the same bytes each time.
//!
//! The tree does not change while it is written: it is an image's, or that of a VPS that its lock keeps from being started.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::OWNERS;
use super::store::METADATA;
use super::{Image, Images};
use crate::error::{During, Error, Result};

/// Where the root filesystem is in the archive.
const TOP: &str = "rootfs";
/// Magic and revision of a file's capabilities that belong to one user namespace, and of those that hold everywhere
/// (`include/uapi/linux/capability.h`); the former have that namespace's root behind them.
const NAMESPACED: u8 = 3;
const EVERYWHERE: u8 = 2;
const PLAIN_LENGTH: usize = 20;
/// Bytes that one attribute may have (`XATTR_SIZE_MAX`).
const LARGEST: usize = 64 << 10;

impl Images {
    /// Writes an image as an archive from which [`Images::import`] makes it again.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an image in several layers.
    pub fn export(&self, image: &Image, to: &mut dyn Write) -> Result<()> {
        let [rootfs] = image.layers.as_slice() else {
            return Err(Error::unsupported(
                "an archive of an image in layers",
                "pull it where it is needed, or publish a VPS that was made of it",
            ));
        };
        let mut archive = Builder::new(to);
        let text = self.metadata(image)?;
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(text.len() as u64);
        header.set_mtime(0);
        archive.append_data(&mut header, METADATA, text.as_bytes())?;
        let mut tree = TreeWriter::new(&mut archive, rootfs, 0);
        tree.dir(Path::new(""))
            .during(|| format!("write image `{}` as an archive", image.name))?;
        Ok(archive.into_inner()?.flush()?)
    }

    /// What came along with an image as its description, if something did.
    pub fn kept_metadata(&self, image: &Image) -> Result<Option<String>> {
        match crate::files::read_text(&self.path(&image.name).join(METADATA)) {
            Err(e) if e.is_gone() => Ok(None),
            other => other.map(Some),
        }
    }

    /// What is said of an image in its archive: what came along with it, or the little that does not change.
    pub fn metadata(&self, image: &Image) -> Result<String> {
        if let Some(kept) = self.kept_metadata(image)? {
            return Ok(kept);
        }
        let manifest = &image.manifest;
        let value = serde_json::json!({
            "architecture": manifest.architecture, "creation_date": manifest.created,
            "properties": { "architecture": manifest.architecture, "description": manifest.os },
        });
        // JSON is YAML.
        Ok(format!("{value}\n"))
    }
}

/// Writes the root filesystem below `top`, whose user 0 has the number `base` there, as an archive of nothing else.
pub fn write_tree(top: &Path, base: u32, to: &mut dyn Write) -> Result<()> {
    let mut archive = Builder::new(to);
    let mut tree = TreeWriter::new(&mut archive, top, base);
    tree.below = PathBuf::from(".");
    tree.dir(Path::new(""))?;
    Ok(archive.into_inner()?.flush()?)
}

struct TreeWriter<'a, 'w> {
    archive: &'a mut Builder<&'w mut dyn Write>,
    top: &'a Path,
    /// Where it is in the archive.
    below: PathBuf,
    base: u32,
    /// First names of files that have several.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl<'a, 'w> TreeWriter<'a, 'w> {
    fn new(archive: &'a mut Builder<&'w mut dyn Write>, top: &'a Path, base: u32) -> Self {
        Self {
            archive,
            top,
            below: PathBuf::from(TOP),
            base,
            linked: HashMap::new(),
        }
    }

    fn dir(&mut self, path: &Path) -> Result<()> {
        let full = self.full(path);
        let mut names = fs::read_dir(&full)
            .during(|| format!("read `{}`", full.display()))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        let found = fs::metadata(&full)?;
        self.attributes(&full)?;
        let mut header = self.header(&found, EntryType::Directory);
        // The slash keeps a name that is empty but for it.
        let mut named = self.named(path).into_os_string();
        named.push("/");
        self.archive.append_data(&mut header, named, io::empty())?;
        for name in names {
            self.entry(&path.join(name))?;
        }
        Ok(())
    }

    fn full(&self, path: &Path) -> PathBuf {
        // `join` of nothing would add a slash, which follows a link.
        if path.as_os_str().is_empty() {
            self.top.to_owned()
        } else {
            self.top.join(path)
        }
    }

    fn named(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            self.below.clone()
        } else {
            self.below.join(path)
        }
    }

    fn entry(&mut self, path: &Path) -> Result<()> {
        let full = self.full(path);
        let found = fs::symlink_metadata(&full).during(|| format!("look at `{}`", full.display()))?;
        let kind = found.file_type();
        if kind.is_dir() {
            return self.dir(path);
        }
        if kind.is_symlink() {
            let mut header = self.header(&found, EntryType::Symlink);
            let target = fs::read_link(&full)?;
            return Ok(self.archive.append_link(&mut header, self.named(path), target)?);
        }
        if kind.is_fifo() {
            let mut header = self.header(&found, EntryType::Fifo);
            return Ok(self
                .archive
                .append_data(&mut header, self.named(path), io::empty())?);
        }
        // Sockets end with their programs, and devices are no image's.
        if kind.is_file() {
            self.file(path, &full, &found)
        } else {
            Ok(())
        }
    }

    fn file(&mut self, path: &Path, full: &Path, found: &Metadata) -> Result<()> {
        if found.nlink() > 1 {
            if let Some(first) = self.linked.get(&(found.dev(), found.ino())) {
                let mut header = self.header(found, EntryType::Link);
                return Ok(self.archive.append_link(&mut header, self.named(path), first)?);
            }
            self.linked.insert((found.dev(), found.ino()), self.named(path));
        }
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(full)?;
        self.attributes(full)?;
        let mut header = self.header(found, EntryType::Regular);
        header.set_size(found.len());
        Ok(self.archive.append_data(&mut header, self.named(path), file)?)
    }

    fn header(&self, found: &Metadata, kind: EntryType) -> Header {
        let inside = |id: u32| match id.checked_sub(self.base) {
            Some(id) if id < OWNERS => id,
            _ => 0,
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(found.mode() & 0o7777);
        header.set_uid(inside(found.uid()).into());
        header.set_gid(inside(found.gid()).into());
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_size(0);
        header
    }

    /// What of a file's extended attributes belongs to an image, as pax records before its header.
    fn attributes(&mut self, full: &Path) -> Result<()> {
        let mut kept = Vec::new();
        for name in names_of_attributes(full)? {
            if !super::tree::is_kept(&name) {
                continue;
            }
            let mut value = vec![0; LARGEST];
            let length = rustix::fs::lgetxattr(full, name.as_str(), &mut value)?;
            value.truncate(length);
            if name == "security.capability" {
                plain_capabilities(&mut value);
            }
            kept.push((format!("SCHILY.xattr.{name}"), value));
        }
        if kept.is_empty() {
            return Ok(());
        }
        let records = kept.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        Ok(self.archive.append_pax_extensions(records)?)
    }
}

fn names_of_attributes(full: &Path) -> Result<Vec<String>> {
    let mut list = vec![0; LARGEST];
    let length = match rustix::fs::llistxattr(full, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut names: Vec<String> = names
        .filter_map(|name| OsStr::from_bytes(name).to_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Capabilities of one namespace's root as those that hold wherever the file is.
fn plain_capabilities(value: &mut Vec<u8>) {
    if value.len() > PLAIN_LENGTH && value[3] == NAMESPACED {
        value[3] = EVERYWHERE;
        value.truncate(PLAIN_LENGTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_a_namespace_hold_everywhere() {
        let mut namespaced = vec![1, 0, 0, NAMESPACED];
        namespaced.resize(24, 7);
        plain_capabilities(&mut namespaced);
        assert_eq!(
            (namespaced.len(), namespaced[3], namespaced[0]),
            (PLAIN_LENGTH, EVERYWHERE, 1)
        );
        let mut plain = vec![0, 0, 0, EVERYWHERE];
        plain.resize(20, 0);
        let before = plain.clone();
        plain_capabilities(&mut plain);
        assert_eq!(plain, before);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let top = std::env::temp_dir().join(format!("condo-write-tree-{}", std::process::id()));
        fs::create_dir_all(top.join("b/deep")).unwrap();
        fs::write(top.join("a"), "text").unwrap();
        fs::hard_link(top.join("a"), top.join("b/again")).unwrap();
        std::os::unix::fs::symlink("../a", top.join("b/link")).unwrap();
        let write = || {
            let mut out = Vec::new();
            write_tree(&top, 0, &mut out).unwrap();
            out
        };
        let (first, second) = (write(), write());
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(first, second);
        let mut archive = tar::Archive::new(first.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["./", "a", "b/", "b/again", "b/deep/", "b/link"]);
    }
}
