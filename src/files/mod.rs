//! Files condo owns (state, locks) and files below a root that is not trusted.

mod lock;
pub mod mountinfo;
pub mod overlay;
mod place;
mod root;
pub mod socket;

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
};

pub use lock::Lock;
pub use place::NewFile;
pub use root::{Root, inside};

use crate::error::{During, Result};

/// More than the line of `/proc/PID/stat` can have: 52 numbers of at most 20 digits, and a name.
const STAT: usize = 2048;

/// Reads a whole file, naming it in the error.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).during(|| format!("read `{}`", path.display()))
}

/// Reads a whole file as text, naming it in the error.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).during(|| format!("read `{}`", path.display()))
}

/// The fields of `/proc/PID/stat` behind the process's name, from its state on (`proc_pid_stat(5)`); of the caller's with `self`.
pub fn stat_fields(process: impl fmt::Display) -> Option<String> {
    // The kernel gives all of it to one read that has room for it; whoever does not know its length asks eight times.
    let mut stat = [0; STAT];
    let length = File::open(format!("/proc/{process}/stat"))
        .and_then(|mut file| file.read(&mut stat))
        .ok()?;
    behind_name(&stat[..length])
}

/// A process gives itself its name, which may contain anything: parentheses, and bytes that are no text.
fn behind_name(stat: &[u8]) -> Option<String> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    String::from_utf8(stat[end + 1..].to_vec()).ok()
}

/// Replaces `path` in one step: readers see the old content or the new, never a part.
///
/// The temporary file beside it carries our pid, so that two writers do not share one.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::from_raw_mode(mode))?);
        file.write_all(content)?;
        fs::rename(&temporary, path)?;
        Ok(())
    };
    write()
        .during(|| format!("write `{}`", path.display()))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
}

/// As [`write_atomic`], for less than a block. Where the disk has no room for a second file, the first is written over in place:
/// its block is there already.
pub fn write_small(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    match write_atomic(path, content, mode) {
        Err(e) if e.is_full() => {
            let file = File::options().write(true).open(path)?;
            std::os::unix::fs::FileExt::write_all_at(&file, content, 0)?;
            file.set_len(content.len() as u64)
                .during(|| format!("write `{}` in place", path.display()))
        }
        other => other,
    }
}

/// Writes to an existing file (a cgroup, sysctl or proc file) below a directory handle in a single `write(2)`.
pub fn write_at(dir: BorrowedFd<'_>, name: &str, value: &str) -> Result<()> {
    let write = || -> Result<()> {
        let fd = rustix::fs::openat(
            dir,
            name,
            OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        rustix::io::write(&fd, value.as_bytes())?;
        Ok(())
    };
    write().during(|| format!("write `{value}` to `{name}`"))
}

/// Reads a small file below a directory handle as text.
pub fn read_at(dir: BorrowedFd<'_>, name: &str) -> Result<String> {
    let read = || -> Result<String> {
        let fd = rustix::fs::openat(
            dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        // Files of the kernel have no size to ask for (which `read_to_string` would): most fit into one read.
        let mut text = Vec::with_capacity(4096);
        while rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut text))? > 0 {
            text.reserve(4096);
        }
        Ok(String::from_utf8(text).map_err(std::io::Error::other)?)
    };
    read().during(|| format!("read `{name}`"))
}

/// Opens a directory as a handle for the `*at` calls.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .during(|| format!("open `{}`", path.display()))
}

/// Creates a directory and its parents; one that is there already is left as it is.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .during(|| format!("create directory `{}`", path.display()))
}

/// Creates a directory that only its owner may enter, or closes one that is there to others.
pub fn create_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    create_dir_all(path, 0o700)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .during(|| format!("close `{}` to others", path.display()))
}

/// Removes a file; one that is gone already counts as removed.
pub fn remove_file(path: &Path) -> Result<()> {
    forgive_gone(fs::remove_file(path)).during(|| format!("remove `{}`", path.display()))
}

