//! One run of the `criu` program, and the conversation with it over a socket.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow};
use prost::Message;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType,
};
use rustix::process::{Signal, WaitIdStatus};

use super::super::console;
use super::super::init::Newborn;
use super::rpc::{Features, Kind, Request, Response};
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::process::program::Program;
use crate::sys;
use crate::sys::clone::{Clone, Side};

/// The first version that takes external pid namespaces, reports `status-ready`, and freezes cgroups of v2 (3.14).
pub(super) const OLDEST: (i32, i32) = (3, 15);
/// The first version that puts another LSM profile in the saved one's place.
pub(super) const OLDEST_FOR_LSM: (i32, i32) = (3, 16);
/// More than any message of CRIU's.
const MAX_MESSAGE: usize = 64 * 1024;

/// CRIU in its mode for one request (`criu swrk`). Dropped, it is killed if it still runs.
#[derive(Debug)]
pub(super) struct Criu {
    process: Newborn,
    socket: OwnedFd,
    /// Handles to [`Birth::folders`].
    pub(super) folders: Vec<OwnedFd>,
}

/// Where and how CRIU comes to be.
#[derive(Default)]
pub(super) struct Birth<'a> {
    /// Namespaces of its own (`CLONE_NEW*`).
    pub(super) namespaces: u64,
    /// The cgroup it is in.
    pub(super) cgroup: Option<&'a Cgroup>,
    /// Descriptors that it gets under the same numbers.
    pub(super) inherited: &'a [BorrowedFd<'a>],
    /// Directories it works in. Requests name them by our descriptors, but CRIU mounts below them, which the kernel allows only
    /// for a descriptor out of its own mount namespace: so CRIU's process opens them and hands them to us.
    pub(super) folders: &'a [&'a Path],
    /// Done in the new process before it becomes CRIU.
    pub(super) prepare: Option<&'a dyn Fn() -> Result<()>>,
}

/// A notification.
#[derive(Debug)]
pub(super) struct Notice {
    /// The point that was reached.
    pub(super) script: String,
    /// The process it is about: the container's init.
    pub(super) pid: i32,
    /// A descriptor that came along (the master of a terminal).
    pub(super) fd: Option<OwnedFd>,
}

impl Criu {
    /// Starts CRIU.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without the program.
    pub(super) fn start(birth: &Birth<'_>) -> Result<Self> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let program = find(&theirs)?;
        let process = in_child(birth.namespaces, birth.cgroup, || {
            birth.prepare.map_or(Ok(()), |prepare| prepare())?;
            for path in birth.folders {
                console::send_fd(theirs.as_fd(), b"folder", open(path)?.as_fd())?;
            }
            for fd in birth.inherited.iter().copied().chain([theirs.as_fd()]) {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Err(program.exec())
        })?;
        let mut criu = Self {
            process,
            socket,
            folders: Vec::new(),
        };
        for _ in birth.folders {
            let folder = console::receive_fd(criu.socket.as_fd())?;
            criu.folders.push(folder);
        }
        Ok(criu)
    }

    /// Its pid.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Sends a request and attends to notifications until it is answered. A notification that cannot be dealt with makes CRIU
    /// give up, and its error is what is returned.
    pub(super) fn ask(
        &self,
        request: &Request,
        attend: &mut dyn FnMut(Notice) -> Result<()>,
    ) -> Result<Response> {
        self.ask_while(request, attend, &|_| Ok(()))
    }

    /// As [`Criu::ask`]; `wait` is called with the socket before each message, and its error ends the conversation.
    pub(super) fn ask_while(
        &self,
        request: &Request,
        attend: &mut dyn FnMut(Notice) -> Result<()>,
        wait: &dyn Fn(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        let mut refused = None;
        loop {
            wait(self.socket.as_fd())?;
            let (response, fd) = match self.receive() {
                Err(e) => return Err(refused.unwrap_or(e)),
                Ok(received) => received,
            };
            let Some(notify) = response
                .notify
                .clone()
                .filter(|_| response.kind == Kind::Notify as i32)
            else {
                return match refused {
                    Some(e) => Err(e),
                    None if response.success => Ok(response),
                    None => Err(failure(&response)),
                };
            };
            log::debug!("criu: {}", notify.script);
            let attended = attend(Notice {
                script: notify.script,
                pid: notify.pid,
                fd,
            });
            let told = self.send(&Request {
                kind: Kind::Notify as i32,
                notify_success: Some(attended.is_ok()),
                ..Request::default()
            });
            refused = refused.or(attended.err());
            // One that has ended meanwhile hears nothing any more; why it was to give up is what counts.
            if let Err(e) = told {
                return Err(refused.unwrap_or(e));
            }
        }
    }

    /// Waits for its end when it has answered: it still has work to do, such as letting go of what it froze.
    pub(super) fn finish(self) -> Result<()> {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        self.process.reap()
    }

    fn send(&self, request: &Request) -> Result<()> {
        rustix::net::send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL)
            .map(drop)
            .during(|| "speak with criu")
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.during(|| "listen to criu")?,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Err(Error::Init("criu ended without an answer".into()));
        }
        let whole = !received.flags.contains(ReturnFlags::TRUNC);
        match Response::decode(&bytes[..received.bytes]) {
            Ok(response) if whole => Ok((response, fd)),
            _ => Err(Error::Corrupt(
                "criu said something that is no message of its protocol".into(),
            )),
        }
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        if let Err(e) = self.process.kill() {
            log::debug!("{e}");
        }
    }
}

