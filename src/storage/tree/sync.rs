//! One tree made equal to another. What is equal already stays; what is equal in a third tree, an older copy of the same, gets
//! another name there; the rest is copied.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::node::{Attributes, Node, attributes, content_of, dress, list, look, make_special};
use super::note::{Note, State};
use super::owners::Heirs;
use super::walk::{Step, Walk};
use crate::error::{During, Result};
use crate::files;

/// How far the time on a file may be behind the clock: a few ticks of the kernel.
const TICKS: Duration = Duration::from_millis(100);
/// The name under which a file comes into being.
const NEW: &CStr = c"new";
/// The sides of the walk.
const FROM: usize = 0;
const TO: usize = 1;
const OLDER: usize = 2;

/// Which of the two trees is the living one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a layer into a copy, which remembers what it is of.
    Take,
    /// From a copy back into its layer, which nobody uses meanwhile.
    Bring,
    /// From either into a layer that is new. Nothing is noted.
    Copy,
}

/// What has been done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Files that were made anew, links and pipes among them.
    pub files: u64,
    /// Bytes that were copied for them; none for blocks that are shared.
    pub bytes: u64,
}

/// A copying in one or several rounds.
#[derive(Debug)]
pub struct Sync {
    direction: Direction,
    /// Files are made here and then put in their place: on the file system of the tree that changes.
    stage: OwnedFd,
    /// Files changed before this have no dirty page.
    clean: (i64, u64),
    may_share: bool,
    /// Whether files may vanish while we look.
    lives: bool,
    /// Whom copies belong to, when not to the owners of what they are of.
    heirs: Option<Heirs>,
    copied: Copied,
}

impl Sync {
    /// A copying that makes its files in the empty directory `stage`.
    pub fn new(direction: Direction, stage: OwnedFd) -> Self {
        Self {
            direction,
            stage,
            clean: (i64::MIN, 0),
            may_share: true,
            lives: false,
            heirs: None,
            copied: Copied::default(),
        }
    }

    /// The same, whose copies belong to others. Only for a tree that is new.
    #[must_use]
    pub fn owned_by(self, heirs: Heirs) -> Self {
        let heirs = Some(heirs);
        Self { heirs, ..self }
    }

    /// Begins a round: writes the dirty pages of the file system that the layer is on, so that later changes show. `lives` says
    /// whether the layer is in use: then what vanishes meanwhile is left out.
    pub fn begin(&mut self, layer: &OwnedFd, lives: bool) -> Result<()> {
        let now = SystemTime::now().checked_sub(TICKS).unwrap_or(UNIX_EPOCH);
        rustix::fs::syncfs(layer).during(|| "write the layer's pages to disk")?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.clean = (
            i64::try_from(since.as_secs()).unwrap_or(0),
            u64::from(since.subsec_nanos()),
        );
        self.lives = lives;
        Ok(())
    }

    /// The last round, for which nothing changes any more: the layer is frozen or not in use.
    pub fn still(&mut self) {
        self.lives = false;
    }

    /// What has been done so far.
    pub fn copied(&self) -> Copied {
        self.copied
    }

    /// Makes the directory `to` equal to `from`, with the help of `older`, an earlier copy on the file system of `to`.
    pub fn run(&mut self, from: OwnedFd, to: OwnedFd, older: Option<OwnedFd>) -> Result<()> {
        let mut walk = Walk::new([Some(from), Some(to), older]);
        loop {
            match walk.step()? {
                Step::Entered => {
                    let dirs = self.enter(&walk).during(|| said(&walk))?;
                    walk.will_visit(dirs);
                }
                Step::Leaving => {
                    self.finish_dir(&walk).during(|| said(&walk))?;
                    if walk.leave()? == Step::Over {
                        return Ok(());
                    }
                }
                Step::Over => return Ok(()),
            }
        }
    }

