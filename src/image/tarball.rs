//! Entries out of a tar stream: ustar, GNU and pax.
//!
//! The `tar` crate reads the fields of a header; the walk from header to header is ours, because the crate splits pax records
//! at newlines (a binary `security.capability` may hold one) and reads extension headers of any size into memory.
//!
//! Nothing is kept of an entry once the next one has come, and what describes an entry has a budget in bytes, however many
//! headers, records and parts of a sparse file it is spread over: an archive of any size takes little memory.

mod extensions;
mod sparse;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use self::extensions::Extensions;
use super::OWNERS;
use super::entry::{Entry, Kind, Sparse};
use crate::error::{Error, Result};
use crate::files::inside;

/// Tar's unit.
const BLOCK: usize = 512;

/// What an archive may ask for at most. The defaults are generous for a system and small for a bomb.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the archive after decompression.
    pub bytes: u64,
    /// Bytes of one path or link target.
    pub path: usize,
    /// Bytes that describe one entry beside its header: long names, extended attributes, the parts of a sparse file.
    pub entry_metadata: u64,
    /// The same of all entries together.
    pub metadata: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            bytes: 64 << 30,
            path: 4096,
            entry_metadata: 1 << 20,
            metadata: 256 << 20,
        }
    }
}

/// A tar stream. After [`Tarball::next`] it reads as the content of that entry: of a sparse file, the parts it has one after
/// the other.
#[derive(Debug)]
pub struct Tarball<R> {
    reader: R,
    /// Of the current entry's content, not read yet.
    left: u64,
    /// Zeroes behind it.
    padding: u64,
    /// Bytes of all entries.
    read: u64,
    entries: u64,
    metadata: Spent,
    limits: Limits,
}

/// Bytes of metadata that were read, of the current entry and of all.
#[derive(Debug, Default)]
struct Spent {
    entry: u64,
    all: u64,
}

impl Spent {
    /// Takes so much from both budgets, before it is read.
    fn take(&mut self, bytes: u64, limits: &Limits) -> Result<()> {
        self.entry = self.entry.saturating_add(bytes);
        self.all = self.all.saturating_add(bytes);
        if self.entry > limits.entry_metadata {
            return Err(too_much("bytes of metadata of one entry", limits.entry_metadata));
        }
        if self.all > limits.metadata {
            return Err(too_much("bytes of metadata", limits.metadata));
        }
        Ok(())
    }
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, truncated()));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Read> Tarball<R> {
    /// The archive that `reader` reads, already decompressed.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self {
            reader,
            left: 0,
            padding: 0,
            read: 0,
            entries: 0,
            metadata: Spent::default(),
            limits,
        }
    }

    /// The next entry, with extension headers applied, or nothing behind the last.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is no archive or ends too early, [`Error::Invalid`] for what is beyond the limits, leads out
    /// of the root or is of a kind that a root filesystem has not.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator could go on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        self.metadata.entry = 0;
        while let Some(header) = self.header()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(too_much("entries", self.limits.entries));
            }
            self.set_size(size(&header).map_err(corrupt)?)?;
            match header.entry_type().as_byte() {
                // `X` is what Solaris wrote before pax had a name for it.
                b'x' | b'X' => extensions.add_pax(&self.extension()?)?,
                b'L' => extensions.path = Some(until_nul(self.extension()?)),
                b'K' => extensions.link = Some(until_nul(self.extension()?)),
                // A comment about the whole archive, or the label of its volume.
                b'g' | b'V' => {}
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        // Whoever writes the stream must not die of a closed pipe, and a decompressor checks its sum at the end.
        io::copy(&mut self.reader, &mut io::sink())?;
        Ok(None)
    }

    /// What the next archive of the same image may still ask for.
    pub(super) fn left(&self) -> Limits {
        Limits {
            entries: self.limits.entries.saturating_sub(self.entries),
            bytes: self.limits.bytes.saturating_sub(self.read),
            metadata: self.limits.metadata.saturating_sub(self.metadata.all),
            ..self.limits.clone()
        }
    }

    fn set_size(&mut self, size: u64) -> Result<()> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .filter(|padded| *padded <= i64::MAX.unsigned_abs())
            .ok_or_else(|| Error::Corrupt("the archive has an entry of impossible size".into()))?;
        self.left = size;
        self.read = self.read.saturating_add(padded + BLOCK as u64);
        self.padding = padded - size;
        Ok(())
    }

    /// Skips what is left of the current entry and reads a header; nothing at the end of the archive.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let skip = self.left + self.padding;
        if io::copy(&mut self.reader.by_ref().take(skip), &mut io::sink())? < skip {
            return Err(truncated());
        }
        (self.left, self.padding) = (0, 0);
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        if !self.block(block)? {
            if self.entries > 0 {
                log::warn!("the archive has no end-of-archive mark: it may have been cut off");
            }
            return Ok(None);
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = header.cksum().ok();
        if ![unsigned_sum(header.as_bytes()), signed_sum(header.as_bytes())].contains(&sum) {
            return Err(Error::Corrupt("not a tar archive, or a damaged one".into()));
        }
        Ok(Some(header))
    }

    /// Reads one block; false where the archive ends before it. Not every `tar` writes blocks of zeroes at its end.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut read = 0;
        while read < BLOCK {
            match self.reader.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(count) => read += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        self.metadata.take(self.left, &self.limits)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn entry(&mut self, header: &tar::Header, mut extensions: Extensions) -> Result<Entry> {
        if let Some(size) = extensions.size {
            self.set_size(size)?;
        }
        let sparse = self.sparse(header, &mut extensions)?;
        let raw = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let is_dir = raw.ends_with(b"/");
        let path = inside(&self.path(raw)?)?;
        let target = extensions
            .link
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = match header.entry_type().as_byte() {
            // Before POSIX a directory was a file with a slash.
            b'0' | 0 if is_dir => Kind::Dir,
            b'0' | 0 | b'7' | b'S' => Kind::File(sparse),
            b'1' => Kind::Hardlink(inside(&self.path(target)?)?),
            b'2' => Kind::Symlink(self.path(target)?),
            b'3' | b'4' => Kind::Device,
            // `D` of an incremental archive: a directory whose content is the list of its files.
            b'5' | b'D' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'M' => {
                let problem = "goes on from another volume; join the volumes with `tar` first";
                return Err(Error::invalid("archive entry", path.display(), problem));
            }
            other => {
                let problem = format!("is of the unknown type `{}`", other.escape_ascii());
                return Err(Error::invalid("archive entry", path.display(), problem));
            }
        };
        Ok(Entry {
            mode: header.mode().map_err(corrupt)? & 0o7777,
            uid: owner(&path, extensions.uid, || header.uid())?,
            gid: owner(&path, extensions.gid, || header.gid())?,
            // A time before 1970 is not worth failing for.
            mtime: extensions
                .mtime
                .or_else(|| header.mtime().ok().and_then(|t| i64::try_from(t).ok())),
            xattrs: extensions.xattrs.into_iter().collect(),
            stored: self.left,
            path,
            kind,
        })
    }

    /// Where the parts of the entry's content belong, if it is a sparse file in one of the four ways of saying so.
    fn sparse(&mut self, header: &tar::Header, extensions: &mut Extensions) -> Result<Option<Sparse>> {
        let sparse = match header.entry_type().as_byte() {
            b'S' => sparse::old_gnu(header, || {
                self.metadata.take(BLOCK as u64, &self.limits)?;
                let mut block = [0; BLOCK];
                if self.block(&mut block)? {
                    Ok(block)
                } else {
                    Err(truncated())
                }
            })?,
            b'0' | 0 | b'7' => {
                let Some(size) = extensions.sparse.size else {
                    return Ok(None);
                };
                if let Some(name) = extensions.sparse.name.take() {
                    extensions.path = Some(name);
                }
                let parts = if extensions.sparse.major == Some(1) {
                    sparse::leading_map(|| {
                        self.metadata.take(BLOCK as u64, &self.limits)?;
                        if self.left < BLOCK as u64 {
                            return Err(sparse::damaged("its list of parts ends too early"));
                        }
                        let mut block = [0; BLOCK];
                        self.read_exact(&mut block)?;
                        Ok(block)
                    })?
                } else {
                    std::mem::take(&mut extensions.sparse.parts)
                };
                Sparse { size, parts }
            }
            _ => return Ok(None),
        };
        sparse::check(&sparse, self.left)?;
        Ok(Some(sparse))
    }

    fn path(&self, bytes: Vec<u8>) -> Result<PathBuf> {
        if bytes.len() > self.limits.path {
            return Err(too_much("bytes of a path", self.limits.path as u64));
        }
        Ok(OsString::from_vec(bytes).into())
    }
}