/// Removes a tree without following symbolic links; one that is gone already counts as removed.
///
/// It works at any depth (a tenant can nest directories deeper than a path can say, than a process has descriptors and than a
/// recursion has stack): directories are moved up to the top before they are emptied.
pub fn remove_tree(path: &Path) -> Result<()> {
    let work = || -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Ok(forgive_gone(fs::remove_file(path))?);
            }
            other => empty(&other?)?,
        }
        Ok(forgive_gone(fs::remove_dir(path))?)
    };
    work().during(|| format!("remove `{}`", path.display()))
}

/// Empties a directory. Every pass takes away what is directly in it and brings up what was one level below.
fn empty(top: &OwnedFd) -> Result<()> {
    let mut moved = 0_u64;
    loop {
        let dirs = remove_files(top)?;
        if dirs.is_empty() {
            return Ok(());
        }
        for dir in dirs {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // What is mounted here is somebody else's.
            let below = rustix::fs::openat2(top, &dir, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
            // A subvolume of btrfs: nothing is moved out of it, and none is made in one by a tenant.
            if rustix::fs::fstat(&below)?.st_dev != rustix::fs::fstat(top)?.st_dev {
                empty(&below)?;
            }
            loop {
                let names = remove_files(&below)?;
                if names.is_empty() {
                    break;
                }
                for name in names {
                    bring_up(&below, &name, top, &mut moved)?;
                }
            }
            rustix::fs::unlinkat(top, &dir, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Moves a directory to the top, under a name that nothing has there.
fn bring_up(below: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(below, name, top, format!(".removed-{moved}"), flags) {
            Err(rustix::io::Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

/// Names of directories that are kept at once: a tenant can make millions in one.
const AT_ONCE: usize = 1024;

/// Removes the files of a directory and returns the names of its directories, or of some of them when there are many.
fn remove_files(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut dirs = Vec::new();
    for entry in Dir::read_from(dir)? {
        if dirs.len() == AT_ONCE {
            break;
        }
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => dirs.push(name.to_owned()),
            Err(rustix::io::Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(dirs)
}

fn forgive_gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Renames a file or directory; one that is gone already counts as renamed.
pub fn rename_if_there(from: &Path, to: &Path) -> Result<()> {
    forgive_gone(fs::rename(from, to)).during(|| format!("rename `{}` to `{}`", from.display(), to.display()))
}

/// Whether `path` is there, without following a symbolic link in its last component.
pub fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The times of a file that was written then, in seconds since 1970; that it was read stays as it is (`utimensat(2)`).
pub fn written_at(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_confuse() {
        let fields = " S 1 2 3";
        for name in ["a", "a) R 1 (b)", ""] {
            let line = format!("7 ({name}){fields}");
            assert_eq!(behind_name(line.as_bytes()).as_deref(), Some(fields));
        }
        assert_eq!(behind_name(b"7 (\xff) S").as_deref(), Some(" S"));
        assert_eq!(behind_name(b"nonsense"), None);
    }

    #[test]
    fn a_tree_that_is_wide_at_every_level_is_removed() {
        let top = std::env::temp_dir().join(format!("condo-wide-{}", std::process::id()));
        for n in 0..=AT_ONCE {
            fs::create_dir_all(top.join(format!("a/b/{n}"))).unwrap();
            fs::create_dir(top.join(n.to_string())).unwrap();
            fs::write(top.join(format!("a/b/{n}/file")), "").unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!exists(&top));
        remove_tree(&top).unwrap();
    }

    #[test]
    fn a_small_file_is_replaced() {
        let path = std::env::temp_dir().join(format!("condo-small-{}", std::process::id()));
        write_small(&path, b"longer than the next", 0o600).unwrap();
        write_small(&path, b"next", 0o600).unwrap();
        let content = fs::read(&path).unwrap();
        remove_file(&path).unwrap();
        assert_eq!(content, b"next");
    }
}
