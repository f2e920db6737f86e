//! Trees into an archive.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::seal::Sealing;
use super::{HEADER, Header, LONGEST_PATH, SPECIAL};
use crate::error::{Error, Result};
use crate::image::hex;
use crate::storage::tree::{Identity, Node, Step, Walk, attributes, is_whiteout, list, look};

/// Tar's unit.
const BLOCK: usize = 512;
/// More parts of one sparse file are joined: a reader bounds what describes an entry.
const MOST_PARTS: usize = 20_000;
/// zstd's own choice between speed and size.
const LEVEL: i32 = 3;

/// An archive being written.
pub struct Packer<W: Write> {
    out: zstd::Encoder<'static, Sealing<W>>,
    /// First names of files that have several.
    linked: HashMap<Identity, Vec<u8>>,
    /// When the older copy was made that the tree is compared with.
    taken: i64,
}

impl<W: Write> std::fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl<W: Write> Packer<W> {
    /// Begins an archive.
    pub fn new(writer: W, header: &Header) -> Result<Self> {
        let mut out = zstd::Encoder::new(Sealing::new(writer), LEVEL)?;
        out.include_checksum(true)?;
        let mut packer = Self {
            out,
            linked: HashMap::new(),
            taken: 0,
        };
        let text = serde_json::to_vec_pretty(header)?;
        packer.head(
            b'0',
            HEADER.as_bytes(),
            &Fields {
                size: text.len() as u64,
                ..Fields::default()
            },
            &[],
        )?;
        packer.out.write_all(&text)?;
        packer.pad(text.len() as u64)?;
        Ok(packer)
    }

    /// Adds a tree as `name/…`. Files that are the same in `older`, a copy made at that time, are only named.
    pub fn tree(&mut self, name: &str, top: &OwnedFd, older: Option<(&OwnedFd, i64)>) -> Result<()> {
        self.linked.clear();
        self.taken = older.map_or(0, |(_, taken)| taken);
        let older = older.map(|(older, _)| older.try_clone()).transpose()?;
        let mut walk = Walk::new([Some(top.try_clone()?), older]);
        loop {
            match walk.step()? {
                Step::Entered => {
                    let dirs = self.directory(name, &walk)?;
                    walk.will_visit(dirs);
                }
                Step::Leaving if walk.leave()? == Step::Over => return Ok(()),
                Step::Leaving => {}
                Step::Over => return Ok(()),
            }
        }
    }

