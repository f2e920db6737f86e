//! The seccomp agent of a profile: who gets the descriptor that calls with action NOTIFY are reported to.

use std::borrow::Cow;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{
    ContainerProcessState, LinuxSeccomp, LinuxSeccompAction, SECCOMP_FD_NAME, Spec, State,
};
use rustix::net::SocketType;
use seccompiler::sock_filter;

use super::vps::without_agent;
use crate::error::{During, Error, Result};
use crate::files::socket;
use crate::sys::seccomp as sys;

/// `BPF_RET | BPF_K` with `SECCOMP_RET_ALLOW`: a filter of one instruction.
const ALLOW_ALL: sock_filter = sock_filter {
    code: 0x06,
    jt: 0,
    jf: 0,
    k: 0x7fff_0000,
};

/// Where the listener's descriptor goes, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `listenerPath`: the agent's UNIX stream socket, on the host.
    pub path: PathBuf,
    /// `listenerMetadata`: for the agent's eyes, to become [`ContainerProcessState`]'s `metadata`.
    pub metadata: Option<String>,
}

impl Listener {
    /// The agent of a profile that has entries with action NOTIFY; without such entries `listenerPath` is ignored.
    pub fn of(profile: &LinuxSeccomp) -> Option<Self> {
        let notify = |s: &oci_spec::runtime::LinuxSyscall| s.action() == LinuxSeccompAction::ScmpActNotify;
        profile.syscalls().iter().flatten().find(|s| notify(s))?;
        Some(Self {
            path: path(profile)?.clone(),
            metadata: profile.listener_metadata().clone(),
        })
    }

    /// That of a container's profile.
    pub fn of_spec(spec: &Spec) -> Option<Self> {
        Self::of(spec.linux().as_ref()?.seccomp().as_ref()?)
    }

    /// Connects to the agent: to be done while the host's paths are in sight, long before there is a descriptor to send.
    ///
    /// # Errors
    /// When nobody listens at the path.
    pub fn connect(&self) -> Result<Agent> {
        let stream = socket::connect(&self.path, SocketType::STREAM, None)
            .during(|| "failed to connect with seccomp agent")?;
        Ok(self.at(stream.into()))
    }

    /// The agent at the other end of a connection.
    pub fn at(&self, stream: UnixStream) -> Agent {
        Agent {
            stream,
            metadata: self.metadata.clone(),
        }
    }
}

/// The profile of a further process, and a connection to its agent where it has one.
#[derive(Debug)]
pub struct Answered<'p> {
    /// The profile.
    pub profile: Cow<'p, LinuxSeccomp>,
    /// Who is asked.
    pub agent: Option<Agent>,
}

impl<'p> Answered<'p> {
    /// By the agent that it names.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn by_agent(profile: &'p LinuxSeccomp) -> Result<Self> {
        let agent = Listener::of(profile)
            .map(|listener| listener.connect())
            .transpose()?;
        Ok(Self {
            profile: Cow::Borrowed(profile),
            agent,
        })
    }

    /// By that agent; by the kernel where it is not there, or somebody else is asked about ours.
    pub fn by_agent_or_kernel(profile: &'p LinuxSeccomp) -> Self {
        let own = Self::by_agent(profile).ok();
        let own = own.filter(|own| own.agent.is_none() || can_ask());
        own.unwrap_or_else(|| Self {
            profile: Cow::Owned(without_agent(profile)),
            agent: None,
        })
    }
}

/// Whether a filter with a listener can be installed: the kernel has one listener for a process, and who started this one under a filter
/// may have it.
pub fn can_ask() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    if mode.is_some_and(|mode| mode.trim() == "0") {
        return true;
    }
    // A thread's filters are its own and end with it.
    let attempt = std::thread::spawn(|| sys::set_filter(&[ALLOW_ALL], sys::NEW_LISTENER).is_ok());
    attempt.join().unwrap_or(false)
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    metadata: Option<String>,
}

impl AsFd for Agent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Agent {
    /// Sends the descriptor of the process `pid` (as the runtime sees it) with the container's state, as the runtime spec's
    /// "Container Process State". The sender closes its copy afterwards.
    ///
    /// The filter may be in force by now: it has to allow `sendmsg(2)` and `write(2)`.
    ///
    /// # Errors
    /// When the message is not taken whole.
    pub fn send(&self, state: &State, pid: i32, listener: BorrowedFd<'_>) -> Result<()> {
        let mut about = ContainerProcessState::default();
        about
            .set_version(state.version().clone())
            .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
            .set_pid(pid)
            .set_metadata(self.metadata.clone())
            .set_state(state.clone());
        let send = || -> Result<()> {
            let message = serde_json::to_vec(&about)?;
            let fds = [listener.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&fds)];
            let (socket, parts) = (self.stream.as_raw_fd(), [IoSlice::new(&message)]);
            let sent = sendmsg::<()>(socket, &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?;
            // The rest of a message longer than the socket's buffer goes without the descriptor.
            let rest = message.get(sent..).unwrap_or_default();
            Ok(std::io::Write::write_all(&mut &self.stream, rest)?)
        };
        send().during(|| "send the seccomp listener to its agent")
    }
}

fn path(profile: &LinuxSeccomp) -> Option<&PathBuf> {
    profile
        .listener_path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty())
}

/// Refuses a listener without a place to go to: every call with action NOTIFY would wait for ever.
pub(super) fn check(profile: &LinuxSeccomp, notify: bool) -> Result<()> {
    match path(profile) {
        Some(path) if path.is_relative() => {
            let problem = "must be an absolute path";
            return Err(Error::invalid(
                "linux.seccomp.listenerPath",
                path.display(),
                problem,
            ));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    if notify {
        let problem = "must name the agent's socket, because an entry has action `SCMP_ACT_NOTIFY`";
        return Err(Error::invalid("linux.seccomp.listenerPath", "", problem));
    }
    match profile.listener_metadata() {
        Some(metadata) if !metadata.is_empty() => {
            let problem = "has no meaning without `listenerPath`";
            Err(Error::invalid(
                "linux.seccomp.listenerMetadata",
                metadata,
                problem,
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_who_is_asked() {
        // What a thread installs is its own.
        let seen = std::thread::spawn(|| {
            let listener = sys::set_filter(&[ALLOW_ALL], sys::NEW_LISTENER);
            (listener.is_ok(), can_ask())
        });
        let (installed, another) = seen.join().unwrap();
        assert!(!(installed && another));
    }
}
