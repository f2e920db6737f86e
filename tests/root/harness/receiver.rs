//! A socket to which descriptors are handed over: terminals, pidfds, seccomp's listeners.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::Context;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// The side that is handed something.
pub struct Receiver {
    path: PathBuf,
    listener: UnixListener,
}

impl Receiver {
    /// One that listens in a directory of this test.
    pub fn new() -> anyhow::Result<Self> {
        let path = super::tempdir().join("socket");
        let listener = UnixListener::bind(&path)?;
        Ok(Self { path, listener })
    }

    /// Where it listens.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// The next descriptor, whatever is said of it.
    pub fn descriptor(&self) -> anyhow::Result<OwnedFd> {
        Ok(self.receive()?.1)
    }

    /// The next descriptor, and what is said of it in JSON.
    pub fn described<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<(T, OwnedFd)> {
        let (text, fd) = self.receive()?;
        Ok((serde_json::from_slice(&text)?, fd))
    }

    fn receive(&self) -> anyhow::Result<(Vec<u8>, OwnedFd)> {
        let (stream, _) = self.listener.accept()?;
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(&stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        let fd = fd.context("no descriptor")?;
        bytes.truncate(got.bytes);
        Ok((bytes, fd))
    }
}
