//! Sockets at a path (`unix(7)`), however long that is.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{open_dir, remove_file};
use crate::error::{During, Result};

/// The bytes of a path in `struct sockaddr_un`, without the one that ends it.
const LONGEST_ADDRESS: usize = 107;

/// Makes a socket that listens at `path`, in place of what an earlier one has left there; `waiting` is how many may wait to be answered.
///
/// # Errors
/// The kernel's, with the path.
pub fn listen(path: &Path, kind: SocketType, flags: SocketFlags, waiting: i32) -> Result<OwnedFd> {
    remove_file(path)?;
    let work = || -> Result<OwnedFd> {
        let (address, _dir) = address_of(path)?;
        let flags = flags | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&address)?)?;
        rustix::net::listen(&socket, waiting)?;
        Ok(socket)
    };
    work().during(|| format!("listen at `{}`", path.display()))
}

/// Connects a new socket to the one at `path`. With `patience`, this and each message by it takes no longer than that.
///
/// # Errors
/// The kernel's, with the path.
pub fn connect(path: &Path, kind: SocketType, patience: Option<Duration>) -> Result<OwnedFd> {
    let work = || -> Result<OwnedFd> {
        let (address, _dir) = address_of(path)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        if patience.is_some() {
            set_socket_timeout(&socket, Timeout::Recv, patience)?;
            set_socket_timeout(&socket, Timeout::Send, patience)?;
        }
        rustix::net::connect(&socket, &SocketAddrUnix::new(&address)?)?;
        Ok(socket)
    };
    work().during(|| format!("connect to socket `{}`", path.display()))
}

/// The path of a socket as its address can hold it, which has 107 bytes at most: a longer one leads through a descriptor of its
/// directory, and is good as long as that is open.
///
/// # Errors
/// The kernel's, for the directory.
pub fn address_of(path: &Path) -> Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= LONGEST_ADDRESS {
        return Ok((path.to_owned(), None));
    }
    let dir = open_dir(path.parent().unwrap_or(Path::new("/")))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    Ok((short.join(path.file_name().unwrap_or_default()), Some(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn a_socket_may_be_far_down() {
        let top = std::env::temp_dir().join(format!("condo-deep-{}", std::process::id()));
        let deep = top.join("d".repeat(LONGEST_ADDRESS));
        files::create_dir_all(&deep, 0o700).unwrap();
        for path in [top.join("socket"), deep.join("socket")] {
            let (stream, flags) = (SocketType::STREAM, SocketFlags::empty());
            let socket = listen(&path, stream, flags, 1).unwrap();
            connect(&path, stream, None).unwrap();
            drop(socket);
            let refused = connect(&path, stream, None).unwrap_err().to_string();
            assert!(refused.contains(&path.display().to_string()), "{refused}");
        }
        files::remove_tree(&top).unwrap();
        assert!(address_of(&deep.join("socket")).is_err());
    }
}
