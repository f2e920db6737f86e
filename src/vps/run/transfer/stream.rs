//! Tar archives out of a VPS and into it, as they come.

use std::io::{self, Read, Write};
use std::path::Path;

use super::Copied;
use super::attributes::Attributes;
use super::file::{Content, Meta, Sink};
use super::place::Folder;
use crate::error::{During, Result};
use crate::image::{Archive, Entry, Kind, Limits, Tarball};

/// The key of an attribute's pax record.
const XATTR: &str = "SCHILY.xattr.";

/// An archive that is being written.
pub(super) struct Writer<'w> {
    tar: tar::Builder<&'w mut dyn Write>,
}

impl<'w> Writer<'w> {
    pub(super) fn new(to: &'w mut dyn Write) -> Self {
        Self {
            tar: tar::Builder::new(to),
        }
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<()> {
        let to = self.tar.into_inner().during(|| "end the archive")?;
        Ok(to.flush()?)
    }
}

fn header(meta: &Meta, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode);
    header.set_uid(meta.uid.into());
    header.set_gid(meta.gid.into());
    header.set_mtime(meta.mtime.max(0).cast_unsigned());
    header.set_size(size);
    header
}

impl Writer<'_> {
    /// What comes before an entry's header for what that has no field for.
    fn attributes(&mut self, attributes: &Attributes) -> Result<()> {
        let records: Vec<_> = attributes
            .iter()
            .map(|(name, value)| (format!("{XATTR}{name}"), value))
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), *value));
        Ok(self.tar.append_pax_extensions(records)?)
    }
}

impl Sink for Writer<'_> {
    fn dir(&mut self, path: &Path, meta: &Meta) -> Result<()> {
        let path = if path.as_os_str().is_empty() {
            Path::new("./")
        } else {
            path
        };
        self.attributes(&meta.attributes)?;
        let mut header = header(meta, tar::EntryType::Directory, 0);
        Ok(self.tar.append_data(&mut header, path, io::empty())?)
    }

    fn leave(&mut self, _: &Path, _: &Meta) -> Result<()> {
        Ok(())
    }

    /// As long as it was when it was opened, whatever its writer does meanwhile: its size was told before.
    fn file(&mut self, path: &Path, meta: &Meta, content: Content<'_>) -> Result<u64> {
        self.attributes(&meta.attributes)?;
        let mut header = header(meta, tar::EntryType::Regular, meta.size);
        let mut put = |content: &mut dyn Read| {
            let padded = content.chain(io::repeat(0)).take(meta.size);
            self.tar.append_data(&mut header, path, padded)
        };
        match content {
            Content::File(mut file) => put(&mut file)?,
            Content::Stream(stream) => put(stream)?,
        }
        Ok(meta.size)
    }

    fn link(&mut self, path: &Path, meta: &Meta, target: &Path) -> Result<()> {
        let mut header = header(meta, tar::EntryType::Symlink, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }
}

/// Unpacks an archive below a folder. Devices and pipes are left out.
pub(super) fn unpack(from: impl Read, folder: &mut Folder<'_>) -> Result<Copied> {
    let limits = Limits::default();
    let mut silent = |_: crate::image::Progress<'_>| {};
    let reader = Archive::from_reader("standard input", from).decode(limits.bytes, &mut silent)?;
    let mut archive = Tarball::new(reader, limits);
    let mut copied = Copied::default();
    while let Some(entry) = archive.next()? {
        put(&entry, &mut archive, folder, &mut copied)
            .during(|| format!("unpack `{}`", entry.path.display()))?;
    }
    Ok(copied)
}

fn put(entry: &Entry, content: &mut dyn Read, folder: &mut Folder<'_>, copied: &mut Copied) -> Result<()> {
    let path = entry.path.as_path();
    let meta = Meta {
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.unwrap_or(0),
        size: entry.stored,
        attributes: Attributes::listed(&entry.xattrs),
    };
    folder.make_parents(path)?;
    match &entry.kind {
        Kind::Dir => {
            folder.dir(path, &meta)?;
            folder.leave(path, &meta)?;
        }
        Kind::File(None) => copied.bytes += folder.file(path, &meta, Content::Stream(content))?,
        Kind::File(Some(sparse)) => {
            copied.bytes += folder.place(path, &meta, |file| sparse.write(file, content))?;
        }
        Kind::Symlink(target) => folder.link(path, &meta, target)?,
        Kind::Hardlink(target) => folder.hard_link(path, target)?,
        Kind::Fifo | Kind::Device => {
            copied.leave_out(path, "is a device or a named pipe");
            return Ok(());
        }
    }
    copied.files += 1;
    Ok(())
}