    /// Takes away what `from` does not have: first, because what is brought back needs the room.
    pub fn prune(&mut self, from: OwnedFd, to: OwnedFd) -> Result<()> {
        let mut walk = Walk::new([Some(from), Some(to)]);
        loop {
            match walk.step()? {
                Step::Entered => {
                    let (Some(from), Some(to)) = (walk.dir(FROM), walk.dir(TO)) else {
                        continue;
                    };
                    let names = list(from)?;
                    remove_others(to, &names)?;
                    let is_dir = |name: &CString| -> Result<bool> {
                        let status = Node::new(from, name).status()?;
                        Ok(status.is_some_and(|status| look(&status) == FileType::Directory))
                    };
                    let mut dirs = Vec::new();
                    for name in names {
                        if is_dir(&name)? {
                            dirs.push(name);
                        }
                    }
                    walk.will_visit(dirs);
                }
                Step::Leaving if walk.leave()? == Step::Over => return Ok(()),
                Step::Leaving => {}
                Step::Over => return Ok(()),
            }
        }
    }

    /// Does the files of a directory; its directories, which are there on the other side now.
    fn enter(&mut self, walk: &Walk<3>) -> Result<Vec<CString>> {
        let (from, to) = (walk.first()?, walk.dir(TO).ok_or(Errno::NOENT)?);
        let names = list(from)?;
        remove_others(to, &names)?;
        let mut dirs = Vec::new();
        for name in names {
            let source = Node::new(from, &name);
            let Some(status) = source.status()? else { continue };
            if look(&status) == FileType::Directory {
                make_dir(Node::new(to, &name))?;
                dirs.push(name);
                continue;
            }
            let older = walk.dir(OLDER).map(|dir| Node::new(dir, &name));
            match self.put(source, &status, Node::new(to, &name), older) {
                Err(e) if self.lives && e.is_gone() => {}
                other => other.during(|| format!("copy `{}`", name.to_string_lossy()))?,
            }
        }
        Ok(dirs)
    }

    /// A directory's time is the last to be set: every file in it changes that.
    fn finish_dir(&mut self, walk: &Walk<3>) -> Result<()> {
        let (from, to) = (walk.first()?, walk.dir(TO).ok_or(Errno::NOENT)?);
        let (from, to) = (Node::new(from, c"."), Node::new(to, c"."));
        let (Some(wanted), Some(there)) = (from.status()?, to.status()?) else {
            return Ok(());
        };
        let (wanted, attributes_) = self.dress_of(&wanted, attributes(from)?);
        if !is_dressed_alike(&wanted, &there) || attributes_ != attributes(to)? {
            dress(to, &wanted, &attributes_)?;
        }
        Ok(())
    }

    /// Puts one file that is no directory.
    fn put(&mut self, from: Node<'_>, status: &Stat, to: Node<'_>, older: Option<Node<'_>>) -> Result<()> {
        let there = to.status()?;
        if let Some(there) = &there
            && self.is_same(from, status, to, there)?
        {
            return Ok(());
        }
        let state = self.state(from, status)?;
        let linked = (state.linked && look(status) == FileType::RegularFile).then(|| key(&state));
        self.clear()?;
        if !self.link_to(linked.as_deref())? && !self.link_older(from, status, older)? {
            self.make(from, status, &state)?;
        }
        if let Some(key) = &linked {
            match rustix::fs::linkat(&self.stage, NEW, &self.stage, &**key, AtFlags::empty()) {
                Err(Errno::EXIST | Errno::MLINK) => {}
                other => other?,
            }
        }
        if there.is_some_and(|there| look(&there) == FileType::Directory) {
            remove(to)?;
        }
        rustix::fs::renameat(&self.stage, NEW, to.dir, to.name)?;
        // Not of one with several names: all of them are known by the note that it has.
        if self.direction == Direction::Bring
            && look(status) == FileType::RegularFile
            && linked.is_none()
            && let Some(now) = to.status()?
        {
            let state = State::of(&now);
            Note { state, counts: true }.put(from)?;
        }
        Ok(())
    }

    /// The state of the living file that `from` is, or is a copy of.
    fn state(&self, from: Node<'_>, status: &Stat) -> Result<State> {
        let noted = match self.direction {
            Direction::Take => None,
            Direction::Bring | Direction::Copy => Note::on(from)?.map(|note| note.state),
        };
        Ok(noted.unwrap_or_else(|| State::of(status)))
    }

