//! Trees gone through side by side, with one descriptor for each: down by name, up by `..`. A path would become too long, and a
//! descriptor for each level too many.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::open_dir;
use crate::error::{Error, Result};

/// One directory in each of `N` trees: the first is there, of the others as far as they go.
#[derive(Debug)]
pub struct Walk<const N: usize> {
    sides: [Side; N],
    levels: Vec<Level>,
    path: Vec<u8>,
}

/// Where one tree is.
#[derive(Debug)]
struct Side {
    /// The deepest directory that it has on the way.
    dir: Option<OwnedFd>,
    /// How far below the others are.
    below: usize,
}

/// A directory on the way down.
#[derive(Debug)]
struct Level {
    /// Who it is in the first tree: a tenant may move directories while we are in them.
    identity: (u64, u64),
    /// Directories in it that have not been visited.
    left: Vec<CString>,
    /// Length of the path before its name.
    before: usize,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A directory was entered: the caller says with [`Walk::will_visit`] where to go from here.
    Entered,
    /// Everything below a directory is done; it is the current one for the last time.
    Leaving,
    /// The trees are done.
    Over,
}

impl<const N: usize> Walk<N> {
    /// Begins at the tops. A tree that is missing altogether is one that has nothing.
    pub fn new(tops: [Option<OwnedFd>; N]) -> Self {
        Self {
            sides: tops.map(|dir| Side { dir, below: 0 }),
            levels: Vec::new(),
            path: Vec::new(),
        }
    }

    /// The current directory of a tree, if it has it.
    pub fn dir(&self, side: usize) -> Option<&OwnedFd> {
        let side = self.sides.get(side)?;
        side.dir.as_ref().filter(|_| side.below == 0)
    }

    /// The current directory of the first tree.
    pub fn first(&self) -> Result<&OwnedFd> {
        self.dir(0).ok_or_else(|| Errno::NOENT.into())
    }

    /// The current directory's path from the top, with a slash at its end; empty at the top.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Directories of the current one that are to be visited.
    pub fn will_visit(&mut self, mut names: Vec<CString>) {
        names.reverse();
        if let Some(level) = self.levels.last_mut() {
            level.left = names;
        }
    }

    /// Goes on. Begins with [`Step::Entered`] of the top; [`Step::Leaving`] comes once for each directory.
    ///
    /// # Errors
    /// [`Error::Busy`] when a directory was moved while we were below it.
    pub fn step(&mut self) -> Result<Step> {
        if self.levels.is_empty() {
            return self.enter(0).map(|()| Step::Entered);
        }
        while let Some(name) = self.levels.last_mut().and_then(|level| level.left.pop()) {
            if self.down(&name)? {
                return Ok(Step::Entered);
            }
        }
        Ok(Step::Leaving)
    }

    /// Goes up, after [`Step::Leaving`]. [`Step::Over`] from the top.
    pub fn leave(&mut self) -> Result<Step> {
        if let Some(level) = self.levels.pop() {
            self.path.truncate(level.before);
        }
        let Some(parent) = self.levels.last() else {
            return Ok(Step::Over);
        };
        let identity = parent.identity;
        for side in &mut self.sides {
            side.up()?;
        }
        if self.identity()? != identity {
            return Err(Error::Busy("a directory that was moved".into()));
        }
        Ok(Step::Leaving)
    }

    /// Enters a directory; false when the first tree has it no more.
    fn down(&mut self, name: &CStr) -> Result<bool> {
        for (at, side) in self.sides.iter_mut().enumerate() {
            if !side.down(name)? && at == 0 {
                side.below = 0;
                return Ok(false);
            }
        }
        let before = self.path.len();
        self.path.extend_from_slice(name.to_bytes());
        self.path.push(b'/');
        self.enter(before).map(|()| true)
    }

    fn enter(&mut self, before: usize) -> Result<()> {
        let identity = self.identity()?;
        self.levels.push(Level {
            identity,
            left: Vec::new(),
            before,
        });
        Ok(())
    }

    fn identity(&self) -> Result<(u64, u64)> {
        let status = rustix::fs::fstat(self.first()?)?;
        Ok((status.st_dev, status.st_ino))
    }
}

impl Side {
    /// Whether the tree has it.
    fn down(&mut self, name: &CStr) -> Result<bool> {
        let Some(dir) = self.dir.as_ref().filter(|_| self.below == 0) else {
            self.below += 1;
            return Ok(false);
        };
        match open_dir(dir, name) {
            Err(e) if is_none(&e) => {
                self.below += 1;
                Ok(false)
            }
            other => {
                self.dir = Some(other?);
                Ok(true)
            }
        }
    }

    fn up(&mut self) -> Result<()> {
        match &self.dir {
            _ if self.below > 0 => self.below -= 1,
            Some(dir) => self.dir = Some(open_dir(dir, c"..")?),
            None => {}
        }
        Ok(())
    }
}

/// Nothing there, or no directory.
fn is_none(e: &Error) -> bool {
    let none = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    e.errno()
        .is_some_and(|errno| none.iter().any(|n| n.raw_os_error() == errno))
}
