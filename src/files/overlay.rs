//! overlayfs out of opened directories.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::error::{Error, Result};

/// Name of the writable layer in the directory that is given for it.
pub const UPPER: &str = "upper";
/// Name of overlayfs' own directory beside it.
pub const WORK: &str = "work";

/// Lower layers that can be named in one value, which the kernel takes up to 255 bytes of (`fsconfig(2)`). More need
/// `lowerdir+`, which takes them one by one, of Linux 6.7.
const IN_ONE_VALUE: usize = 12;

/// The writable layer: two directories of one mount.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// A directory above both.
    pub dir: BorrowedFd<'a>,
    /// What is written, as a path below it.
    pub upper: &'a str,
    /// Where overlayfs works, as a path below it. No other overlay may work there.
    pub work: &'a str,
}

impl<'a> Upper<'a> {
    /// The directory's [`UPPER`] and [`WORK`].
    pub fn of(dir: BorrowedFd<'a>) -> Self {
        let (upper, work) = (UPPER, WORK);
        Self { dir, upper, work }
    }
}

/// Joins directories: `lowers`, the uppermost first, and the writable one on top. Not attached anywhere.
///
/// Layers are named by descriptor, so that no path shows in a mount table and nobody can put something else into its place.
///
/// # Errors
/// [`Error::Unsupported`] where the kernel has no overlayfs, refuses a layer, or takes fewer of them.
pub fn mount(lowers: &[impl AsFd], upper: Option<Upper<'_>>, options: &[(&str, &str)]) -> Result<OwnedFd> {
    let path = |fd: BorrowedFd<'_>, name: &str| format!("/proc/self/fd/{}{name}", fd.as_raw_fd());
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NODEV => {
            Error::unsupported("a root disk", "this kernel has no overlayfs (`modprobe overlay`)")
        }
        other => other.into(),
    })?;
    let lowers: Vec<_> = lowers.iter().map(|fd| path(fd.as_fd(), "")).collect();
    let configure = || -> Result<()> {
        fsconfig_set_string(&overlay, "source", "condo")?;
        if lowers.len() > IN_ONE_VALUE {
            for lower in &lowers {
                fsconfig_set_string(&overlay, "lowerdir+", lower)?;
            }
        } else {
            fsconfig_set_string(&overlay, "lowerdir", lowers.join(":"))?;
        }
        if let Some(Upper { dir, upper, work }) = upper {
            fsconfig_set_string(&overlay, "upperdir", path(dir, &format!("/{upper}")))?;
            fsconfig_set_string(&overlay, "workdir", path(dir, &format!("/{work}")))?;
        }
        for (key, value) in options {
            match value.is_empty() {
                true => fsconfig_set_flag(&overlay, *key)?,
                false => fsconfig_set_string(&overlay, *key, *value)?,
            }
        }
        Ok(fsconfig_create(&overlay)?)
    };
    configure().map_err(|e| explain(e, &overlay, lowers.len()))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The layers of an option `lowerdir`, the uppermost first: colons are between, and one after a backslash is part of a name. Other
/// backslashes are left to the kernel, which takes them away itself.
pub fn layers_of(list: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        let escaped = if letter == '\\' { letters.next() } else { None };
        let Some(layer) = layers.last_mut() else { break };
        match (letter, escaped) {
            ('\\', Some(':')) => layer.push(':'),
            (_, Some(other)) => layer.extend([letter, other]),
            (':', None) => layers.push(String::new()),
            (letter, None) => layer.push(letter),
        }
    }
    layers
}

/// Adds what the kernel says about a mount that failed: the messages of its file system context.
fn explain(e: Error, context: &OwnedFd, layers: usize) -> Error {
    let mut words = Vec::new();
    let mut message = [0; 1024];
    while let Ok(count) = rustix::io::read(context, &mut message) {
        // `e text`: a letter for the severity.
        let text = String::from_utf8_lossy(&message[..count]);
        words.push(text.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        if count == 0 || words.len() > 8 {
            break;
        }
    }
    if e.errno() == Some(Errno::INVAL.raw_os_error()) {
        if layers > IN_ONE_VALUE {
            words.push(format!(
                "{layers} layers need Linux 6.7, older kernels take {IN_ONE_VALUE}"
            ));
        }
        let words = if words.is_empty() {
            "overlayfs refuses a layer".to_owned()
        } else {
            words.join(", ")
        };
        return Error::unsupported("this root disk", words);
    }
    match words.is_empty() {
        true => e,
        false => Error::During {
            what: words.join(", "),
            source: Box::new(e),
        },
    }
}