    fn is_same(&self, from: Node<'_>, status: &Stat, to: Node<'_>, there: &Stat) -> Result<bool> {
        if look(status) != look(there) {
            return Ok(false);
        }
        if look(status) != FileType::RegularFile {
            let target = |node: Node<'_>| match look(status) {
                FileType::Symlink => node.target().map(Some),
                _ => Ok(None),
            };
            return Ok(is_dressed_alike(status, there)
                && status.st_rdev == there.st_rdev
                && target(from)? == target(to)?
                && attributes(from)? == attributes(to)?);
        }
        let (copy, living) = match self.direction {
            Direction::Take => (to, status),
            Direction::Bring => (from, there),
            Direction::Copy => return Ok(false),
        };
        Ok(Note::on(copy)?.is_some_and(|note| note.counts && note.state == State::of(living)))
    }

    fn dress_of(&self, status: &Stat, all: Attributes) -> (Stat, Attributes) {
        match self.heirs {
            Some(heirs) => heirs.of(status, all),
            None => (*status, all),
        }
    }

    fn clear(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.stage, NEW, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether the file is another name of one that came before.
    fn link_to(&self, key: Option<&CStr>) -> Result<bool> {
        let Some(key) = key else { return Ok(false) };
        match rustix::fs::linkat(&self.stage, key, &self.stage, NEW, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::MLINK) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Whether the older copy has it unchanged, and is of this file system.
    fn link_older(&self, from: Node<'_>, status: &Stat, older: Option<Node<'_>>) -> Result<bool> {
        let Some(older) = older else { return Ok(false) };
        let Some(there) = older.status()? else {
            return Ok(false);
        };
        if !self.is_same(from, status, older, &there)? {
            return Ok(false);
        }
        match rustix::fs::linkat(older.dir, older.name, &self.stage, NEW, AtFlags::empty()) {
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    fn make(&mut self, from: Node<'_>, status: &Stat, state: &State) -> Result<()> {
        let new = Node::new(&self.stage, NEW);
        if look(status) == FileType::RegularFile {
            let source = from.open()?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let private = Mode::RUSR | Mode::WUSR;
            let file = File::from(rustix::fs::openat(&self.stage, NEW, flags, private)?);
            self.copied.bytes += content_of(&source, &file, &mut self.may_share)?;
        } else {
            let target = match look(status) {
                FileType::Symlink => Some(from.target()?),
                _ => None,
            };
            make_special(new, status, target.as_deref())?;
        }
        let (worn, attributes_) = self.dress_of(status, attributes(from)?);
        dress(new, &worn, &attributes_)?;
        self.copied.files += 1;
        if self.direction == Direction::Take && look(status) == FileType::RegularFile {
            let counts = state.changed < self.clean;
            Note {
                state: *state,
                counts,
            }
            .put(new)?;
        }
        Ok(())
    }
}

/// Who the several names of one file belong to, and in which state.
fn key(state: &State) -> CString {
    let (seconds, nanoseconds) = state.changed;
    CString::new(format!("{}-{seconds}-{nanoseconds}", state.inode)).unwrap_or_default()
}

fn is_dressed_alike(one: &Stat, other: &Stat) -> bool {
    let dress = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_mtime, s.st_mtime_nsec);
    dress(one) == dress(other)
}

fn make_dir(node: Node<'_>) -> Result<()> {
    match node.status()? {
        Some(there) if look(&there) == FileType::Directory => return Ok(()),
        Some(_) => remove(node)?,
        None => {}
    }
    Ok(rustix::fs::mkdirat(node.dir, node.name, Mode::RWXU)?)
}

/// Removes what is not among the names, which are sorted.
fn remove_others(dir: &OwnedFd, names: &[CString]) -> Result<()> {
    for name in list(dir)? {
        if names.binary_search(&name).is_err() {
            remove(Node::new(dir, &name))?;
        }
    }
    Ok(())
}

fn remove(node: Node<'_>) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let dir = PathBuf::from(format!("/proc/self/fd/{}", node.dir.as_raw_fd()));
    files::remove_tree(&dir.join(std::ffi::OsStr::from_bytes(node.name.to_bytes())))
}

fn said(walk: &Walk<3>) -> String {
    let path = walk.path();
    // A tenant can make paths of any length.
    let end = path.len().min(200);
    format!("in `/{}`", String::from_utf8_lossy(&path[..end]))
}
