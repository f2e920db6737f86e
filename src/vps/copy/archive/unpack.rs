//! Trees out of an archive that nobody has to trust.

use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::fill::Tree;
use super::seal::Sealed;
use super::{HEADER, Header, LONGEST_HEADER, LONGEST_PATH};
use crate::error::{During, Error, Result};
use crate::image::{Entry, Kind, Limits, Tarball};
use crate::vps::record::ids::USUAL;

/// Memory a decompressor may take, as the logarithm of its window: what `zstd` itself takes without being told.
const WINDOW_LOG: u32 = 27;
/// What a tree may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// A layer over an image: whiteouts, and overlayfs' own attributes.
    Layer,
    /// An image: neither.
    Image,
}

/// An archive being read.
pub struct Reader<R: Read> {
    tarball: Tarball<zstd::Decoder<'static, BufReader<Sealed<R>>>>,
    header: Header,
    /// What was read to know where one tree ends.
    ahead: Option<Entry>,
    /// Behind its end there is nothing to read.
    over: bool,
}

impl<R: Read> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads what an archive says of itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is no archive of a VPS, [`Error::Invalid`] for one that is not for this condo.
    pub fn open(reader: R) -> Result<Self> {
        let none = |_| Error::Corrupt("not an archive of a VPS, or a damaged one".into());
        let mut decoder = zstd::Decoder::new(Sealed::new(reader))?;
        decoder.window_log_max(WINDOW_LOG)?;
        let mut tarball = Tarball::new(decoder, limits());
        let first = tarball.next().map_err(none)?;
        let is_header = |entry: &Entry| {
            entry.path == Path::new(HEADER)
                && entry.kind == Kind::File(None)
                && entry.stored <= LONGEST_HEADER
        };
        let Some(first) = first.filter(is_header) else {
            return Err(Error::Corrupt(
                "not an archive of a VPS: `condo.json` does not come first".into(),
            ));
        };
        let mut text = vec![0; usize::try_from(first.stored).unwrap_or(0)];
        tarball.read_exact(&mut text).map_err(io_error)?;
        let header: Header = serde_json::from_slice(&text).during(|| "read `condo.json` of the archive")?;
        header.check()?;
        Ok(Self {
            tarball,
            header,
            ahead: None,
            over: false,
        })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads all of it: `image/…` into one empty directory, `layer/…` into another, with what the older state `base` has. What was
    /// read may be used only after this has succeeded.
    pub fn unpack(mut self, image: Option<&OwnedFd>, layer: &OwnedFd, base: Option<&OwnedFd>) -> Result<()> {
        if self.header.image.included != image.is_some() {
            return Err(Error::Corrupt(
                "the archive has an image that it does not name".into(),
            ));
        }
        if let Some(image) = image {
            self.tree("image", Policy::Image, image, None)?;
        }
        self.tree("layer", Policy::Layer, layer, base)?;
        match self.next()? {
            None => Ok(()),
            Some(entry) => {
                let problem = "belongs to no part of an archive of a VPS";
                Err(Error::invalid("archive entry", entry.path.display(), problem))
            }
        }
    }

    /// One tree: entries whose path begins with `name`.
    fn tree(&mut self, name: &str, policy: Policy, top: &OwnedFd, base: Option<&OwnedFd>) -> Result<()> {
        let mut tree = Tree::new(policy, top, base)?;
        while let Some(mut entry) = self.next()? {
            let Ok(below) = entry.path.strip_prefix(name) else {
                self.ahead = Some(entry);
                break;
            };
            entry.path = below.to_owned();
            self.check_owner(&entry)?;
            if let Kind::Hardlink(target) = &mut entry.kind {
                *target = match target.strip_prefix(name) {
                    Ok(target) => target.to_owned(),
                    Err(_) => return Err(refused(&entry.path, "is a link to another part of the archive")),
                };
            }
            tree.put(&entry, &mut self.tarball)
                .during(|| format!("unpack `{}`", shown(&entry.path)))?;
        }
        tree.finish()
    }

    /// A file of somebody whom the VPS does not have would be nobody's: not even its root could remove it.
    fn check_owner(&self, entry: &Entry) -> Result<()> {
        let (highest, ids) = (entry.uid.max(entry.gid), self.header.config.ranges() * USUAL);
        if highest < ids {
            return Ok(());
        }
        let problem = format!("has owner {highest}, and the VPS that it describes has {ids} user ids");
        Err(refused(&entry.path, &problem))
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        match self.ahead.take() {
            Some(entry) => Ok(Some(entry)),
            None if self.over => Ok(None),
            None => {
                let next = self.tarball.next()?;
                self.over = next.is_none();
                Ok(next)
            }
        }
    }
}

fn limits() -> Limits {
    Limits {
        entries: 1 << 32,
        bytes: u64::MAX,
        path: LONGEST_PATH,
        entry_metadata: 2 << 20,
        metadata: 1 << 40,
    }
}

/// What the seal says comes as an error of reading.
pub(super) fn io_error(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Error::Corrupt(e.to_string()),
        _ => e.into(),
    }
}

fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

pub(super) fn refused(path: &Path, problem: &str) -> Error {
    Error::invalid("archive entry", shown(path), problem)
}
