//! Entries out of a tar stream: ustar, GNU and pax.
//!
//! The `tar` crate reads the fields of a header; the walk from header to header is ours, because the crate splits pax records
//! at newlines (a binary `security.capability` may hold one) and reads extension headers of any size into memory.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::entry::{Entry, Kind};
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
    /// Bytes of one extension header (long names, extended attributes).
    pub extension: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            bytes: 64 << 30,
            path: 4096,
            extension: 1 << 20,
        }
    }
}

/// A tar stream. After [`Tarball::next`] it reads as the content of that entry.
pub(super) struct Tarball<R> {
    reader: R,
    /// Of the current entry's content, not read yet.
    left: u64,
    /// Zeroes behind it.
    padding: u64,
    entries: u64,
    limits: Limits,
}

/// Extension headers, which describe the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
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
    pub(super) fn new(reader: R, limits: Limits) -> Self {
        Self {
            reader,
            left: 0,
            padding: 0,
            entries: 0,
            limits,
        }
    }

    /// The next entry, with extension headers applied, or nothing behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(too_much("entries", self.limits.entries));
            }
            self.set_size(header.entry_size().map_err(corrupt)?)?;
            match header.entry_type().as_byte() {
                b'x' => extensions.add_pax(&self.extension()?)?,
                b'g' => {}
                b'L' => extensions.path = Some(until_nul(self.extension()?)),
                b'K' => extensions.link = Some(until_nul(self.extension()?)),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        // Whoever writes the stream must not die of a closed pipe, and a decompressor checks its sum at the end.
        io::copy(&mut self.reader, &mut io::sink())?;
        Ok(None)
    }

    fn set_size(&mut self, size: u64) -> Result<()> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| Error::Corrupt("the archive has an entry of impossible size".into()))?;
        self.left = size;
        self.padding = padded - size;
        Ok(())
    }

    /// Skips what is left of the current entry and reads a header; nothing at the end-of-archive mark.
    fn header(&mut self) -> Result<Option<tar::Header>> {
        let skip = self.left + self.padding;
        if io::copy(&mut self.reader.by_ref().take(skip), &mut io::sink())? < skip {
            return Err(truncated());
        }
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        match self.reader.read_exact(block) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(truncated()),
            other => other?,
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(Error::Corrupt("not a tar archive, or a damaged one".into()));
        }
        Ok(Some(header))
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > self.limits.extension {
            return Err(too_much("bytes of an extension header", self.limits.extension));
        }
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn entry(&mut self, header: &tar::Header, extensions: Extensions) -> Result<Entry> {
        if let Some(size) = extensions.size {
            self.set_size(size)?;
        }
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
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink(inside(&self.path(target)?)?),
            b'2' => Kind::Symlink(self.path(target)?),
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => return Err(sparse(&path)),
            other => {
                let problem = format!("is of the unknown type `{}`", other.escape_ascii());
                return Err(Error::invalid("archive entry", path.display(), problem));
            }
        };
        Ok(Entry {
            mode: header.mode().map_err(corrupt)? & 0o7777,
            uid: owner(extensions.uid, || header.uid())?,
            gid: owner(extensions.gid, || header.gid())?,
            // A time before 1970 is not worth failing for.
            mtime: extensions
                .mtime
                .or_else(|| header.mtime().ok().and_then(|t| i64::try_from(t).ok())),
            xattrs: extensions.xattrs,
            path,
            kind,
        })
    }

    fn path(&self, bytes: Vec<u8>) -> Result<PathBuf> {
        if bytes.len() > self.limits.path {
            return Err(too_much("bytes of a path", self.limits.path as u64));
        }
        Ok(OsString::from_vec(bytes).into())
    }
}

impl Extensions {
    /// Records of `pax(5)`: `<length> <key>=<value>\n`, the length in decimal and of the whole record.
    fn add_pax(&mut self, mut data: &[u8]) -> Result<()> {
        let bad = || Error::Corrupt("the archive has a damaged pax header".into());
        while !data.is_empty() {
            let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let length: usize = number(&data[..space]).ok_or_else(bad)?;
            let record = data.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let key = std::str::from_utf8(&record[..equals]).map_err(|_| bad())?;
            self.set(key, &record[equals + 1..]).ok_or_else(bad)??;
            data = &data[length..];
        }
        Ok(())
    }

