//! The one error type of the library.
//!
//! A variant exists because a caller matches on it. Texts are lower case, end without a full stop, put values in
//! backticks and say what to do where the user can do something. Errors are returned, never logged on the way;
//! only `cli` prints.

use std::fmt;

/// What the library's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value from the user (option, config.json field, recipe line) cannot be used.
    #[error("{field}: `{value}` {problem}")]
    Invalid {
        /// The field as the user knows it: `linux.resources.cpu.quota`, `--memory`.
        field: String,
        /// The offending value.
        value: String,
        /// What is wrong and what would be right, to be read after the value.
        problem: String,
    },
    /// This host or this version cannot do what was asked, although the request is well formed.
    #[error("{what} is not supported here: {why}")]
    Unsupported {
        /// The thing asked for.
        what: String,
        /// Why it cannot be had, and what would help.
        why: String,
    },
    /// The named thing is not there.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// `container`, `VPS`, `image`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The VPS is there, and none of those that are meant.
    #[error("VPS `{name}` is not in the project `{project}`")]
    Elsewhere {
        /// The VPS.
        name: String,
        /// The project that is worked in.
        project: String,
    },
    /// The named thing is there already.
    #[error("{kind} `{name}` already exists")]
    Exists {
        /// `container`, `VPS`, `image`, `address`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The container is in a status that does not allow the operation. The text is matched by callers.
    #[error("{0}")]
    Status(String),
    /// A file that condo itself wrote, or a peer process, did not say what it should.
    #[error("{0}")]
    Corrupt(String),
    /// A database of condo's own cannot be read any more. The store makes it anew out of its copies.
    #[error("{0}")]
    Damaged(String),
    /// The program to run cannot be run (exit status 126 or 127 of `exec` and `run`).
    #[error("exec {program}: {}", plain(source))]
    Exec {
        /// The program as it was asked for.
        program: String,
        /// Why `execve(2)` refused.
        source: std::io::Error,
    },
    /// A message from the init process, which failed at a named step.
    #[error("{0}")]
    Init(String),
    /// A lock is held by another invocation.
    #[error("{0} is in use by another invocation")]
    Busy(String),
    /// Several independent failures of a teardown, which goes on after each.
    #[error("{}", join(.0))]
    Several(Vec<Error>),
    /// A system call failed.
    #[error("{}", plain(.0))]
    Io(#[from] std::io::Error),
    /// JSON that does not parse.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// What was going on when the source happened.
    #[error("{what}: {source}")]
    During {
        /// The activity: ``mount `/proc` ``.
        what: String,
        /// The failure.
        source: Box<Error>,
    },
}

/// The system's words as callers of OCI runtimes match them: "no such file or directory", without a number.
fn plain(e: &std::io::Error) -> String {
    let text = e.raw_os_error().map_or_else(
        || e.to_string(),
        |n| nix::errno::Errno::from_raw(n).desc().to_string(),
    );
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_lowercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

fn join(errors: &[Error]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl Error {
    /// An [`Error::Invalid`] from anything printable.
    pub fn invalid(field: impl fmt::Display, value: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::Invalid {
            field: field.to_string(),
            value: value.to_string(),
            problem: problem.to_string(),
        }
    }

    /// An [`Error::Unsupported`] from anything printable.
    pub fn unsupported(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Unsupported {
            what: what.to_string(),
            why: why.to_string(),
        }
    }

    /// The failure below all [`Error::During`] layers.
    pub fn root(&self) -> &Self {
        match self {
            Self::During { source, .. } => source.root(),
            other => other,
        }
    }

    /// The `errno` at the root, if a system call is the cause.
    pub fn errno(&self) -> Option<i32> {
        match self.root() {
            Self::Io(e) | Self::Exec { source: e, .. } => e.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the disk, or what of it may be used, is full.
    pub fn is_full(&self) -> bool {
        match self.root() {
            Self::Io(e) => matches!(
                e.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }

    /// Whether a system call failed because the thing is not (or no longer) there.
    pub fn is_gone(&self) -> bool {
        match self.root() {
            Self::Io(e) => e.kind() == std::io::ErrorKind::NotFound,
            Self::NotFound { .. } => true,
            _ => false,
        }
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Self {
        Self::Io(e.into())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

/// Adds to a failure what was going on: `.during(|| format!("mount `{path}`"))`.
pub trait During<T> {
    /// Wraps the error, if there is one, in [`Error::During`].
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> During<T> for Result<T, E> {
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::During {
            what: what().into(),
            source: Box::new(e.into()),
        })
    }
}

/// Collects the failures of a teardown that must go on: "already gone" counts as success.
#[derive(Debug, Default)]
pub struct Failures(Vec<Error>);

impl Failures {
    /// Remembers the failure of `result`, unless its cause is that the thing is gone already.
    pub fn note<T>(&mut self, result: Result<T>) {
        if let Err(e) = result
            && !e.is_gone()
        {
            self.0.push(e);
        }
    }

    /// The single failure, all of them as [`Error::Several`], or success.
    pub fn into_result(mut self) -> Result<()> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(Error::Several(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: std::io::ErrorKind) -> Error {
        Error::Io(kind.into())
    }

    #[test]
    fn context_reads_from_the_outside_in() {
        let e = Err::<(), _>(Error::invalid("--memory", "0", "must be above zero")).during(|| "create `web`");
        assert_eq!(
            e.unwrap_err().to_string(),
            "create `web`: --memory: `0` must be above zero"
        );
    }

    #[test]
    fn the_root_is_found_below_context() {
        let e = Err::<(), _>(nix::errno::Errno::EBUSY)
            .during(|| "a")
            .during(|| "b")
            .unwrap_err();
        assert_eq!(e.errno(), Some(nix::errno::Errno::EBUSY as i32));
    }

    #[test]
    fn a_teardown_forgives_what_is_gone_and_keeps_the_rest() {
        let mut failures = Failures::default();
        failures.note::<()>(Err(io(std::io::ErrorKind::NotFound)));
        failures.note::<()>(Err(io(std::io::ErrorKind::PermissionDenied)));
        failures.note(Ok(()));
        assert!(matches!(failures.into_result(), Err(Error::Io(_))));
    }
}
