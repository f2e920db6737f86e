//! What differs between two layers over one image, as somebody inside would see it.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use super::node::{Node, attributes, is_whiteout, list, look};
use super::note::same_state;
use super::walk::{Step, Walk};
use crate::error::Result;

/// What has become of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is another, or has another content or other attributes.
    Changed,
    /// It is there no more.
    Removed,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// From the top, with a slash before it; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What has become of it.
    pub change: ChangeKind,
}

/// What a layer says of a path.
enum Said {
    /// Nothing: it is as in the image.
    Nothing,
    /// It is not there.
    Gone,
    /// This is there.
    There(Stat),
}

const BEFORE: usize = 0;
const NOW: usize = 1;

/// What an image has at a path from its top.
pub(super) type InImage<'i> = &'i dyn Fn(&[u8]) -> Result<Option<Stat>>;

/// Tells every path that differs between the layers `before`, a copy made at `taken`, and `now` over an image. Of a directory that is new or
/// gone, what is in it is told as well. Layers may have changed under our eyes: what vanishes is left out.
pub fn changes(
    before: &OwnedFd,
    now: &OwnedFd,
    taken: i64,
    image: InImage<'_>,
    tell: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    // Each of the layers leads once: directories that only one has are walked as well.
    for lead in [NOW, BEFORE] {
        let sides = if lead == NOW { [now, before] } else { [before, now] };
        let mut walk = Walk::new([Some(sides[0].try_clone()?), Some(sides[1].try_clone()?)]);
        loop {
            match walk.step()? {
                Step::Entered => {
                    let dirs = compare(&walk, lead, taken, image, tell)?;
                    walk.will_visit(dirs);
                }
                Step::Leaving if walk.leave()? == Step::Over => break,
                Step::Leaving => {}
                Step::Over => break,
            }
        }
    }
    Ok(())
}

/// Compares what the leading side has in this directory; the other lead tells only what it alone has.
fn compare(
    walk: &Walk<2>,
    lead: usize,
    taken: i64,
    image: InImage<'_>,
    tell: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<Vec<CString>> {
    let first = walk.first()?;
    let mut dirs = Vec::new();
    for name in list(first)? {
        let mine = Node::new(first, &name);
        let Some(status) = mine.status()? else { continue };
        if look(&status) == FileType::Directory {
            dirs.push(name.clone());
        }
        let other = walk.dir(1).map(|dir| Node::new(dir, &name));
        let own = if is_whiteout(&status) {
            Said::Gone
        } else {
            Said::There(status)
        };
        let (was, is) = match (lead, said(other)?) {
            (NOW, there) => (there, own),
            (_, Said::Nothing) => (own, Said::Nothing),
            // Both have it: told already.
            _ => continue,
        };
        let mut path = walk.path().to_vec();
        path.extend_from_slice(name.to_bytes());
        let in_image = match (&was, &is) {
            (Said::Nothing, _) | (_, Said::Nothing) => image(&path)?,
            _ => None,
        };
        let equal = || match other {
            Some(other) => is_equal(mine, &status, other, taken),
            None => Ok(false),
        };
        if let Some(change) = judge(&was, &is, in_image.as_ref(), equal)? {
            let path = format!("/{}", String::from_utf8_lossy(&path));
            tell(Change { path, change })?;
        }
    }
    Ok(dirs)
}

fn said(node: Option<Node<'_>>) -> Result<Said> {
    let status = match node {
        Some(node) => node.status()?,
        None => None,
    };
    Ok(match status {
        None => Said::Nothing,
        Some(status) if is_whiteout(&status) => Said::Gone,
        Some(status) => Said::There(status),
    })
}

fn judge(
    was: &Said,
    is: &Said,
    image: Option<&Stat>,
    equal: impl FnOnce() -> Result<bool>,
) -> Result<Option<ChangeKind>> {
    use ChangeKind::{Added, Changed, Removed};
    let directories = |a: &Stat, b: &Stat| look(a) == FileType::Directory && look(b) == FileType::Directory;
    let alike = |a: &Stat, b: &Stat| (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid);
    Ok(match (was, is) {
        (Said::There(a), Said::There(b)) if directories(a, b) => (!alike(a, b)).then_some(Changed),
        (Said::There(_), Said::There(_)) => (!equal()?).then_some(Changed),
        // A directory of the image that has something changed in it.
        (Said::Nothing, Said::There(there)) | (Said::There(there), Said::Nothing)
            if image.is_some_and(|image| directories(image, there) && alike(image, there)) =>
        {
            None
        }
        (Said::Nothing, Said::There(_)) | (Said::There(_), Said::Nothing) if image.is_some() => Some(Changed),
        (_, Said::There(_)) | (Said::Gone, Said::Nothing) => Some(Added),
        (Said::There(_), _) | (Said::Nothing, Said::Gone) => Some(Removed),
        (Said::Nothing, Said::Nothing) | (Said::Gone, Said::Gone) => None,
    })
}

/// Whether two files, neither a directory, are alike in all but times.
fn is_equal(one: Node<'_>, status: &Stat, other: Node<'_>, taken: i64) -> Result<bool> {
    let Some(there) = other.status()? else {
        return Ok(false);
    };
    if (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino)
        || same_state((one, status), (other, &there), taken)?
    {
        return Ok(true);
    }
    let dress = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_size);
    if dress(status) != dress(&there) || attributes(one)? != attributes(other)? {
        return Ok(false);
    }
    match look(status) {
        FileType::RegularFile => same_content(&one.open()?, &other.open()?),
        FileType::Symlink => Ok(one.target()? == other.target()?),
        _ => Ok(true),
    }
}

fn same_content(one: &File, other: &File) -> Result<bool> {
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    loop {
        let count = one.read_at(&mut a, at)?;
        if count == 0 {
            return Ok(other.read_at(&mut b[..1], at)? == 0);
        }
        match other.read_exact_at(&mut b[..count], at) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
        at += count as u64;
    }
}