    /// Takes one record; nothing when the value does not parse.
    fn set(&mut self, key: &str, value: &[u8]) -> Option<Result<()>> {
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number(value)?),
            "uid" => self.uid = Some(number(value)?),
            "gid" => self.gid = Some(number(value)?),
            "mtime" => self.mtime = Some(number(value.split(|b| *b == b'.').next()?)?),
            _ if key.starts_with("GNU.sparse.") => return Some(Err(sparse(Path::new(key)))),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Some(Ok(()))
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn owner(pax: Option<u64>, header: impl FnOnce() -> io::Result<u64>) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => header().map_err(corrupt)?,
    };
    // The highest number means "nobody" to the kernel.
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::invalid("owner", id, "is not a user or group number"))
}

fn corrupt(e: impl std::fmt::Display) -> Error {
    Error::Corrupt(format!("the archive has a damaged header: {e}"))
}

fn truncated() -> Error {
    Error::Corrupt("the archive ends too early: its end-of-archive mark is missing".into())
}

fn sparse(path: &Path) -> Error {
    Error::invalid(
        "archive entry",
        path.display(),
        "is a sparse file; pack the archive without `--sparse`",
    )
}

pub(super) fn too_much(what: &str, limit: u64) -> Error {
    Error::invalid("archive", what, format!("are more than the limit of {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(data: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut tarball = Tarball::new(data, limits);
        let mut all = Vec::new();
        while let Some(entry) = tarball.next()? {
            let mut content = Vec::new();
            if entry.kind == Kind::File {
                tarball.read_to_end(&mut content)?;
            }
            all.push((entry, content));
        }
        Ok(all)
    }

    fn archive(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_uid(7);
            header.set_gid(8);
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn pax_records_may_hold_newlines_and_override_the_header() {
        let value = b"\x01\n\x00\n";
        let mut record = b"SCHILY.xattr.security.capability=".to_vec();
        record.extend_from_slice(value);
        let mut pax = format!("{} ", record.len() + 4).into_bytes();
        pax.extend_from_slice(&record);
        pax.push(b'\n');
        pax.extend_from_slice(b"12 path=y/z\n12 uid=1000\n");
        let all = read_all(
            &archive(&[(b'x', "p", &pax), (b'0', "f", b"abc")]),
            Limits::default(),
        )
        .unwrap();
        assert_eq!(all[0].0.path, Path::new("y/z"));
        assert_eq!((all[0].0.uid, all[0].0.gid), (1000, 8));
        assert_eq!(
            all[0].0.xattrs,
            [("security.capability".to_owned(), value.to_vec())]
        );
        assert_eq!(all[0].1, b"abc");
    }

    #[test]
    fn gnu_long_names_are_joined() {
        let long = format!("{}/file\0", "d".repeat(200));
        let all = read_all(
            &archive(&[(b'L', "x", long.as_bytes()), (b'0', "short", b"")]),
            Limits::default(),
        );
        assert_eq!(all.unwrap()[0].0.path.to_str(), Some(long.trim_end_matches('\0')));
    }

    #[test]
    fn damage_and_excess_are_refused() {
        let whole = archive(&[(b'0', "a", &[1; 600]), (b'0', "b", b"x")]);
        let refused = |data: &[u8], limits: Limits| read_all(data, limits).unwrap_err().to_string();
        assert!(refused(&whole[..2048], Limits::default()).contains("too early"));
        assert!(refused(&whole[..700], Limits::default()).contains("early"));
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(refused(&damaged, Limits::default()).contains("not a tar"));
        assert!(
            refused(
                &whole,
                Limits {
                    entries: 1,
                    ..Limits::default()
                }
            )
            .contains("limit of 1")
        );
        assert!(refused(&archive(&[(b'x', "p", b"99 path=a\n")]), Limits::default()).contains("pax"));
        assert!(refused(&archive(&[(b'S', "p", b"")]), Limits::default()).contains("sparse"));
        assert!(
            refused(
                &archive(&[(b'L', "p", &[b'a'; 2000])]),
                Limits {
                    extension: 1024,
                    ..Limits::default()
                }
            )
            .contains("extension")
        );
        assert!(refused(&archive(&[(b'0', "../a", b"")]), Limits::default()).contains(".."));
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(data: Vec<u8>) {
            let _ = read_all(&data, Limits::default());
            let mut extensions = Extensions::default();
            let _ = extensions.add_pax(&data);
        }
    }
}
