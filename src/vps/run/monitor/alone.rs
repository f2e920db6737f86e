//! The loop as a program of its own, `condo-monitor`.
//!
//! A program that may lie anywhere in memory is relocated when it starts, and each page that has an address in it becomes memory of
//! each process's own. `condo` has 60 such pages and more, the loop alone a few, and every running VPS has a loop.
//! `condo` watches by itself where there is no such program.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags};

use super::super::resident::{OWN_PROGRAM, tell};
use super::{CALLED, become_role, keep, watch};
use crate::error::Error;

/// Where an installation has it, seen from where `condo` is.
const ELSEWHERE: &str = "../libexec/condo";
/// Both are built together. While a package is being replaced, they are not of one build.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Its roles: the loop, and the one that keeps listeners open.
const WATCH: &str = "watch";
pub(in super::super) const KEEP: &str = "keep";

/// Goes on as the loop, in the small program if it is there: `condo`'s descriptor and version follow what the loop is told.
/// Comes back only with the reason why not.
pub(super) fn become_watch(root: Option<&Path>, name: &str, rest: &[String]) -> Error {
    if let Some(program) = beside() {
        // For what comes after the end: the file that `condo` is now may have been replaced by then.
        let whole = rustix::fs::open(OWN_PROGRAM, OFlags::PATH, Mode::empty());
        if let Ok(whole) = whole {
            let also = [whole.as_raw_fd().to_string(), VERSION.to_owned()];
            let _ = become_role(&program, WATCH, root, name, &[rest, &also].concat());
        }
    }
    become_role(Path::new(OWN_PROGRAM), WATCH, root, name, rest)
}

/// The program that belongs to this one, unless another has taken this one's place: beside it, or where the file hierarchy has
/// programs that nobody calls by name (`file-hierarchy(7)`).
pub(in super::super) fn beside() -> Option<PathBuf> {
    let own = std::fs::read_link(OWN_PROGRAM).ok()?;
    std::fs::symlink_metadata(&own).ok()?;
    let places = [
        own.with_file_name(CALLED),
        own.parent()?.join(ELSEWHERE).join(CALLED),
    ];
    places.into_iter().find(|place| place.exists())
}

/// Where a program is that is open.
pub(super) fn program_at(fd: i32) -> PathBuf {
    format!("/proc/self/fd/{fd}").into()
}

/// Runs as the loop, or keeps listeners. A loop of another version leaves that to `condo`.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [role, folder, ..] = &args[..]
        && role == KEEP
    {
        return tell(keep::keep(Path::new(folder)));
    }
    let told = args.iter().rev().map(|arg| arg.to_str().unwrap_or_default());
    let [version, whole] = &told.take(2).collect::<Vec<_>>()[..] else {
        return tell(Err(Error::Status(
            "condo starts this program for each VPS that runs; alone it does nothing".into(),
        )));
    };
    if *version == VERSION {
        return tell(watch::watch(&args[1..]));
    }
    let Ok(whole) = whole.parse() else {
        return tell(Err(Error::invalid("monitor", *whole, "is not a descriptor")));
    };
    let failed = Command::new(program_at(whole))
        .arg0(CALLED)
        .args(&args[..args.len() - 2])
        .exec();
    tell(Err(failed.into()))
}
