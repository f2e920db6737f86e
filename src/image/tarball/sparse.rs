//! Where the parts of a sparse file belong.
//!
//! An archive holds the parts of the file that are no holes, one after the other, and a list of their offsets and lengths: in the
//! header and further blocks behind it (GNU tar's own format), in pax records (formats 0.0 and 0.1), or as decimal numbers at
//! the beginning of the content (format 1.0).

use super::super::entry::Sparse;
use super::{BLOCK, corrupt, number};
use crate::error::{Error, Result};

/// The list of GNU's own format: four parts in the header, the others in blocks that `next` reads.
pub(super) fn old_gnu(header: &tar::Header, mut next: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Sparse> {
    let gnu = header.as_gnu().ok_or_else(|| damaged("it has no GNU header"))?;
    let mut parts = Vec::new();
    add(&mut parts, &gnu.sparse)?;
    let mut goes_on = gnu.is_extended();
    while goes_on {
        let mut more = tar::GnuExtSparseHeader::new();
        more.as_mut_bytes().copy_from_slice(&next()?);
        add(&mut parts, more.sparse())?;
        goes_on = more.is_extended();
    }
    Ok(Sparse {
        size: gnu.real_size().map_err(corrupt)?,
        parts,
    })
}

fn add(parts: &mut Vec<(u64, u64)>, list: &[tar::GnuSparseHeader]) -> Result<()> {
    for part in list.iter().filter(|part| !part.is_empty()) {
        parts.push((part.offset().map_err(corrupt)?, part.length().map_err(corrupt)?));
    }
    Ok(())
}

/// The list of format 1.0: how many parts there are, then offset and length of each, a line each, up to a whole block.
pub(super) fn leading_map(mut next: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Vec<(u64, u64)>> {
    let mut numbers = Lines {
        block: next()?,
        at: 0,
        next,
    };
    let count = numbers.read()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push((numbers.read()?, numbers.read()?));
    }
    Ok(parts)
}

/// Decimal numbers, a line each.
struct Lines<F> {
    block: [u8; BLOCK],
    at: usize,
    next: F,
}

impl<F: FnMut() -> Result<[u8; BLOCK]>> Lines<F> {
    fn read(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.block = (self.next)()?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return number(&digits).ok_or_else(|| damaged("a number is missing")),
                // As many as the highest number has.
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(damaged("it has no numbers")),
            }
        }
    }
}

/// The parts follow each other inside the file and are what the archive holds.
pub(super) fn check(sparse: &Sparse, stored: u64) -> Result<()> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for (offset, length) in &sparse.parts {
        if *offset < end {
            return Err(damaged("its parts overlap"));
        }
        end = offset
            .checked_add(*length)
            .filter(|end| *end <= sparse.size)
            .ok_or_else(|| damaged("a part lies beyond its end"))?;
        sum += length;
    }
    if sum != stored {
        return Err(damaged("its parts are not what the archive holds of it"));
    }
    // off_t is signed.
    if i64::try_from(sparse.size).is_err() {
        return Err(damaged("its size is impossible"));
    }
    Ok(())
}

pub(super) fn damaged(why: &str) -> Error {
    Error::Corrupt(format!("the archive has a damaged sparse file: {why}"))
}
