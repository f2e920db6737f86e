//! One file of a tree, by the directory it is in and its name.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::note;
use crate::error::{During, Error, Result};

/// The longest list of attributes and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MOST: usize = 65_536;
/// Bytes copied by one call: an interruption is noticed between two.
const AT_ONCE: usize = 64 << 20;

/// A file: the directory it is in, and its name there.
#[derive(Debug, Clone, Copy)]
pub struct Node<'d> {
    /// The directory.
    pub dir: BorrowedFd<'d>,
    /// The name; `.` is the directory itself.
    pub name: &'d CStr,
}

impl<'d> Node<'d> {
    /// The file of this name.
    pub fn new(dir: &'d impl AsFd, name: &'d CStr) -> Self {
        Self {
            dir: dir.as_fd(),
            name,
        }
    }

    /// A path for calls that take nothing else. The first part is a descriptor of ours, the second is not followed by calls that do
    /// not follow links.
    fn path(self) -> CString {
        let mut path = format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.to_bytes());
        // A name that came as one has no NUL in it.
        CString::new(path).unwrap_or_default()
    }

    /// Its status, or nothing when it is not there.
    pub fn status(self) -> Result<Option<Stat>> {
        match rustix::fs::statat(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// One extended attribute, or nothing.
    pub fn attribute(self, name: &CStr) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::with_capacity(256);
        match rustix::fs::lgetxattr(self.path(), name, rustix::buffer::spare_capacity(&mut value)) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(None),
            Err(Errno::RANGE) => {
                value = Vec::with_capacity(MOST);
                rustix::fs::lgetxattr(self.path(), name, rustix::buffer::spare_capacity(&mut value))?;
                Ok(Some(value))
            }
            other => other.map(|_| Some(value)).map_err(Into::into),
        }
    }

    /// Sets one extended attribute.
    pub fn set_attribute(self, name: &CStr, value: &[u8]) -> Result<()> {
        rustix::fs::lsetxattr(self.path(), name, value, XattrFlags::empty())
            .during(|| format!("set the attribute `{}`", name.to_string_lossy()))
    }

    /// Where a symbolic link leads.
    pub fn target(self) -> Result<CString> {
        Ok(rustix::fs::readlinkat(self.dir, self.name, Vec::new())?)
    }

    /// Opens a regular file to read it. What has become something else meanwhile is gone.
    pub fn open(self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| rustix::fs::openat(self.dir, self.name, flags, Mode::empty());
        let fd = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        let file = match fd {
            Err(Errno::LOOP | Errno::NXIO) => return Err(Errno::NOENT.into()),
            other => File::from(other?),
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file),
            _ => Err(Errno::NOENT.into()),
        }
    }
}

/// The kind of a file.
pub fn look(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// Whether it stands for "there is no such file" in a layer: a character device 0:0 (overlayfs).
pub fn is_whiteout(status: &Stat) -> bool {
    look(status) == FileType::CharacterDevice && status.st_rdev == 0
}

/// The names in a directory, sorted.
pub fn list(dir: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Extended attributes by their names.
pub(super) type Attributes = Vec<(CString, Vec<u8>)>;

/// All extended attributes but condo's own, sorted.
pub fn attributes(node: Node<'_>) -> Result<Attributes> {
    let mut names = Vec::with_capacity(1024);
    let listed = rustix::fs::llistxattr(node.path(), rustix::buffer::spare_capacity(&mut names));
    match listed {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            names = Vec::with_capacity(MOST);
            rustix::fs::llistxattr(node.path(), rustix::buffer::spare_capacity(&mut names))?;
        }
        other => drop(other?),
    }
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name)
            .map_err(|_| Error::Corrupt("the kernel names an attribute without an end".into()))?;
        if name != note::OWN
            && let Some(value) = node.attribute(name)?
        {
            found.push((name.to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Gives a file owner, mode, exactly these attributes, and times; in this order, for a change of owner clears set-user-ID bits and
/// file capabilities.
pub(super) fn dress(node: Node<'_>, status: &Stat, attributes_: &[(CString, Vec<u8>)]) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(node.dir, node.name, Some(uid), Some(gid), flags)?;
    if look(status) != FileType::Symlink {
        let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
        rustix::fs::chmodat(node.dir, node.name, mode, AtFlags::empty())?;
    }
    for (name, _) in attributes(node)? {
        if !attributes_.iter().any(|(wanted, _)| *wanted == name) {
            rustix::fs::lremovexattr(node.path(), &*name)?;
        }
    }
    for (name, value) in attributes_ {
        node.set_attribute(name, value)?;
    }
    rustix::fs::utimensat(node.dir, node.name, &times(status), flags)?;
    Ok(())
}

fn times(status: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec),
        last_modification: time(status.st_mtime, status.st_mtime_nsec),
    }
}

/// Makes a file that has no content: a link, a pipe, a socket, a whiteout. Other devices a VPS cannot have made.
pub(super) fn make_special(node: Node<'_>, status: &Stat, target: Option<&CStr>) -> Result<()> {
    let make = |kind| rustix::fs::mknodat(node.dir, node.name, kind, Mode::RUSR | Mode::WUSR, 0);
    match (look(status), target) {
        (FileType::Symlink, Some(target)) => rustix::fs::symlinkat(target, node.dir, node.name)?,
        (kind @ (FileType::Fifo | FileType::Socket), _) => make(kind)?,
        (kind @ FileType::CharacterDevice, _) if status.st_rdev == 0 => make(kind)?,
        _ => {
            let name = node.name.to_string_lossy();
            return Err(Error::invalid(
                "file",
                name,
                "is a device, which no layer of a VPS has",
            ));
        }
    }
    Ok(())
}

/// Copies the content of a file: by sharing its blocks where the file system can (`may_share`, set to false once it cannot), else
/// what lies between its holes. The number of bytes that were copied.
pub(super) fn content_of(from: &File, to: &File, may_share: &mut bool) -> Result<u64> {
    if *may_share {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(0),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => *may_share = false,
            Err(e) => return Err(e.into()),
        }
    }
    let size = from.metadata()?.len();
    let (mut at, mut copied) = (0, 0);
    while at < size {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin))?.min(size);
        copied += part_of(from, to, begin, end)?;
        at = end.max(begin + 1);
    }
    to.set_len(size)?;
    Ok(copied)
}

fn part_of(from: &File, to: &File, begin: u64, end: u64) -> Result<u64> {
    let (mut input, mut output) = (begin, begin);
    while input < end {
        let length = usize::try_from(end - input).unwrap_or(AT_ONCE).min(AT_ONCE);
        match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), length) {
            // Shorter meanwhile.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            // Between file systems of two kinds.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return by_hand(from, to, input, end).map(|rest| input - begin + rest);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(input - begin)
}

fn by_hand(from: &File, to: &File, begin: u64, end: u64) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 18];
    let mut at = begin;
    while at < end {
        let most = usize::try_from(end - at)
            .unwrap_or(buffer.len())
            .min(buffer.len());
        let count = from.read_at(&mut buffer[..most], at)?;
        if count == 0 {
            break;
        }
        to.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    Ok(at - begin)
}
