//! The part of the FUSE protocol (`linux/fuse.h`, version 7.31) that a directory of files to be read needs.
//!
//! Every message begins with its length. What the kernel sends is taken from the front as far as it is needed; what is not
//! understood is answered with `ENOSYS`, upon which the kernel does not ask again.

use std::ffi::CStr;

/// The root directory's number; files follow.
pub(super) const ROOT: u64 = 1;
/// The number of the first file.
pub(super) const FIRST: u64 = 2;
/// The most the kernel sends at once, as long as nobody writes.
pub(super) const LARGEST: usize = 8192;

const MAJOR: u32 = 7;
const MINOR: u32 = 31;
const HEADER: usize = 40;
/// Names never change: the kernel need not ask again.
const FOR_EVER: u64 = u64::MAX >> 2;
/// `FOPEN_DIRECT_IO`: who reads a file again that is still open gets what is true then. Only sendfile(2) goes by the page cache, which
/// begins anew with each open file, and by the size.
const DIRECT: u32 = 1;

/// What the kernel asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// Which version is spoken.
    Init,
    /// The number of a name in a directory.
    Lookup(u64, &'a CStr),
    /// Mode and owner.
    Attributes(u64),
    /// A handle.
    Open,
    /// That many bytes from an offset on.
    Read(u64, u64, u32),
    /// What a directory holds: nobody lists this one.
    List,
    /// The size of the file system.
    Size,
    /// A handle that is given back.
    Close,
    /// What has no answer.
    Silent,
    /// What is not offered.
    Other,
}

/// Takes a message apart: its number, which is never 0, and what it asks.
pub(super) fn parse(message: &[u8]) -> Option<(u64, Ask<'_>)> {
    let (opcode, unique, node) = (u32_at(message, 4)?, u64_at(message, 8)?, u64_at(message, 16)?);
    if unique == 0 {
        return None;
    }
    let body = message.get(HEADER..)?;
    let ask = match opcode {
        1 => Ask::Lookup(node, CStr::from_bytes_until_nul(body).ok()?),
        // FORGET, INTERRUPT, DESTROY, BATCH_FORGET.
        2 | 36 | 38 | 42 => Ask::Silent,
        3 => Ask::Attributes(node),
        14 | 27 => Ask::Open,
        15 => Ask::Read(node, u64_at(body, 8)?, u32_at(body, 16)?),
        17 => Ask::Size,
        18 | 29 => Ask::Close,
        26 => Ask::Init,
        28 => Ask::List,
        _ => Ask::Other,
    };
    Some((unique, ask))
}

/// The notification by which the kernel asks all anew that has no answer yet (`FUSE_NOTIFY_RESEND`): it has no number.
pub(super) fn ask_again() -> Vec<u8> {
    const RESEND: i32 = 7;
    Answer::to(0, -RESEND).finish()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An answer under construction.
#[derive(Debug)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    /// To the message with this number, with an `errno` or 0.
    pub(super) fn to(unique: u64, errno: i32) -> Self {
        let mut answer = Self(vec![0; 4]);
        answer.0.extend((-errno).to_ne_bytes());
        answer.u64(unique);
        answer
    }

    /// The whole message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or_default();
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }

    /// Bytes of a file.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `fuse_init_out`, with none of what can be negotiated.
    pub(super) fn version(mut self) -> Self {
        // Version, readahead, flags, requests in the background, the largest write, a time's grain, pages, alignment.
        for value in [MAJOR, MINOR, 0, 0, 0, 4096, 1, 0] {
            self.u32(value);
        }
        self.zeros(32)
    }

    /// `fuse_open_out`.
    pub(super) fn handle(mut self) -> Self {
        self.u64(0);
        self.u32(DIRECT);
        self.zeros(4)
    }

    /// `fuse_entry_out`.
    pub(super) fn entry(mut self, node: u64, owner: u32) -> Self {
        for value in [node, 0, FOR_EVER, 0] {
            self.u64(value);
        }
        self.zeros(8).inode(node, owner, 0)
    }

    /// `fuse_attr_out`, to be asked for again each time.
    pub(super) fn attributes(mut self, node: u64, owner: u32, size: u64) -> Self {
        self.u64(0);
        self.zeros(8).inode(node, owner, size)
    }

    /// `fuse_attr`: readable by all.
    fn inode(mut self, node: u64, owner: u32, size: u64) -> Self {
        self.u64(node);
        self.u64(size);
        self = self.zeros(4 * 8 + 3 * 4);
        let (mode, links) = if node == ROOT {
            (0o040_555, 2)
        } else {
            (0o100_444, 1)
        };
        for value in [mode, links, owner, owner, 0, 4096, 0] {
            self.u32(value);
        }
        self
    }

    /// `fuse_statfs_out`: without blocks, so that `df` leaves it out.
    pub(super) fn size(mut self) -> Self {
        self = self.zeros(5 * 8);
        for value in [4096, 255, 4096] {
            self.u32(value);
        }
        self.zeros(7 * 4)
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_ne_bytes());
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        let mut all = vec![0; HEADER];
        all[4..8].copy_from_slice(&opcode.to_ne_bytes());
        all[8..16].copy_from_slice(&7_u64.to_ne_bytes());
        all[16..24].copy_from_slice(&node.to_ne_bytes());
        all.extend(body);
        all
    }

    #[test]
    fn messages_are_taken_apart() {
        let lookup = message(1, ROOT, b"meminfo\0");
        assert_eq!(parse(&lookup), Some((7, Ask::Lookup(ROOT, c"meminfo"))));
        let mut body = [0; 40];
        body[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
        body[16..20].copy_from_slice(&512_u32.to_ne_bytes());
        assert_eq!(parse(&message(15, 3, &body)), Some((7, Ask::Read(3, 4096, 512))));
        assert_eq!(parse(&message(9999, 3, &[])), Some((7, Ask::Other)));
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        for length in 0..HEADER {
            assert_eq!(parse(&message(15, 3, &[])[..length]), None);
        }
        assert_eq!(parse(&message(15, 3, &[0; 19])), None);
        assert_eq!(parse(&message(1, ROOT, b"endless")), None);
    }

    #[test]
    fn a_notification_has_a_code_and_no_number() {
        let mut wanted = 16_u32.to_ne_bytes().to_vec();
        wanted.extend(7_i32.to_ne_bytes());
        wanted.extend([0; 8]);
        assert_eq!(ask_again(), wanted);
    }

    /// The sizes of `linux/fuse.h`, behind the 16 bytes of the header.
    #[test]
    fn answers_have_the_sizes_the_kernel_expects() {
        let answer = || Answer::to(7, 0);
        for (answer, size) in [
            (answer(), 0),
            (answer().version(), 64),
            (answer().handle(), 16),
            (answer().entry(2, 5), 128),
            (answer().attributes(2, 5, 9), 104),
            (answer().size(), 80),
            (answer().bytes(b"text"), 4),
        ] {
            let whole = answer.finish();
            assert_eq!(whole.len(), 16 + size);
            assert_eq!(u32_at(&whole, 0), u32::try_from(whole.len()).ok());
            assert_eq!(u64_at(&whole, 8), Some(7));
        }
        assert_eq!(&Answer::to(7, 2).finish()[4..8], &(-2_i32).to_ne_bytes());
    }
}
