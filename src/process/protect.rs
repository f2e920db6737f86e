//! The protection of condo's own program against the containers it starts (CVE-2019-5736).
//!
//! A container's first process is, until its `execve`, this program: whoever tricks it into executing `/proc/self/exe` gets a
//! handle to the file, and as host root could write to it. So the program executes itself once more, through a mount of its
//! file that is read-only and attached nowhere: no one can make it writable again, because a mount that belongs to no
//! mount namespace can neither be remounted nor cloned. Where that cannot be had (no `CAP_SYS_ADMIN`), a sealed copy in memory serves.
//! As a rule it has done so before it gets here (see [`condo_entry`]).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use condo_entry::MAKERS;
pub use condo_entry::MARK;
use rustix::fs::{CWD, MemfdFlags, SealFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{During, Result};
use crate::sys::mount::{Attributes, attr, set_attributes};

/// Whether a word may be the name of a command that makes processes, for which the program has to be protected.
pub fn is_maker(word: &OsStr) -> bool {
    MAKERS
        .split(|byte| *byte == 0)
        .any(|name| !name.is_empty() && name == word.as_bytes())
}

/// Returns once the program runs from a file no container can write to; executes itself again when it does not yet.
pub fn protect() -> Result<()> {
    let pid = std::process::id().to_string();
    if std::env::var_os(MARK).is_some_and(|mark| mark == *pid) {
        return Ok(());
    }
    let file = read_only_mount()
        .or_else(|_| sealed_copy())
        .during(|| "protect the runtime's own program")?;
    execute(file.as_fd(), &pid).during(|| "execute the runtime's protected program")
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, "/proc/self/exe", flags)?;
    set_attributes(
        mount.as_fd(),
        false,
        &Attributes {
            set: attr::RDONLY,
            ..Attributes::default()
        },
    )?;
    Ok(mount)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let name = "condo-runtime";
    // A kernel that is set not to execute such files wants to be told (`vm.memfd_noexec`); before 6.3 there was no such flag.
    let memory = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        made => made,
    };
    let mut copy = File::from(memory?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(copy.into())
}

fn execute(file: BorrowedFd<'_>, pid: &str) -> io::Result<()> {
    let args = std::env::args_os()
        .map(|a| CString::new(a.as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::new();
    for (key, value) in std::env::vars_os().filter(|(key, _)| key != MARK) {
        env.push(CString::new([key.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    env.push(CString::new(format!("{MARK}={pid}"))?);
    match nix::unistd::execveat(file, c"", &args, &env, nix::fcntl::AtFlags::AT_EMPTY_PATH) {
        Err(errno) => Err(errno.into()),
    }
}

/// Hides this process from the container's: not to be traced, its `/proc` files not to be opened.
pub fn hide() -> Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    )?)
}
