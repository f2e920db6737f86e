//! Writing what was read below a folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom as Hole};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::attributes;
use super::file::{Content, Ids, Meta, Sink};
use super::side::Side;
use crate::error::{During, Error, Result};
use crate::files::{self, NewFile, Root};

/// Set-user-ID and set-group-ID: what a tenant made must not run as anybody of the host's.
const PRIVILEGED: u32 = 0o6000;

/// Whom files belong to where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// Whoever copies, on the host.
    Caller,
    /// The same numbers, on the host.
    Same,
    /// Root of a VPS, whose number on the host this is.
    Root(u32),
    /// The same numbers inside of a VPS that has these.
    Shifted(Ids),
}

impl Owners {
    fn of(self, meta: &Meta, path: &Path) -> Result<(u32, u32)> {
        match self {
            Self::Caller => Ok((
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )),
            Self::Same => Ok((meta.uid, meta.gid)),
            Self::Root(base) => Ok((base, base)),
            Self::Shifted(ids) => match (ids.outside(meta.uid), ids.outside(meta.gid)) {
                (Some(uid), Some(gid)) => Ok((uid, gid)),
                _ => Err(Error::invalid(
                    "owner",
                    meta.uid.max(meta.gid),
                    format!(
                        "of `{}` is none that this VPS has (below {}); copy it without --archive",
                        path.display(),
                        ids.count
                    ),
                )),
            },
        }
    }

    /// The numbers by which attributes are kept, if they are.
    fn ids(self) -> Option<Ids> {
        match self {
            Self::Caller | Self::Root(_) => None,
            Self::Same => Some(Ids::HOST),
            Self::Shifted(ids) => Some(ids),
        }
    }

    fn mode(self, meta: &Meta) -> Mode {
        match self {
            Self::Caller | Self::Same => Mode::from_raw_mode(meta.mode & !PRIVILEGED),
            Self::Root(_) | Self::Shifted(_) => Mode::from_raw_mode(meta.mode),
        }
    }
}

/// A folder that is being filled. Where a link is in the way below it, there is no folder: it is not followed.
pub(super) struct Folder<'g> {
    side: Side<'g>,
    root: Root,
    owners: Owners,
}

impl<'g> Folder<'g> {
    pub(super) fn new(side: Side<'g>, dir: OwnedFd, owners: Owners) -> Self {
        Self {
            side,
            root: Root::from(dir),
            owners,
        }
    }

    /// The folder of a path, and the name in it.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let dir = self.open(path.parent().unwrap_or(Path::new("")))?;
        let name = path
            .file_name()
            .ok_or_else(|| Error::invalid("path", path.display(), "has no name"))?;
        Ok((dir, name))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let dir = match self.root.get_dir(path) {
            Err(e) if is_in_the_way(&e) => {
                let problem = "is a link or a file and in the way; remove it first";
                return Err(Error::invalid("destination", path.display(), problem));
            }
            other => other?,
        };
        self.side.admit(dir.as_fd(), path)?;
        Ok(dir)
    }

    /// Makes a folder if it is not there, and says whether it was made.
    pub(super) fn make_dir(&self, path: &Path) -> Result<bool> {
        if path.as_os_str().is_empty() {
            return Ok(false);
        }
        let (parent, name) = self.parent(path)?;
        let _identity = self.side.identity()?;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                self.open(path)?;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a file of what `fill` writes, which says how many bytes that is.
    pub(super) fn place(
        &self,
        path: &Path,
        meta: &Meta,
        fill: impl FnOnce(&mut File) -> Result<u64>,
    ) -> Result<u64> {
        let (parent, name) = self.parent(path)?;
        let _identity = self.side.identity()?;
        let mut new = NewFile::begin(parent.as_fd())?;
        let bytes = fill(&mut new.file)?;
        self.dress(new.as_fd(), path, meta)?;
        match new.finish(name) {
            Err(e) if e.errno() == Some(Errno::ISDIR.raw_os_error()) => {
                let problem = "is a folder, and a file is to be copied to it";
                Err(Error::invalid("destination", path.display(), problem))
            }
            other => other.map(|()| bytes),
        }
    }

    /// Makes one more name of a file that is below this folder already.
    pub(super) fn hard_link(&self, path: &Path, target: &Path) -> Result<()> {
        let (there, old) = self.parent(target)?;
        let (parent, name) = self.parent(path)?;
        let _identity = self.side.identity()?;
        // Without AT_SYMLINK_FOLLOW: a symbolic link is linked itself.
        let link = || rustix::fs::linkat(&there, old, &parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                Ok(link()?)
            }
            other => Ok(other?),
        }
    }

    /// Makes the folders above a path that are not there.
    pub(super) fn make_parents(&self, path: &Path) -> Result<()> {
        let above = path.parent().unwrap_or(Path::new(""));
        match self.open(above) {
            Err(e) if e.is_gone() => {}
            other => return other.map(drop),
        }
        self.make_parents(above)?;
        if self.make_dir(above)? {
            let _identity = self.side.identity()?;
            let dir = self.open(above)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&dir, ".", flags, Mode::empty())?;
            // Whatever the umask is.
            rustix::fs::fchmod(dir, Mode::from_raw_mode(0o755))?;
        }
        Ok(())
    }

    /// Owner first: a change of owner clears set-user-ID bits and capabilities.
    fn dress(&self, file: BorrowedFd<'_>, path: &Path, meta: &Meta) -> Result<()> {
        let (uid, gid) = self.owners.of(meta, path)?;
        if self.owners.ids().is_some() {
            attributes::clear_lists(file)?;
        }
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(file, self.owners.mode(meta))?;
        if let Some(ids) = self.owners.ids() {
            meta.attributes.put(file, ids)?;
        }
        Ok(rustix::fs::futimens(file, &files::written_at(meta.mtime))?)
    }
}

