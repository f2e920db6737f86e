//! A file that shows under its name only when it is whole.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Names tried for a temporary file before a directory full of them is taken for malice.
const TEMPORARIES: u32 = 1000;

/// A new regular file of a directory that may be hostile. Without a name at first where the filesystem can do that
/// (`O_TMPFILE`), so that nothing is left of it should its writer be killed; else under a temporary one. What is there already
/// under any name, a fifo perhaps, is never opened.
#[derive(Debug)]
pub struct NewFile {
    dir: OwnedFd,
    /// To write its content to.
    pub file: File,
    temporary: Option<String>,
}

impl NewFile {
    /// Begins a file in the directory, with no permissions but the owner's.
    pub fn begin(dir: BorrowedFd<'_>) -> Result<Self> {
        let dir = dir.try_clone_to_owned()?;
        let private = Mode::from_raw_mode(0o600);
        match rustix::fs::openat(
            &dir,
            ".",
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            private,
        ) {
            // Neither every filesystem nor every kernel: those that do not know it open the directory.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            other => {
                return Ok(Self {
                    file: File::from(other?),
                    dir,
                    temporary: None,
                });
            }
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, temporary) = under_a_free_name(|name| rustix::fs::openat(&dir, name, flags, private))?;
        Ok(Self {
            dir,
            file: File::from(file),
            temporary: Some(temporary),
        })
    }

    /// Gives it its name, in place of any file or symbolic link that has it; a directory there is an error.
    pub fn finish(mut self, name: &OsStr) -> Result<()> {
        if self.temporary.is_none() {
            // rename(2) replaces, linkat(2) does not.
            let link = |temporary: &str| {
                rustix::fs::linkat(&self.file, "", &self.dir, temporary, AtFlags::EMPTY_PATH)
            };
            self.temporary = Some(under_a_free_name(link)?.1);
        }
        if let Some(temporary) = &self.temporary {
            rustix::fs::renameat(&self.dir, temporary, &self.dir, name)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl AsFd for NewFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = rustix::fs::unlinkat(&self.dir, temporary, AtFlags::empty());
        }
    }
}

fn under_a_free_name<T>(make: impl Fn(&str) -> rustix::io::Result<T>) -> Result<(T, String)> {
    for n in 0..TEMPORARIES {
        let name = format!(".condo.{}.{n}.tmp", std::process::id());
        match make(&name) {
            Err(Errno::EXIST) => {}
            other => return Ok((other?, name)),
        }
    }
    Err(Error::from(Errno::EXIST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_shows_when_it_is_whole_and_replaces_what_had_its_name() {
        let top = std::env::temp_dir().join(format!("condo-place-{}", std::process::id()));
        std::fs::create_dir_all(top.join("taken")).unwrap();
        std::os::unix::fs::symlink("/nowhere", top.join("name")).unwrap();
        let dir = super::super::open_dir(&top).unwrap();
        let names = || std::fs::read_dir(&top).unwrap().count();
        let mut whole = NewFile::begin(dir.as_fd()).unwrap();
        whole.file.write_all(b"whole").unwrap();
        drop(NewFile::begin(dir.as_fd()).unwrap());
        assert!(std::fs::read(top.join("name")).is_err());
        whole.finish(OsStr::new("name")).unwrap();
        assert_eq!(std::fs::read(top.join("name")).unwrap(), b"whole");
        let refused = NewFile::begin(dir.as_fd()).unwrap().finish(OsStr::new("taken"));
        assert!(refused.is_err());
        assert_eq!(names(), 2);
        std::fs::remove_dir_all(&top).unwrap();
    }
}