/// Refuses a CRIU that is older than `oldest`.
pub(super) fn check_version(oldest: (i32, i32)) -> Result<()> {
    let request = Request {
        kind: Kind::Version as i32,
        ..Request::default()
    };
    let response = Criu::start(&Birth::default())?
        .ask(&request, &mut |_| Ok(()))
        .during(|| "ask criu for its version")?;
    let version = response
        .version
        .ok_or_else(|| Error::Corrupt("criu does not tell its version".into()))?;
    if (version.major, version.minor) >= oldest {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("criu {}.{}.{}", version.major, version.minor, version.sublevel),
        format!("install {}.{} or newer", oldest.0, oldest.1),
    ))
}

/// Refuses what this CRIU on this kernel cannot do.
pub(super) fn check_features(flag: &str, wanted: Features) -> Result<()> {
    let request = Request {
        kind: Kind::FeatureCheck as i32,
        features: Some(wanted),
        ..Request::default()
    };
    let response = Criu::start(&Birth::default())?
        .ask(&request, &mut |_| Ok(()))
        .during(|| "ask criu what it can do")?;
    let found = response.features.unwrap_or_default();
    let lacks = |wanted: Option<bool>, found: Option<bool>| wanted == Some(true) && found == Some(false);
    let missing = [
        (
            lacks(wanted.mem_track, found.mem_track),
            "tracking of changed memory",
        ),
        (
            lacks(wanted.lazy_pages, found.lazy_pages),
            "fetching memory late (userfaultfd)",
        ),
    ];
    match missing.iter().find(|(missing, _)| *missing) {
        None => Ok(()),
        Some((_, what)) => Err(Error::unsupported(
            format!("`{flag}`"),
            format!("criu or the kernel has no {what}; leave it out"),
        )),
    }
}

fn open(folder: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, folder, flags, Mode::empty()).during(|| format!("open `{}`", folder.display()))
}

fn find(socket: &OwnedFd) -> Result<Program> {
    let line = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    let env: Vec<OsString> = std::env::vars_os().map(line).collect();
    let args = ["criu", "swrk", &socket.as_raw_fd().to_string()].map(OsString::from);
    Program::find(&args, &env).map_err(|e| {
        let (major, minor) = OLDEST;
        Error::unsupported(
            "checkpoint and restore",
            format!("{e}; install CRIU {major}.{minor} or newer (the package `criu`)"),
        )
    })
}

/// In one line. Names in it are the container's: nothing in them may act on a terminal.
pub(super) fn plain(text: &str) -> String {
    text.trim().replace(char::is_control, "?")
}

fn failure(response: &Response) -> Error {
    let why = match (&response.message, response.errno) {
        (Some(message), _) if !message.trim().is_empty() => format!(": {}", plain(message)),
        (_, Some(errno)) if errno != 0 => format!(": {}", nix::errno::Errno::from_raw(errno).desc()),
        _ => String::new(),
    };
    Error::Init(format!("criu failed{why}"))
}

/// Refuses callers that CRIU would not work for.
pub(super) fn check_caller(host: &Host, command: &str) -> Result<()> {
    if host.caller.privileged {
        return Ok(());
    }
    let why = "CRIU works for the machine's root only; call condo-runtime as root";
    Err(Error::unsupported(format!("`{command}`"), why))
}

/// Runs `work` in a new process, and waits until that has ended well. It does not outlive us.
pub(super) fn to_its_end(namespaces: u64, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let helper = in_child(namespaces, None, || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        work()
    })?;
    helper.end()?.map_or(Ok(()), |status| match status.exit_status() {
        Some(0) => Ok(()),
        _ => Err(died(&status)),
    })
}

fn died(status: &WaitIdStatus) -> Error {
    Error::Init(match status.terminating_signal() {
        Some(signal) => format!("a helper process died of signal {signal}"),
        None => "a helper process failed".into(),
    })
}

/// Runs `work` in a new process, and returns when that has become another program or has ended; what went wrong until then is
/// the error.
pub(super) fn in_child(
    namespaces: u64,
    cgroup: Option<&Cgroup>,
    work: impl FnOnce() -> Result<()>,
) -> Result<Newborn> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let clone = Clone {
        flags: namespaces,
        cgroup: cgroup.and_then(Cgroup::birth),
    };
    match clone.spawn().during(|| "make a process for criu")? {
        Side::Child => {
            let done = cgroup.map_or(Ok(()), Cgroup::enter).and_then(|()| work());
            if let Err(e) = &done {
                let _ = rustix::io::write(&write, e.to_string().as_bytes());
            }
            sys::clone::exit(i32::from(done.is_err()))
        }
        Side::Parent { pid, pidfd } => {
            drop(write);
            let child = Newborn { pid, pidfd };
            let mut said = String::new();
            let heard = std::io::Read::read_to_string(&mut std::fs::File::from(read), &mut said);
            match heard {
                Ok(0) => Ok(child),
                other => {
                    child.kill()?;
                    other?;
                    Err(Error::Init(said))
                }
            }
        }
    }
}
