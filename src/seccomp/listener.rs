//! The seccomp agent of a profile: who gets the descriptor that calls with action NOTIFY are reported to.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{ContainerProcessState, LinuxSeccomp, LinuxSeccompAction};

use crate::error::{During, Error, Result};

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

    /// Sends the descriptor with the container's state to the agent (runtime-spec, "Container Process State").
    ///
    /// `state.fds` must name the descriptor, as the only one: `seccompFd`. The sender may close its copy afterwards.
    ///
    /// # Errors
    /// When nobody listens at the path, or the message is not taken whole.
    pub fn send(&self, state: &ContainerProcessState, listener: BorrowedFd<'_>) -> Result<()> {
        let send = || -> Result<()> {
            let message = serde_json::to_vec(state)?;
            let stream = UnixStream::connect(&self.path)?;
            let fds = [listener.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&fds)];
            let parts = [IoSlice::new(&message)];
            let sent = sendmsg::<()>(stream.as_raw_fd(), &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?;
            // The rest of a message longer than the socket's buffer goes without the descriptor.
            let rest = message.get(sent..).unwrap_or_default();
            Ok(std::io::Write::write_all(&mut &stream, rest)?)
        };
        send().during(|| format!("send the seccomp listener to `{}`", self.path.display()))
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
    if path(profile).is_some() {
        return Ok(());
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
