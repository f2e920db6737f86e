//! Extension headers, which describe the entry that follows them.

use std::collections::BTreeMap;

use super::number;
use crate::error::{Error, Result};

/// What extension headers say of an entry.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    /// By name: one that comes twice is replaced.
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) sparse: SparseFields,
}

/// The `GNU.sparse.*` records: formats 0.0, 0.1 and 1.0 of sparse files in pax archives, as GNU tar's manual has them.
#[derive(Debug, Default)]
pub(super) struct SparseFields {
    /// The file's size; its presence makes the file a sparse one.
    pub(super) size: Option<u64>,
    /// Its real name; the entry's own is made up.
    pub(super) name: Option<Vec<u8>>,
    /// Major number of the format.
    pub(super) major: Option<u32>,
    /// Offsets and lengths, of the formats below 1.0.
    pub(super) parts: Vec<(u64, u64)>,
    /// The offset whose length comes next.
    offset: Option<u64>,
}

impl Extensions {
    /// Records of `pax(5)`: `<length> <key>=<value>\n`, the length in decimal and of the whole record.
    pub(super) fn add_pax(&mut self, mut data: &[u8]) -> Result<()> {
        let bad = || Error::Corrupt("the archive has a damaged pax header".into());
        while !data.is_empty() {
            let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let length: usize = number(&data[..space]).ok_or_else(bad)?;
            let record = data.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let key = std::str::from_utf8(&record[..equals]).map_err(|_| bad())?;
            self.set(key, &record[equals + 1..]).ok_or_else(bad)?;
            data = &data[length..];
        }
        Ok(())
    }

    /// Takes one record; nothing when the value does not parse.
    fn set(&mut self, key: &str, value: &[u8]) -> Option<()> {
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number(value)?),
            "uid" => self.uid = Some(number(value)?),
            "gid" => self.gid = Some(number(value)?),
            "mtime" => self.mtime = Some(number(value.split(|b| *b == b'.').next()?)?),
            _ => {
                if let Some(field) = key.strip_prefix("GNU.sparse.") {
                    return self.sparse.set(field, value);
                }
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
        Some(())
    }
}

impl SparseFields {
    fn set(&mut self, field: &str, value: &[u8]) -> Option<()> {
        match field {
            "size" | "realsize" => self.size = Some(number(value)?),
            "name" => self.name = Some(value.to_vec()),
            "major" => self.major = Some(number(value)?),
            "offset" => self.offset = Some(number(value)?),
            "numbytes" => self.parts.push((self.offset.take()?, number(value)?)),
            "map" => {
                let mut numbers = value.split(|b| *b == b',');
                while let Some(offset) = numbers.next().filter(|text| !text.is_empty()) {
                    self.parts.push((number(offset)?, number(numbers.next()?)?));
                }
            }
            // `minor`, and `numblocks`, which the list itself says.
            _ => {}
        }
        Some(())
    }
}
