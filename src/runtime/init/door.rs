//! The way of an ordinary user's `exec` into a container that waits for its start.
//!
//! Its init is this program still, hidden from all that runs inside (CVE-2016-9962) and with that from its own user, to whom the kernel
//! gives the namespaces of no hidden process. So init hands them out itself, by a socket in the directory of the container's state,
//! which is its user's alone. Nothing of the host's goes this way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketFlags, SocketType};

use super::super::console;
use super::exec::PATIENCE;
use crate::error::{During, Error, Result};
use crate::files::{self, socket};
use crate::namespaces::Kind;

/// How many may wait to be answered.
const BACKLOG: i32 = 16;

/// Makes the socket, for the container's init.
pub(super) fn make(path: &Path) -> Result<OwnedFd> {
    let socket = socket::listen(path, SocketType::STREAM, SocketFlags::empty(), BACKLOG)?;
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())
        .during(|| format!("close `{}` to others", path.display()))?;
    Ok(socket)
}

/// Init's side.
#[derive(Debug)]
pub(super) struct Door {
    socket: OwnedFd,
    namespaces: Vec<(Kind, OwnedFd)>,
}

impl Door {
    /// Opens this process's namespaces, while the host's `/proc` is in sight, which it is not from a mount namespace that was joined.
    pub(super) fn of_self(socket: OwnedFd, kinds: &[Kind]) -> Option<Self> {
        let open = |kind: &Kind| {
            let (path, flags) = (
                format!("/proc/self/ns/{}", kind.file()),
                OFlags::RDONLY | OFlags::CLOEXEC,
            );
            let namespace = rustix::fs::open(path, flags, Mode::empty());
            namespace.ok().map(|namespace| (*kind, namespace))
        };
        Some(Self {
            socket,
            namespaces: kinds.iter().map(open).collect::<Option<_>>()?,
        })
    }

    /// What it consists of.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let namespaces = self.namespaces.iter().map(|(_, fd)| fd.as_fd());
        namespaces.chain([self.socket.as_fd()])
    }

    /// Waits until the fifo can be read, and answers who asks meanwhile.
    pub(super) fn keep(self, fifo: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(fifo, PollFlags::IN),
                PollFd::new(&self.socket, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.during(|| "wait for start")?,
            };
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            match self.answer() {
                Ok(()) | Err(Errno::INTR | Errno::AGAIN | Errno::CONNABORTED) => {}
                // The machine may be out of descriptors: who asks hears of the end, and a start is still possible.
                Err(_) => return Ok(()),
            }
        }
    }

    fn answer(&self) -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let asking = rustix::net::accept_with(&self.socket, flags)?;
        for (kind, namespace) in &self.namespaces {
            // Who does not listen gets no more.
            if console::send_fd(asking.as_fd(), &[*kind as u8], namespace.as_fd()).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Asks the init of a container for these namespaces, which it has.
///
/// # Errors
/// [`Error::Status`] where it goes on to its start at this moment; the kernel's.
pub fn ask(path: &Path, kinds: &[Kind]) -> Result<Vec<(Kind, OwnedFd)>> {
    if !files::exists(path) {
        let why = "its filter has an agent: start the container first";
        return Err(Error::unsupported(
            "`exec` by an ordinary user in a container that has not been started",
            why,
        ));
    }
    let socket = console::connect(path)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut found = Vec::new();
    let mut number = [0];
    while let (1, Some(namespace)) =
        console::receive_message(socket.as_fd(), &mut number).during(|| "ask init for its namespaces")?
    {
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == number[0]);
        found.extend(kind.map(|kind| (kind, namespace)));
    }
    match found.iter().map(|(kind, _)| kind).eq(kinds) {
        true => Ok(found),
        false => Err(Error::Status(
            "cannot exec in a container that is just being started; try again".into(),
        )),
    }
}
