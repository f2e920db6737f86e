//! Devices of the host's that a VPS may open, by their paths.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};

/// A device that is passed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Device(PathBuf);

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Whether it is a block device.
    pub block: bool,
    /// Number of the driver.
    pub major: u32,
    /// Number of the device.
    pub minor: u32,
}

/// Character devices by which a VPS would have the host, or all VPSs: by driver, and by device where others of the driver's are
/// harmless.
const NEVER: [(u32, Option<u32>, &str); 9] = [
    (1, None, "memory of the host, or what every VPS has anyway"),
    (4, None, "a terminal of the host's"),
    (5, None, "a terminal of the host's"),
    (10, Some(126), "pages of other processes (userfaultfd)"),
    (10, Some(223), "the host's keyboard (uinput)"),
    (10, Some(231), "the host's memory (snapshot)"),
    (10, Some(235), "file systems for automatic mounts of the host's"),
    (10, Some(236), "all disks of the host (device mapper)"),
    (10, Some(237), "loop devices, which are the host's"),
];

impl Device {
    /// Short names.
    const NAMES: [(&'static str, &'static str); 3] = [
        ("fuse", "/dev/fuse"),
        ("kvm", "/dev/kvm"),
        ("tun", "/dev/net/tun"),
    ];

    /// Where it is, on the host and in the VPS.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is below `/dev`.
    pub fn name(&self) -> &Path {
        self.0.strip_prefix("/dev").unwrap_or(&self.0)
    }

    /// What is at the path now.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no device, what would give the host away, and a disk that the host uses.
    pub fn find(&self) -> Result<Number> {
        let refuse = |problem: &dyn fmt::Display| Err(Error::invalid("--device", self.0.display(), problem));
        // Without following links: what a link leads to has a name of its own, and tomorrow it leads elsewhere.
        let stat = match rustix::fs::lstat(&self.0) {
            Err(e) => return refuse(&format!("cannot be looked at: {e}")),
            Ok(stat) => stat,
        };
        let block = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => false,
            FileType::BlockDevice => true,
            FileType::Symlink => return refuse(&"is a link; name the device that it leads to"),
            _ => return refuse(&"is not a device"),
        };
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let never = NEVER
            .iter()
            .find(|(m, n, _)| *m == major && n.is_none_or(|n| n == minor));
        match never {
            Some((_, _, what)) if !block => return refuse(&format!("cannot be passed on: it is {what}")),
            _ => {}
        }
        if block && self.is_in_use()? {
            return refuse(&"is a disk that the host uses; unmount it first");
        }
        Ok(Number { block, major, minor })
    }

    /// Whether it, or a part of it, is mounted or otherwise taken (`open(2)`: `O_EXCL` of a block device).
    fn is_in_use(&self) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(CWD, &self.0, flags, Mode::empty()) {
            Err(rustix::io::Errno::BUSY) => Ok(true),
            other => other
                .map(|_| false)
                .during(|| format!("open `{}`", self.0.display())),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, path)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Self((*path).into()));
        }
        let path = Path::new(text);
        let below = path.strip_prefix("/dev").ok();
        let plain = |c: Component<'_>| matches!(c, Component::Normal(name) if name.as_bytes().iter().all(u8::is_ascii_graphic));
        let is_path =
            below.is_some_and(|below| below.components().next().is_some() && below.components().all(plain));
        // As it was written: what the kernel makes of it must be what was checked.
        if !is_path || text.contains("//") || text.contains("/./") || text.ends_with('/') {
            let problem = "is neither fuse, kvm or tun, nor a path below /dev";
            return Err(Error::invalid("--device", text, problem));
        }
        // The VPS has those of its own.
        for own in ["pts", "shm", "mqueue", ".condo"] {
            if below.is_some_and(|below| below.starts_with(own)) {
                return Err(Error::invalid(
                    "--device",
                    text,
                    "is a place that every VPS has for itself",
                ));
            }
        }
        Ok(Self(path.into()))
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_a_name_or_a_path() {
        for (text, path) in [
            ("kvm", "/dev/kvm"),
            ("tun", "/dev/net/tun"),
            ("/dev/net/tun", "/dev/net/tun"),
            ("/dev/dri/card0", "/dev/dri/card0"),
        ] {
            let device: Device = text.parse().unwrap();
            assert_eq!(device.path(), Path::new(path));
            assert_eq!(
                String::from(device).parse::<Device>().unwrap().path(),
                Path::new(path)
            );
        }
        for bad in [
            "",
            "dri",
            "/dev",
            "/dev/",
            "/dev/../sda",
            "/etc/x",
            "dev/x",
            "/dev//x",
            "/dev/./x",
            "/dev/a b",
            "/dev/pts/0",
        ] {
            assert!(bad.parse::<Device>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_gives_the_host_away_is_not_passed_on() {
        for bad in [
            "/dev/null",
            "/dev/mem",
            "/dev/tty",
            "/dev/nothing-of-this-name",
            "/dev/stdin",
        ] {
            let error = bad.parse::<Device>().unwrap().find().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
