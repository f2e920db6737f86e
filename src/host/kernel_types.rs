//! What the kernel says of its own functions and types (BTF, `Documentation/bpf/btf.rst`): what programs need that look at both.

mod kept;

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// Where a kernel with `CONFIG_DEBUG_INFO_BTF` shows them.
const PLACE: &str = "/sys/kernel/btf/vmlinux";
/// How the description begins, in the order of bytes of this machine.
const MAGIC: u16 = 0xeb9f;

// Kinds of types.
const STRUCT: u32 = 4;
const FUNCTION: u32 = 12;

/// Ids of functions and places of fields, each where it is there.
pub type Places<const F: usize, const S: usize> = ([Option<u32>; F], [Option<i16>; S]);

/// The ids of functions, and the places of fields in structures in bytes, in the order they are asked for. What is not there has none.
///
/// # Errors
/// `Unsupported` when the kernel does not describe itself, `Corrupt` when it does so in a form that is not known.
pub fn find<const F: usize, const S: usize>(
    functions: [&str; F],
    fields: [(&str, &str); S],
) -> Result<Places<F, S>> {
    let look = || KernelTypes::read()?.find(functions, fields);
    kept::or_look(Path::new(kept::FILE), &super::boot()?, (functions, fields), look)
}

/// The kernel's own description of itself, read whole: some megabytes.
#[derive(Debug)]
struct KernelTypes {
    bytes: Vec<u8>,
    /// Where descriptions of types begin, and where names do, which follow them.
    types: usize,
    names: usize,
}

impl KernelTypes {
    fn read() -> Result<Self> {
        if !files::exists(Path::new(PLACE)) {
            return Err(Error::unsupported(
                PLACE,
                "the kernel was built without CONFIG_DEBUG_INFO_BTF",
            ));
        }
        Self::parse(files::read(Path::new(PLACE))?).ok_or_else(|| corrupt("is in an unknown form"))
    }

    /// `struct btf_header`: magic, version, flags; length of the header, then where types and names are behind it.
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let word = |at| word(&bytes, at);
        let header = word(4)?;
        let (types, names) = (header + word(8)?, header + word(16)?);
        (magic == MAGIC && types <= names && names as usize <= bytes.len()).then_some(Self {
            types: types as usize,
            names: names as usize,
            bytes,
        })
    }

    /// `Corrupt` for a kind of type that came later than this program.
    fn find<const F: usize, const S: usize>(
        &self,
        functions: [&str; F],
        fields: [(&str, &str); S],
    ) -> Result<Places<F, S>> {
        let (mut ids, mut places) = ([None; F], [None; S]);
        let (mut at, mut id) = (self.types, 0);
        while at < self.names {
            id += 1;
            let (name, info) = (self.word(at)?, self.word(at + 4)?);
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let body = at + 12;
            if kind == FUNCTION {
                for (wanted, found) in functions.iter().zip(&mut ids) {
                    if self.is(name, wanted) {
                        *found = Some(id);
                    }
                }
            }
            if kind == STRUCT {
                for ((of, field), found) in fields.iter().zip(&mut places) {
                    if self.is(name, of) {
                        *found = self.field(body, count, field)?;
                    }
                }
            }
            at = body + length(kind, count).ok_or_else(|| corrupt(format!("has a type of kind {kind}")))?;
        }
        Ok((ids, places))
    }

    /// Where a member is, in bytes: a name, a type and an offset in bits describe each.
    fn field(&self, members: usize, count: usize, wanted: &str) -> Result<Option<i16>> {
        for member in (members..).step_by(12).take(count) {
            if self.is(self.word(member)?, wanted) {
                // With fields of bits the upper byte is their number.
                let bits = self.word(member + 8)? & 0x00ff_ffff;
                return Ok(i16::try_from(bits / 8).ok());
            }
        }
        Ok(None)
    }

    fn word(&self, at: usize) -> Result<u32> {
        word(&self.bytes, at).ok_or_else(|| corrupt("ends in the middle"))
    }

    /// Whether the name at this place, which a zero ends, is this one.
    fn is(&self, name: u32, wanted: &str) -> bool {
        let rest = self.bytes.get(self.names + name as usize..);
        rest.and_then(|rest| rest.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// How many bytes follow the first twelve of a type of this kind with so many parts.
fn length(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, names for types, functions and others that are one type again.
        2 | 7..=12 | 16 | 18 => 0,
        // Whole numbers, variables, tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures and unions, sections, enumerations of 64 bits.
        STRUCT | 5 | 15 | 19 => count * 12,
        // Enumerations of 32 bits, parameters.
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::Corrupt(format!("{PLACE} {what}"))
}
