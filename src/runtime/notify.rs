//! Seccomp's user notification: the listener goes to the caller's socket with the spec's "container process state".

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;

use super::console;
use crate::error::{Error, Result};

/// A connection to the listener's receiver, made while the host's paths are still in sight.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    metadata: Option<String>,
    state: serde_json::Value,
}

impl Listener {
    /// Connects where the profile says; `None` for a profile without a `listenerPath`.
    ///
    /// `state` is the container's OCI state, to be sent along.
    pub fn connect(profile: &LinuxSeccomp, state: &[u8]) -> Result<Option<Self>> {
        let Some(path) = profile.listener_path() else {
            return Ok(None);
        };
        if !path.is_absolute() {
            return Err(Error::invalid(
                "linux.seccomp.listenerPath",
                path.display(),
                "must be an absolute path",
            ));
        }
        Ok(Some(Self {
            socket: console::connect(Path::new(path))?,
            metadata: profile.listener_metadata().clone(),
            state: serde_json::from_slice(state)?,
        }))
    }

    /// Sends the listener of the process `pid`. The filter is in force by now, so it has to allow `sendmsg(2)`.
    pub fn send(&self, listener: BorrowedFd<'_>, pid: i32) -> Result<()> {
        let mut state = self.state.clone();
        state["pid"] = json!(pid);
        let mut message =
            json!({ "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "state": state });
        if let Some(metadata) = &self.metadata {
            message["metadata"] = json!(metadata);
        }
        console::send_fd(
            std::os::fd::AsFd::as_fd(&self.socket),
            message.to_string().as_bytes(),
            listener,
        )
    }
}
