//! The call that is being answered, where it is found when the process that answers was killed: the kernel gives a call out once, and its
//! caller would wait until a fatal signal comes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Result;
use crate::sys::seccomp::{self, Waiting};
use crate::sys::shared::SharedMemory;

/// More than the kernel writes of a call (`struct seccomp_notif`).
const LENGTH: usize = 128;

/// Where the process that answers takes calls.
#[derive(Debug)]
pub(super) struct Underway(SharedMemory);

impl Underway {
    /// A place for it, and the file of that for a process that is not cloned from this one.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let (memory, file) = SharedMemory::new("underway", LENGTH)?;
        Ok((Self(memory), file))
    }

    /// The next call of a listener. Of an answered one the kernel knows nothing more: that it stays here does no harm.
    pub(super) fn receive(&mut self, listener: BorrowedFd<'_>) -> std::io::Result<Waiting> {
        seccomp::receive_into(listener, &mut self.0)
    }

    /// Leaves to the kernel what was under way in the process that this one was cloned from.
    pub(super) fn give_up(&mut self, listeners: &[OwnedFd]) {
        let number = self.0.bytes().first_chunk();
        number
            .into_iter()
            .for_each(|number| leave_to_kernel(*number, listeners));
    }
}

/// Leaves to the kernel what was under way in the process that this file is from.
pub(super) fn give_up_noted(file: &OwnedFd, listeners: &[OwnedFd]) {
    let mut number = [0; 8];
    let _ = rustix::io::pread(file, &mut number, 0);
    leave_to_kernel(number, listeners);
}

/// The call's listener is found by trial: each filter counts its calls from a random number of 64 bits on (`init_listener` in
/// kernel/seccomp.c), so that another one knows nothing of this number.
fn leave_to_kernel(number: [u8; 8], listeners: &[OwnedFd]) {
    for listener in listeners {
        let _ = seccomp::answer(listener.as_fd(), u64::from_ne_bytes(number), None);
    }
}
