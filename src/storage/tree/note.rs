//! Which state of which file a copy is of, written on the copy itself: what has not changed since need not be copied again.
//!
//! The kernel moves a file's time of change with everything that is done to it, with one exception: a page that is mapped and dirty
//! already may be written to without any sign. So a note counts only where the file was last changed before all dirty pages were
//! written ([`crate::storage::tree::Sync::begin`]), after which the next write to each is seen again.

use std::ffi::CStr;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::node::{Node, look};
use crate::error::Result;

/// The attribute it is kept in. No user namespace reaches `trusted.*`.
pub(super) const OWN: &CStr = c"trusted.condo.note";

/// The state of a file at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) inode: u64,
    size: u64,
    modified: (i64, u64),
    pub(super) changed: (i64, u64),
    /// Whether it had several names.
    pub(super) linked: bool,
}

impl State {
    pub(super) fn of(status: &Stat) -> Self {
        Self {
            inode: status.st_ino,
            size: u64::try_from(status.st_size).unwrap_or(0),
            modified: (status.st_mtime, status.st_mtime_nsec),
            changed: (status.st_ctime, status.st_ctime_nsec),
            linked: status.st_nlink > 1,
        }
    }
}

/// A state, and whether a file that still has it is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) state: State,
    pub(super) counts: bool,
}

impl Note {
    /// What is written on a file.
    pub(super) fn on(node: Node<'_>) -> Result<Option<Self>> {
        Ok(node.attribute(OWN)?.as_deref().and_then(Self::read))
    }

    /// In a user namespace, where that is nobody's right, nothing is noted: all is copied each time.
    pub(super) fn put(self, node: Node<'_>) -> Result<()> {
        match node.set_attribute(OWN, &self.written()) {
            Err(e) if e.errno() == Some(Errno::PERM.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    fn written(self) -> [u8; 50] {
        let State {
            inode,
            size,
            modified,
            changed,
            linked,
        } = self.state;
        let numbers = [
            inode,
            size,
            modified.0.cast_unsigned(),
            modified.1,
            changed.0.cast_unsigned(),
            changed.1,
        ];
        let mut bytes = [0; 50];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[48] = u8::from(linked);
        bytes[49] = u8::from(self.counts);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 50 {
            return None;
        }
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(
                bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?,
            ))
        };
        Some(Self {
            state: State {
                inode: number(0)?,
                size: number(1)?,
                modified: (number(2)?.cast_signed(), number(3)?),
                changed: (number(4)?.cast_signed(), number(5)?),
                linked: bytes[48] == 1,
            },
            counts: bytes[49] == 1,
        })
    }
}

/// Whether two files are surely of one state of one file, without a look at their content: copies, or one of them the living file.
///
/// Copies that the file system made at once keep numbers and times, and have no note. What was changed before `taken`, a time in
/// seconds since 1970 that was over when the older of them was made, has not changed since if those are the same: the times on files
/// are a few ticks behind the clock.
pub(super) fn same_state(one: (Node<'_>, &Stat), other: (Node<'_>, &Stat), taken: i64) -> Result<bool> {
    Ok(match (Note::on(one.0)?, Note::on(other.0)?) {
        (Some(a), Some(b)) => a.counts && b.counts && a.state == b.state,
        (Some(copy), None) => copy.counts && copy.state == State::of(other.1),
        (None, Some(copy)) => copy.counts && copy.state == State::of(one.1),
        (None, None) => {
            let state = State::of(one.1);
            state.changed.0 < taken - 1 && state == State::of(other.1)
        }
    })
}

/// Which file it is of which state: names that have this in common are names of one file.
pub type Identity = (u64, (i64, u64));

impl Node<'_> {
    /// Whether this regular file and one of an older copy, made at `taken`, are surely the same, without a look at their content.
    pub fn is_same_copy(self, status: &Stat, older: Node<'_>, there: &Stat, taken: i64) -> Result<bool> {
        if look(status) != look(there) {
            return Ok(false);
        }
        let one = (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino);
        Ok(one || same_state((self, status), (older, there), taken)?)
    }

    /// Who this regular file is, if it has several names in its tree. In a copy the note says so: there, other copies have names of
    /// it as well.
    pub fn linked(self, status: &Stat) -> Result<Option<Identity>> {
        let noted = Note::on(self)?.map(|note| note.state);
        let state = noted.unwrap_or_else(|| State::of(status));
        Ok(state.linked.then_some((state.inode, state.changed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written() {
        let note = Note {
            state: State {
                inode: 7,
                size: 1 << 40,
                modified: (-5, 999_999_999),
                changed: (1_795_286_702, 1),
                linked: true,
            },
            counts: true,
        };
        assert_eq!(Note::read(&note.written()), Some(note));
        assert_eq!(Note::read(b"short"), None);
    }
}