    /// Ends the archive; how many bytes it has.
    pub fn finish(mut self) -> Result<(W, u64)> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out.finish()?.seal()?)
    }

    fn directory(&mut self, name: &str, walk: &Walk<2>) -> Result<Vec<CString>> {
        let dir = walk.first()?;
        let own = Node::new(dir, c".");
        let mut path = format!("{name}/").into_bytes();
        path.extend_from_slice(walk.path());
        if path.len() > LONGEST_PATH {
            let shown = String::from_utf8_lossy(&path[..200]).into_owned();
            let problem =
                format!("is nested deeper than an archive can have, {LONGEST_PATH} bytes of path; remove it");
            return Err(Error::invalid("directory", format!("{shown}…"), problem));
        }
        let status = own.status()?.ok_or(Errno::NOENT)?;
        self.head(b'5', &path, &Fields::of(&status), &kept(own)?)?;
        let mut dirs = Vec::new();
        for name in list(dir)? {
            let node = Node::new(dir, &name);
            let Some(status) = node.status()? else { continue };
            if look(&status) == FileType::Directory {
                dirs.push(name);
                continue;
            }
            let older = walk.dir(1).map(|dir| Node::new(dir, &name));
            let mut path = path.clone();
            path.extend_from_slice(name.to_bytes());
            self.file(node, &status, &path, older)?;
        }
        Ok(dirs)
    }

    fn file(&mut self, node: Node<'_>, status: &Stat, path: &[u8], older: Option<Node<'_>>) -> Result<()> {
        let mut fields = Fields::of(status);
        match look(status) {
            FileType::RegularFile => {
                if let Some(older) = older
                    && let Some(there) = older.status()?
                    && node.is_same_copy(status, older, &there, self.taken)?
                {
                    fields.special = " same";
                    return self.head(b'0', path, &fields, &[]);
                }
                if let Some(identity) = node.linked(status)? {
                    if let Some(first) = self.linked.get(&identity) {
                        fields.target.clone_from(first);
                        return self.head(b'1', path, &fields, &[]);
                    }
                    self.linked.insert(identity, path.to_vec());
                }
                self.content(node, path, fields)
            }
            FileType::Symlink => {
                fields.target = node.target()?.into_bytes();
                self.head(b'2', path, &fields, &kept(node)?)
            }
            FileType::Fifo => self.head(b'6', path, &fields, &kept(node)?),
            FileType::Socket => {
                fields.special = " socket";
                self.head(b'0', path, &fields, &kept(node)?)
            }
            _ if is_whiteout(status) => {
                fields.special = " whiteout";
                self.head(b'3', path, &fields, &kept(node)?)
            }
            _ => {
                let problem = "is a device, which no layer of a VPS has";
                Err(Error::invalid("file", String::from_utf8_lossy(path), problem))
            }
        }
    }

    fn content(&mut self, node: Node<'_>, path: &[u8], mut fields: Fields) -> Result<()> {
        let file = node.open()?;
        let size = file.metadata()?.len();
        let parts = parts(&file, size)?;
        let stored: u64 = parts.iter().map(|(_, length)| length).sum();
        let mut records = kept(node)?;
        if stored == size {
            fields.size = size;
            self.head(b'0', path, &fields, &records)?;
        } else {
            for (key, value) in [
                ("GNU.sparse.major", "1".to_owned()),
                ("GNU.sparse.minor", "0".to_owned()),
                ("GNU.sparse.realsize", size.to_string()),
            ] {
                records.push((key.as_bytes().to_vec(), value.into_bytes()));
            }
            let mut map = format!("{}\n", parts.len());
            for (offset, length) in &parts {
                map.push_str(&format!("{offset}\n{length}\n"));
            }
            let mut map = map.into_bytes();
            map.resize(map.len().next_multiple_of(BLOCK), 0);
            fields.size = map.len() as u64 + stored;
            self.head(b'0', path, &fields, &records)?;
            self.out.write_all(&map)?;
        }
        let mut buffer = vec![0; 1 << 18];
        for (mut at, mut left) in parts {
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
                file.read_exact_at(&mut buffer[..most], at)?;
                self.out.write_all(&buffer[..most])?;
                at += most as u64;
                left -= most as u64;
            }
        }
        self.pad(stored)
    }

    /// One entry's header, with everything that matters in pax records before it.
    fn head(&mut self, kind: u8, path: &[u8], fields: &Fields, more: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut records = Vec::new();
        record(&mut records, b"path", path);
        if !fields.target.is_empty() {
            record(&mut records, b"linkpath", &fields.target);
        }
        record(&mut records, b"size", fields.size.to_string().as_bytes());
        record(&mut records, b"mtime", fields.seconds.to_string().as_bytes());
        record(&mut records, b"uid", fields.uid.to_string().as_bytes());
        record(&mut records, b"gid", fields.gid.to_string().as_bytes());
        let special = format!("{}{}", fields.nanoseconds, fields.special);
        record(
            &mut records,
            format!("SCHILY.xattr.{SPECIAL}").as_bytes(),
            special.as_bytes(),
        );
        for (key, value) in more {
            record(&mut records, key, value);
        }
        self.out
            .write_all(block(b'x', b"pax", records.len() as u64, 0o600).as_bytes())?;
        self.out.write_all(&records)?;
        self.pad(records.len() as u64)?;
        self.out
            .write_all(block(kind, path, fields.size, fields.mode).as_bytes())?;
        Ok(())
    }

    fn pad(&mut self, length: u64) -> Result<()> {
        let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
        if over > 0 {
            self.out.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

/// What describes an entry besides kind, path and size.
#[derive(Debug, Default)]
struct Fields {
    /// Bytes that follow.
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: u64,
    target: Vec<u8>,
    /// With a blank before it.
    special: &'static str,
}

impl Fields {
    fn of(status: &Stat) -> Self {
        Self {
            mode: status.st_mode & 0o7777,
            uid: status.st_uid,
            gid: status.st_gid,
            seconds: status.st_mtime,
            nanoseconds: status.st_mtime_nsec,
            ..Self::default()
        }
    }
}

fn block(kind: u8, path: &[u8], size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    // Readers that know no pax records see as much of the path as there is room for.
    let room = path.len().min(99);
    header.as_mut_bytes()[..room].copy_from_slice(&path[..room]);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// `LENGTH KEY=VALUE\n`, the length its own digits included.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The attributes that mean the same on another host, as pax records.
fn kept(node: Node<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    for (name, value) in attributes(node)? {
        if super::fill::is_portable(&name.to_string_lossy()) {
            let mut key = b"SCHILY.xattr.".to_vec();
            key.extend_from_slice(name.to_bytes());
            records.push((key, value));
        }
    }
    Ok(records)
}

/// What of a file is no hole.
fn parts(file: &std::fs::File, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(begin))?.min(size);
        match parts.last_mut() {
            // Parts that touch are one.
            Some((offset, length)) if *offset + *length == begin => *length = end - *offset,
            _ => parts.push((begin, end - begin)),
        }
        if parts.len() > MOST_PARTS {
            // So full of holes that it is not worth the list.
            return Ok(vec![(0, size)]);
        }
        at = end.max(begin + 1);
    }
    Ok(parts)
}

/// What the files of a tree are, whatever their times: names, kinds, owners, modes, attributes and content, by SHA-256.
pub fn tree_digest(top: &OwnedFd) -> Result<String> {
    let mut hash = Sha256::new();
    let mut walk = Walk::new([Some(top.try_clone()?)]);
    loop {
        match walk.step()? {
            Step::Entered => {
                let dir = walk.first()?;
                let mut dirs = Vec::new();
                describe(&mut hash, walk.path(), Node::new(dir, c"."))?;
                for name in list(dir)? {
                    let node = Node::new(dir, &name);
                    match node.status()? {
                        Some(status) if look(&status) == FileType::Directory => dirs.push(name),
                        Some(_) => describe(&mut hash, name.to_bytes(), node)?,
                        None => {}
                    }
                }
                walk.will_visit(dirs);
            }
            Step::Leaving if walk.leave()? == Step::Over => break,
            Step::Leaving => {}
            Step::Over => break,
        }
    }
    Ok(hex(&hash.finalize()))
}

fn describe(hash: &mut Sha256, name: &[u8], node: Node<'_>) -> Result<()> {
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let status = node.status()?.ok_or(Errno::NOENT)?;
    field(name);
    for number in [status.st_mode, status.st_uid, status.st_gid] {
        field(&number.to_le_bytes());
    }
    for (key, value) in kept(node)? {
        field(&key);
        field(&value);
    }
    match look(&status) {
        FileType::Symlink => field(node.target()?.to_bytes()),
        FileType::RegularFile => {
            let mut file = node.open()?;
            hash.update(file.metadata()?.len().to_le_bytes());
            let mut buffer = vec![0; 1 << 18];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => hash.update(&buffer[..count]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        _ => {}
    }
    Ok(())
}
