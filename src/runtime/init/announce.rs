//! Telling the caller which process it is: the pid file and the pidfd socket.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::console;
use super::Newborn;
use crate::error::{During, Result};
use crate::files;

/// Tells the caller who the process is: the file appears whole, with digits only.
pub fn announce(process: &Newborn, pid_file: Option<&Path>, pidfd_socket: Option<&Path>) -> Result<()> {
    if let Some(path) = pidfd_socket {
        let socket = console::connect(path)?;
        console::send_fd(socket.as_fd(), b"pidfd", process.pidfd.as_fd())?;
    }
    match pid_file {
        Some(path) => files::write_atomic(&absolute(path)?, process.pid.to_string().as_bytes(), 0o644),
        None => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).during(|| format!("--pid-file `{}`", path.display()))
}
