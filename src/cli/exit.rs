//! What a `condo` process says by its exit status.

use std::process::ExitCode;

use crate::error::Error;

/// Exit statuses, one enum for all commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// Understood, but it failed: 1.
    Failure,
    /// The command line or a value in it is wrong; nothing was done: 2.
    Usage,
    /// `exec`: the program is there but cannot be run: 126, as shells have it.
    NotExecutable,
    /// `exec`: there is no such program: 127, as shells have it.
    NoProgram,
    /// `exec`: the status of the program itself (128 and the signal's number, when one ended it).
    Program(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotExecutable => 126,
            Self::NoProgram => 127,
            Self::Program(status) => status,
        }
    }
}

impl From<&Error> for Exit {
    fn from(e: &Error) -> Self {
        match e.root() {
            Error::Invalid { .. } => Self::Usage,
            Error::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Self::NoProgram,
            Error::Exec { .. } => Self::NotExecutable,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::During;

    #[test]
    fn an_error_decides_by_its_root() {
        let invalid = Err::<(), _>(Error::invalid("--cpus", 0, "must be above 0"))
            .during(|| "create `web`")
            .unwrap_err();
        assert_eq!(Exit::from(&invalid), Exit::Usage);
        let exec = |kind: std::io::ErrorKind| Error::Exec {
            program: "ls".into(),
            source: kind.into(),
        };
        assert_eq!(Exit::from(&exec(std::io::ErrorKind::NotFound)).code(), 127);
        assert_eq!(
            Exit::from(&exec(std::io::ErrorKind::PermissionDenied)).code(),
            126
        );
        assert_eq!(Exit::from(&Error::Busy("x".into())).code(), 1);
    }
}
