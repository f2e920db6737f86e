//! What is mounted where, as the kernel tells it of a process (`proc_pid_mountinfo(5)`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::read;
use crate::error::Result;

/// One mount. Fields nobody here asks for are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its id, also that of `statx(2)`.
    pub id: u64,
    /// The id of the mount that it is mounted on.
    pub parent: u64,
    /// `major:minor` of the filesystem.
    pub device: String,
    /// The directory or file of the filesystem that is mounted.
    pub root: PathBuf,
    /// Where, as the process sees it.
    pub point: PathBuf,
    /// The filesystem's type.
    pub kind: String,
    /// What was mounted: a device, or any word.
    pub source: OsString,
    /// The filesystem's own options, with commas between.
    pub options: OsString,
}

/// The mounts that a process sees, in the order in which they were made.
pub fn of(process: &str) -> Result<Vec<Mounted>> {
    Ok(parse(&read(&Path::new("/proc").join(process).join("mountinfo"))?))
}

/// Reads lines of the form `id parent major:minor root point options [tags…] - type source options`.
pub fn parse(text: &[u8]) -> Vec<Mounted> {
    text.split(|byte| *byte == b'\n').filter_map(mounted).collect()
}

fn mounted(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let text = |index: usize| std::str::from_utf8(fields.get(index)?).ok();
    Some(Mounted {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?.to_owned(),
        root: unescape(fields.get(3)?).into(),
        point: unescape(fields.get(4)?).into(),
        kind: text(dash + 1)?.to_owned(),
        source: unescape(fields.get(dash + 2)?),
        options: unescape(fields.get(dash + 3).copied().unwrap_or_default()),
    })
}

/// Undoes the octal escapes, which stand for the characters that separate fields and lines.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = [
            (b"\\040", b' '),
            (b"\\011", b'\t'),
            (b"\\012", b'\n'),
            (b"\\134", b'\\'),
            (b"\\043", b'#'),
        ];
        match escaped.iter().find(|(code, _)| rest.starts_with(*code)) {
            Some((code, byte)) => {
                plain.push(*byte);
                rest = &rest[code.len()..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let mounts = parse(
            b"22 27 0:21 / /proc rw - proc proc rw\n\
            40 27 0:35 /a\\134b /srv/with\\040space rw,relatime shared:1 master:2 - btrfs /dev/a\\040b rw,space_cache\nnonsense\n",
        );
        assert_eq!(mounts.len(), 2);
        let last = &mounts[1];
        assert_eq!((last.id, last.parent, last.device.as_str()), (40, 27, "0:35"));
        assert_eq!(last.kind, "btrfs");
        assert_eq!(last.root, Path::new("/a\\b"));
        assert_eq!(last.point, Path::new("/srv/with space"));
        assert_eq!(last.source, "/dev/a b");
        assert_eq!(last.options, "rw,space_cache");
    }
}
