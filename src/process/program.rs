//! Finding the program inside the container and becoming it.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};

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
    pub fn find(args: &[String], env: &[String]) -> Result<Self> {
        let name = args.first().cloned().unwrap_or_default();
        let path = search(&name, env).map_err(|source| Error::Exec {
            program: name.clone(),
            source,
        })?;
        let c = |bytes: &[u8]| CString::new(bytes).map_err(|e| Error::Io(e.into()));
        Ok(Self {
            path: c(path.as_os_str().as_bytes())?,
            args: args.iter().map(|a| c(a.as_bytes())).collect::<Result<_>>()?,
            env: env.iter().map(|e| c(e.as_bytes())).collect::<Result<_>>()?,
            name,
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

fn search(name: &str, env: &[String]) -> io::Result<PathBuf> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
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

/// The value of a variable in `KEY=value` lines; the last one counts.
pub fn variable<'e>(env: &'e [String], key: &str) -> Option<&'e OsStr> {
    env.iter()
        .rev()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(OsStr::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(args: &[&str], env: &[&str]) -> String {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
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

    #[test]
    fn a_variable_s_last_value_counts() {
        let env = ["A=1".to_string(), "AB=2".to_string(), "A=3".to_string()];
        assert_eq!(variable(&env, "A"), Some(OsStr::new("3")));
    }
}
