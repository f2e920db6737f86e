//! Device nodes: the ones every container has and those of the spec.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use serde::Serialize;

use super::ops::MountOp;
use super::{checks, mount, place};
use crate::error::{During, Error, Result};
use crate::files::Root;

/// A device node (or a fifo).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// The entry of the spec it comes from: `linux.devices[2]`.
    pub field: String,
    /// Where, as seen from inside; also where the host has it.
    pub path: PathBuf,
    /// What.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// The kind of a node, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A fifo.
    Fifo,
}

/// config-linux.md, "Default Devices": name, minor and major number.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links every program expects, by the same section.
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

impl Kind {
    fn file_type(self) -> FileType {
        match self {
            Self::Char(..) => FileType::CharacterDevice,
            Self::Block(..) => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Char(major, minor) | Self::Block(major, minor) => rustix::fs::makedev(major, minor),
            Self::Fifo => 0,
        }
    }

    fn is(self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.file_type() && stat.st_rdev == self.number()
    }
}

/// The nodes to make: the defaults (unless `/dev` is the host's) where the spec neither has a device nor binds one, and the spec's.
pub(super) fn plan(spec: &[LinuxDevice], mounts: &[MountOp], own_dev: bool) -> Result<Vec<Device>> {
    if !own_dev {
        return Ok(Vec::new());
    }
    let spec = spec
        .iter()
        .enumerate()
        .map(|(index, device)| from_spec(format!("linux.devices[{index}]"), device))
        .collect::<Result<Vec<_>>>()?;
    let default = DEFAULT
        .iter()
        .filter(|(path, ..)| !spec.iter().any(|d| d.path == Path::new(path)))
        .filter(|(path, ..)| !mounts.iter().any(|m| m.is_bind_at(Path::new(path))))
        .map(|&(path, major, minor)| Device {
            field: format!("default device `{path}`"),
            path: path.into(),
            kind: Kind::Char(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
    // Its place has the link to the devpts instance of the container's own, and no other.
    let named = spec.iter().filter(|d| d.path != Path::new("/dev/ptmx"));
    Ok(default.chain(named.cloned()).collect())
}

fn from_spec(field: String, device: &LinuxDevice) -> Result<Device> {
    let number = |name: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| Error::invalid(format!("{field}.{name}"), value, "is no device number"))
    };
    let numbers = || Ok::<_, Error>((number("major", device.major())?, number("minor", device.minor())?));
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => numbers().map(|(a, b)| Kind::Char(a, b))?,
        LinuxDeviceType::B => numbers().map(|(a, b)| Kind::Block(a, b))?,
        LinuxDeviceType::P => Kind::Fifo,
        LinuxDeviceType::A => {
            return Err(Error::invalid(
                format!("{field}.type"),
                "a",
                "is for cgroup rules; a node is `c`, `u`, `b` or `p`",
            ));
        }
    };
    if !device.path().is_absolute() {
        return Err(Error::invalid(
            format!("{field}.path"),
            device.path().display(),
            "must be absolute",
        ));
    }
    Ok(Device {
        path: checks::target(&format!("{field}.path"), device.path())?,
        kind,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        field,
    })
}

impl Device {
    /// The host's node as a detached mount, after a look at what it really is. A fifo needs none.
    pub(super) fn open_host(&self) -> Result<Option<OwnedFd>> {
        if self.kind == Kind::Fifo {
            return Ok(None);
        }
        mount::clone(&self.find_host()?, false)
            .map(Some)
            .during(|| format!("{}: open the host's `{}`", self.field, self.path.display()))
    }

    /// The host's node, after a look at what it really is.
    pub(super) fn find_host(&self) -> Result<OwnedFd> {
        let open = || -> Result<OwnedFd> {
            let node = rustix::fs::openat(CWD, &self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            self.verify(node.as_fd())?;
            Ok(node)
        };
        open().during(|| format!("{}: open the host's `{}`", self.field, self.path.display()))
    }

    pub(super) fn verify(&self, node: BorrowedFd<'_>) -> Result<()> {
        if self.kind.is(&rustix::fs::fstat(node)?) {
            return Ok(());
        }
        Err(Error::invalid(
            &self.field,
            self.path.display(),
            format!("is not {}", self.kind),
        ))
    }

    /// Makes the node, or puts the host's in its place where making nodes is not allowed.
    pub(super) fn make(&self, root: &Root, host: Option<OwnedFd>) -> Result<()> {
        let work = || match host {
            Some(node) => self.bind(root, &node),
            None => match self.mknod(root) {
                Err(e) if e.errno() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
                    match self.open_host()? {
                        Some(node) => self.bind(root, &node),
                        None => Err(e),
                    }
                }
                other => other,
            },
        };
        work().during(|| format!("{}: make `{}`", self.field, self.path.display()))
    }

    fn bind(&self, root: &Root, node: &OwnedFd) -> Result<()> {
        let (dir, name) = place::parent(root, &self.path)?;
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink) {
            self.clear(&dir, name)?;
        }
        let place = place::of_mount(root, &self.path, false)?;
        mount::attach(node, &place)?;
        self.verify(at(&dir, name)?.as_fd())
    }

    /// `mknod` with exactly these permission bits; the umask of init is 0 while the tree is assembled.
    fn mknod(&self, root: &Root) -> Result<()> {
        let (dir, name) = place::parent(root, &self.path)?;
        let mode = Mode::from_raw_mode(self.mode);
        let make = || rustix::fs::mknodat(&dir, name, self.kind.file_type(), mode, self.kind.number());
        match make() {
            Err(rustix::io::Errno::EXIST) if self.verify(at(&dir, name)?.as_fd()).is_ok() => return Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                self.clear(&dir, name)?;
                make()?;
            }
            other => other?,
        }
        let node = at(&dir, name)?;
        self.verify(node.as_fd())?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(&node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        Ok(())
    }

    /// Removes a file or symbolic link of the image from where a device must be (CVE-2025-31133). Only from `/dev`: elsewhere
    /// it may be somebody's data.
    fn clear(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        if self.path.parent() != Some(Path::new("/dev")) {
            return Err(Error::invalid(
                &self.field,
                self.path.display(),
                format!("is taken by something that is not {}", self.kind),
            ));
        }
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }
}

/// What has this name, without following it.
fn at(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Char(major, minor) => write!(f, "character device {major}:{minor}"),
            Self::Block(major, minor) => write!(f, "block device {major}:{minor}"),
            Self::Fifo => f.write_str("a fifo"),
        }
    }
}

/// Makes the standard links of `/dev`. `ptmx` replaces what is there, because a node of the image would open the host's ptys.
pub(super) fn links(root: &Root) -> Result<()> {
    for (path, to) in LINKS {
        link(root, Path::new(path), Path::new(to), *path == "/dev/ptmx")
            .during(|| format!("link `{path}` to `{to}`"))?;
    }
    Ok(())
}

/// Makes a symbolic link; what is there already stays unless it is to be replaced.
pub(super) fn link(root: &Root, path: &Path, to: &Path, replace: bool) -> Result<()> {
    let (dir, name) = place::parent(root, path)?;
    match rustix::fs::symlinkat(to, &dir, name) {
        Err(rustix::io::Errno::EXIST) if replace => {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
            Ok(rustix::fs::symlinkat(to, &dir, name)?)
        }
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// The node that covers masked files.
pub(super) fn null() -> Device {
    Device {
        field: "default device `/dev/null`".to_owned(),
        path: "/dev/null".into(),
        kind: Kind::Char(1, 3),
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}
