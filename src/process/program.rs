//! Finding the program inside the container and becoming it.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};

use super::environment::variable;
use crate::error::{Error, Result};

/// Where commands are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program found, with its arguments and environment as `execve(2)` wants them.
#[derive(Debug)]
pub struct Program {
    name: String,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Looks the program up as seen from the current root and directory.
    ///
    /// # Errors
    /// [`Error::Exec`] with "executable file not found in $PATH", "no such file or directory" or "permission denied": the texts
    /// by which callers choose exit status 127 or 126.
    pub fn find(args: &[OsString], env: &[OsString]) -> Result<Self> {
        let name = args.first().cloned().unwrap_or_default();
        let path = search(&name, env).map_err(|source| Error::Exec {
            program: name.display().to_string(),
            source,
        })?;
        let c = |bytes: &[u8]| CString::new(bytes).map_err(|e| Error::Io(e.into()));
        Ok(Self {
            path: c(path.as_os_str().as_bytes())?,
            args: args.iter().map(|a| c(a.as_bytes())).collect::<Result<_>>()?,
            env: env.iter().map(|e| c(e.as_bytes())).collect::<Result<_>>()?,
            name: name.display().to_string(),
        })
    }

    /// Becomes the program; comes back only with the reason why not.
    pub fn exec(&self) -> Error {
        match nix::unistd::execve(&self.path, &self.args, &self.env) {
            Err(errno) => Error::Exec {
                program: self.name.clone(),
                source: errno.into(),
            },
        }
    }
}

fn search(name: &OsStr, env: &[OsString]) -> io::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path);
    }
    let path = variable(env, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut denied = None;
    for dir in path.as_bytes().split(|b| *b == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        let candidate = Path::new(OsStr::from_bytes(dir)).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(denied
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "executable file not found in $PATH")))
}

fn executable(path: &Path) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::accessat(
        CWD,
        path,
        Access::EXEC_OK,
        AtFlags::EACCESS,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(args: &[&str], env: &[&str]) -> String {
        let owned = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        match Program::find(&owned(args), &owned(env)) {
            Ok(found) => found.path.into_string().unwrap(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn the_last_path_is_searched() {
        assert_eq!(text(&["sh"], &["PATH=/nowhere", "PATH=/nowhere:/bin"]), "/bin/sh");
        assert_eq!(text(&["sh"], &[]), "/usr/bin/sh");
    }

    #[test]
    fn failures_read_as_callers_match_them() {
        assert!(text(&["no-such-program"], &[]).contains("executable file not found in $PATH"));
        assert!(text(&["/no/such"], &[]).contains("no such file or directory"));
        assert!(text(&["/etc/passwd/x"], &[]).contains("not a directory"));
        assert!(text(&["/etc"], &[]).contains("permission denied"));
    }
}
