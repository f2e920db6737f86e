//! The call that is being answered, in a file that is read when the process that answers was killed: the kernel gives a call out once, and
//! its caller would wait until a fatal signal comes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::Result;
use crate::sys;

/// How many calls may have been taken and not written down, at most: a process answers one after the other.
const NOT_YET_NOTED: u64 = 1;

/// Shared by the process that answers and one that outlives it.
#[derive(Debug)]
pub(super) struct Underway(OwnedFd);

impl Underway {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(memfd_create("underway", MemfdFlags::CLOEXEC)?))
    }

    /// Of an answered call the kernel knows nothing more: that it stays written here does no harm.
    pub(super) fn note(&self, id: u64) {
        let _ = rustix::io::pwrite(&self.0, &id.to_ne_bytes(), 0);
    }

    /// Leaves the call to the kernel. Its listener is found by trial: each filter counts its calls from a random number of 64 bits on
    /// (`init_listener` in kernel/seccomp.c), so that another one knows nothing of this number.
    pub(super) fn give_up(&self, listeners: &[OwnedFd]) {
        let mut id = [0; 8];
        let _ = rustix::io::pread(&self.0, &mut id, 0);
        let noted = u64::from_ne_bytes(id);
        for listener in listeners {
            for further in 0..=NOT_YET_NOTED {
                let _ = sys::seccomp::answer(listener.as_fd(), noted.wrapping_add(further), None);
            }
        }
    }
}

impl From<OwnedFd> for Underway {
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

impl AsFd for Underway {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