fn is_in_the_way(e: &Error) -> bool {
    [Errno::LOOP, Errno::NOTDIR, Errno::XDEV]
        .map(|e| Some(e.raw_os_error()))
        .contains(&e.errno())
}

impl Sink for Folder<'_> {
    fn dir(&mut self, path: &Path, meta: &Meta) -> Result<()> {
        // Whether its owner can be had is known before anything is made.
        self.owners.of(meta, path)?;
        self.make_dir(path).map(drop)
    }

    /// Its owner and mode only now: it may be closed to writing. The folder that was named is left as it is.
    fn leave(&mut self, path: &Path, meta: &Meta) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let dir = self.open(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&dir, ".", flags, Mode::empty())?;
        let _identity = self.side.identity()?;
        self.dress(dir.as_fd(), path, meta)
    }

    fn file(&mut self, path: &Path, meta: &Meta, content: Content<'_>) -> Result<u64> {
        self.place(path, meta, |file| match content {
            Content::File(from) => copy(from, file),
            Content::Stream(stream) => Ok(io::copy(stream, file)?),
        })
    }

    fn link(&mut self, path: &Path, meta: &Meta, target: &Path) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let _identity = self.side.identity()?;
        let make = || rustix::fs::symlinkat(target, &parent, name);
        match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())
                    .during(|| format!("replace `{}`", path.display()))?;
                make()?;
            }
            other => other?,
        }
        let (uid, gid) = self.owners.of(meta, path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(
            &parent,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            flags,
        )?;
        Ok(rustix::fs::utimensat(
            &parent,
            name,
            &files::written_at(meta.mtime),
            flags,
        )?)
    }
}

/// Copies a file, its holes as holes: a database that reserves a terabyte has written little of it. The bytes that were written.
pub(super) fn copy(from: &File, to: &mut File) -> Result<u64> {
    let size = rustix::fs::fstat(from)?.st_size.cast_unsigned();
    let (mut at, mut copied) = (0, 0);
    while at < size {
        let data = match rustix::fs::seek(from, Hole::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            // A filesystem without holes.
            Err(Errno::INVAL) => at,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(from, Hole::Hole(data)).unwrap_or(size).min(size);
        let mut from = from;
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        let part = io::copy(&mut io::Read::take(from, end.saturating_sub(data)), to)?;
        copied += part;
        if part == 0 {
            // It was cut off meanwhile.
            break;
        }
        at = data + part;
    }
    to.set_len(size)?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::*;

    const META: Meta = Meta {
        mode: 0o6755,
        uid: 33,
        gid: 4,
        mtime: 0,
        size: 0,
        attributes: Attributes::NONE,
    };
    const IDS: Ids = Ids {
        base: 7000,
        count: 262_144,
    };

    #[test]
    fn owners_are_those_of_the_place() {
        let path = Path::new("x");
        assert_eq!(Owners::Root(7000).of(&META, path).unwrap(), (7000, 7000));
        assert_eq!(Owners::Shifted(IDS).of(&META, path).unwrap(), (7033, 7004));
        assert_eq!(Owners::Same.of(&META, path).unwrap(), (33, 4));
        let nested = Meta { gid: 200_000, ..META };
        assert_eq!(Owners::Shifted(IDS).of(&nested, path).unwrap(), (7033, 207_000));
        let foreign = Meta {
            gid: IDS.count,
            ..META
        };
        assert!(Owners::Shifted(IDS).of(&foreign, path).is_err());
    }

    #[test]
    fn what_a_tenant_made_runs_as_nobody_of_the_hosts() {
        assert_eq!(Owners::Same.mode(&META).as_raw_mode(), 0o755);
        assert_eq!(Owners::Root(7000).mode(&META).as_raw_mode(), 0o6755);
    }

    #[test]
    fn holes_stay_holes() {
        use std::io::Write;
        use std::os::unix::fs::MetadataExt;
        let path = std::env::temp_dir().join(format!("condo-holes-{}", std::process::id()));
        let open = |name: &str| {
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path.with_extension(name))
                .unwrap()
        };
        let (mut from, mut to) = (open("from"), open("to"));
        from.seek(SeekFrom::Start(8 << 20)).unwrap();
        from.write_all(b"end").unwrap();
        from.set_len(64 << 20).unwrap();
        let copied = copy(&from, &mut to).unwrap();
        let (size, blocks) = (to.metadata().unwrap().len(), to.metadata().unwrap().blocks());
        for name in ["from", "to"] {
            std::fs::remove_file(path.with_extension(name)).unwrap();
        }
        assert_eq!(size, 64 << 20);
        assert!(copied < 1 << 20 && blocks * 512 < 1 << 20, "{copied} {blocks}");
    }
}
