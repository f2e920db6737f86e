//! Processes that stay when the command that began them has ended: this program again, or the small one that belongs to it, in a role
//! that its arguments name. Such a process says on its standard error how it begins, and closes that when it has begun.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::runtime::init::Newborn;
use crate::sys::born::Birth;

/// The program that this process is.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// Starts one in a cgroup, where that can be done (else it is in ours), and returns what it said until it closed its standard error.
pub(super) fn start(
    (program, words): (&Path, &[&OsStr]),
    input: Option<BorrowedFd<'_>>,
    cgroup: Option<&Cgroup>,
) -> Result<(Newborn, String)> {
    let null: OwnedFd = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (listen, say) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // It stays for weeks, and needs to find programs at most.
    let path = std::env::var_os("PATH").map(|path| [OsStr::new("PATH="), &path].join(OsStr::new("")));
    let birth = Birth {
        program: &CString::new(program.as_os_str().as_bytes()).map_err(|e| Error::Io(e.into()))?,
        args: &strings(words)?,
        env: &strings(path)?,
        streams: [input.unwrap_or(null.as_fd()), null.as_fd(), say.as_fd()],
        cgroup: None,
    };
    let child = bear(birth, cgroup).during(|| format!("start `{}`", words[0].display()))?;
    drop(say);
    let mut said = String::new();
    File::from(listen)
        .read_to_string(&mut said)
        .during(|| format!("listen to `{}`", words[0].display()))?;
    Ok((child, said))
}

fn bear(birth: Birth<'_>, cgroup: Option<&Cgroup>) -> Result<Newborn> {
    let at_home = Birth {
        cgroup: cgroup.and_then(Cgroup::birth),
        ..birth
    };
    let (pid, pidfd) = at_home.give().or_else(|_| birth.give())?;
    Ok(Newborn { pid, pidfd })
}

fn strings(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Vec<CString>> {
    let string = |word: &OsStr| CString::new(word.as_bytes()).map_err(|e| Error::Io(e.into()));
    words.into_iter().map(|word| string(word.as_ref())).collect()
}

/// Lets go of whoever started this process.
pub(super) fn silence() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// How a role ended, and why on standard error.
pub(super) fn tell(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = write!(std::io::stderr(), "{e}");
            ExitCode::FAILURE
        }
    }
}
