//! The way to the keeper: whoever answers the calls of a VPS leaves every listener there as well.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvFlags, SendFlags, SocketType};
use rustix::process::{PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::super::monitor::alone;
use super::super::resident;
use crate::error::{During, Error, Result};
use crate::files::socket;
use crate::runtime::console;
use crate::vps::record::name::Name;

/// What the keeper is told first: whose listeners these are to be from now on, or that nobody's are.
pub(super) const ANSWER: &str = "answer";
pub(super) const FORGET: &str = "forget";
/// What it says when it has given out what it had, or stays for others.
pub(super) const DONE: &[u8] = b".";
/// How long it may take for a word. One that has been stopped holds nobody up for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a connection is begun again: it may end on its own at the moment somebody comes.
const ATTEMPTS: u8 = 3;

/// A connection for one VPS.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    name: String,
    link: Option<OwnedFd>,
    /// The keeper, where this process has started it.
    child: Option<i32>,
}

/// Where the keeper listens: beside the folder that an instance's VPSs have their run directories in.
pub(super) fn socket_in(folder: &Path) -> PathBuf {
    folder.with_file_name("sysinfo.sock")
}

impl Kept {
    /// For the VPS whose filters send their listeners to the socket at `path`.
    pub(super) fn beside(path: &Path) -> Result<Self> {
        let nobody = || Error::Corrupt(format!("`{}` is in no VPS's run directory", path.display()));
        let own = path.parent().ok_or_else(nobody)?;
        let name = own.file_name().and_then(OsStr::to_str).ok_or_else(nobody)?;
        Ok(Self {
            folder: own.parent().ok_or_else(nobody)?.to_owned(),
            name: name.to_owned(),
            link: None,
            child: None,
        })
    }

    /// Says that this process answers from now on and writes down there what it answers, starting a keeper where there is none; what it had
    /// for the VPS.
    pub(super) fn begin(&mut self, underway: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
        let mut attempt = 1;
        loop {
            match self.try_to_begin(underway) {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    fn try_to_begin(&mut self, underway: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
        let link = match connect(&self.folder) {
            Ok(link) => link,
            Err(e) if is_missing(&e) => self.start()?,
            Err(e) => return Err(e),
        };
        console::send_fd(link.as_fd(), words(ANSWER, &self.name).as_bytes(), underway)?;
        let mut found = Vec::new();
        while let (1.., Some(fd)) = console::receive_message(link.as_fd(), &mut [0; 8])? {
            found.push(fd);
        }
        self.link = Some(link);
        Ok(found)
    }

    /// Several processes find at once that there is none; one starts it.
    fn start(&mut self) -> Result<OwnedFd> {
        if let Some(child) = self.child.take().and_then(rustix::process::Pid::from_raw) {
            // It is this process's to be waited for.
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
        let lock = rustix::fs::open(&self.folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        if let Ok(link) = connect(&self.folder) {
            return Ok(link);
        }
        let small = alone::beside();
        let program = small.as_deref().unwrap_or(Path::new(resident::OWN_PROGRAM));
        let words = [
            OsStr::new(super::super::monitor::CALLED),
            OsStr::new(alone::KEEP),
            self.folder.as_os_str(),
        ];
        let (child, said) = resident::start((program, &words), None, None)?;
        self.child = Some(child.pid);
        connect(&self.folder).during(|| format!("start a keeper of listeners: {}", said.trim()))
    }

    /// Leaves a listener there.
    pub(super) fn keep(&self, listener: BorrowedFd<'_>) {
        if let Some(link) = &self.link {
            // A keeper that has died is found out by the connection's end.
            let _ = console::send_fd(link.as_fd(), DONE, listener);
        }
    }

    /// The connection: it becomes readable at its end.
    pub(super) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// The keeper has died.
    pub(super) fn lost(&mut self) {
        self.link = None;
    }
}

/// Has the keeper of the VPSs in this folder forget a VPS that has ended, and waits for its end where it was the last one.
pub(super) fn forget(folder: &Path, name: &Name) {
    // None there is as good.
    let Ok(link) = connect(folder) else { return };
    let keeper = socket_peercred(&link).and_then(|keeper| pidfd_open(keeper.pid, PidfdFlags::empty()));
    let mut answer = [0; 8];
    let words = words(FORGET, name.as_str());
    let stays = rustix::net::send(&link, words.as_bytes(), SendFlags::NOSIGNAL).is_ok()
        && rustix::net::recv(&link, &mut answer, RecvFlags::empty()).is_ok_and(|(length, _)| length > 0);
    if let (false, Ok(keeper)) = (stays, keeper) {
        let mut fds = [PollFd::new(&keeper, PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Timespec::try_from(PATIENCE).ok().as_ref());
    }
}

/// Closes a listener that was watched. Whoever answers has it as well as the keeper, and a descriptor of another process keeps what is watched
/// there: the kernel would go on telling of it, by a number that the next listener may have by then (`epoll(7)`).
pub(super) fn leave(poll: &OwnedFd, listener: OwnedFd) {
    let _ = epoll::delete(poll, &listener);
    drop(listener);
}

fn connect(folder: &Path) -> Result<OwnedFd> {
    socket::connect(&socket_in(folder), SocketType::SEQPACKET, Some(PATIENCE))
}

/// Whether nobody listens there.
fn is_missing(e: &Error) -> bool {
    let none = [Errno::NOENT, Errno::CONNREFUSED];
    none.iter().any(|none| e.errno() == Some(none.raw_os_error()))
}

/// The first message of a connection.
fn words(what: &str, name: &str) -> String {
    format!("{what} {name}")
}