/// The sum of a header's bytes, its own field taken as blanks.
fn unsigned_sum(block: &[u8; BLOCK]) -> Option<u32> {
    let rest = block[..148].iter().chain(&block[156..]);
    Some(rest.map(|b| u32::from(*b)).sum::<u32>() + 8 * 32)
}

/// The same as some old programs compute it, which took bytes for signed numbers.
fn signed_sum(block: &[u8; BLOCK]) -> Option<u32> {
    let rest = block[..148].iter().chain(&block[156..]);
    let sum = rest.map(|b| i32::from(b.cast_signed())).sum::<i32>() + 8 * 32;
    u32::try_from(sum).ok()
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// How long what follows is. GNU tar leaves it out of the label of a volume, which nothing follows.
fn size(header: &tar::Header) -> io::Result<u64> {
    match header.entry_type().as_byte() {
        b'V' if header.as_old().size == [0; 12] => Ok(0),
        _ => header.entry_size(),
    }
}

/// An owner that a VPS can have: with any other a file could not even be removed by its root.
fn owner(path: &Path, pax: Option<u64>, header: impl FnOnce() -> io::Result<u64>) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => header().map_err(corrupt)?,
    };
    let fits = u32::try_from(id).ok().filter(|id| *id < OWNERS);
    fits.ok_or_else(|| {
        let problem = format!(
            "does not exist in any VPS, whose users and groups are at most 0 to {}; give the file to another before packing it",
            OWNERS - 1
        );
        Error::invalid(format!("owner of `{}`", path.display()), id, problem)
    })
}

fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::Corrupt(format!("the archive has a damaged header: {e}"))
}

fn truncated() -> Error {
    Error::Corrupt("the archive ends too early: it was cut off".into())
}

pub(super) fn too_much(what: &str, limit: u64) -> Error {
    Error::invalid("archive", what, format!("are more than the limit of {limit}"))
}

#[cfg(test)]
mod tests;
