//! `clone3(2)`: a child in new namespaces, straight into its cgroup, with a pidfd.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// `CLONE_INTO_CGROUP`: the child starts in the cgroup of [`Clone::cgroup`]. Spelled out: the constant of `libc` overflows its type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// `CLONE_PARENT`: the new process becomes a sibling of the caller.
pub const PARENT: u64 = libc::CLONE_PARENT as u64;

/// `CLONE_FILES`: the new process has the caller's table of descriptors, and what one opens or closes, the other has or has not.
pub const SHARED_FILES: u64 = libc::CLONE_FILES as u64;

/// What the child is to be.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` flags, and `CLONE_PARENT` where the caller's parent shall be the child's.
    pub flags: u64,
    /// The cgroup2 directory the child is born in, which saves the 5 to 16 ms that a write to `cgroup.procs` waits.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the clone is running.
#[derive(Debug)]
pub enum Side {
    /// The new process. It must end in `execve` or `_exit` and never return into the caller's frames.
    Child,
    /// The old process, with the child's pid (in the caller's pid namespace) and pidfd.
    Parent {
        /// The child's pid.
        pid: i32,
        /// The child's pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
}

impl Clone<'_> {
    /// Clones the process; with no memory-sharing flag the child has a copy of everything, like after `fork(2)`.
    ///
    /// # Errors
    /// `EBUSY` or `EOPNOTSUPP` for a cgroup that cannot hold processes, `EPERM`, `ENOSPC` (namespace limits), `EAGAIN` (pids limit).
    pub fn spawn(&self) -> io::Result<Side> {
        let mut pidfd: libc::c_int = -1;
        let mut args = libc::clone_args {
            flags: self.flags | libc::CLONE_PIDFD as u64,
            pidfd: std::ptr::from_mut(&mut pidfd) as u64,
            child_tid: 0,
            parent_tid: 0,
            // The kernel takes the parent's for a sibling and refuses another.
            exit_signal: if self.flags & PARENT == 0 {
                libc::SIGCHLD as u64
            } else {
                0
            },
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: 0,
        };
        if let Some(cgroup) = self.cgroup {
            args.flags |= INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: the arguments outlive the call and share no memory with the child, so both sides go on with their own copy
        // of this frame. condo has no other thread at this point, so no lock is held by somebody who is missing in the child.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        match check(result)? {
            0 => Ok(Side::Child),
            pid => {
                // SAFETY: the kernel stored a fresh descriptor, which nobody else owns.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Side::Parent {
                    pid: i32::try_from(pid).map_err(io::Error::other)?,
                    pidfd,
                })
            }
        }
    }
}

/// Ends a cloned child at once, without running the destructors and exit handlers it shares with its parent.
pub fn exit(status: i32) -> ! {
    // SAFETY: never returns; nothing of this process is needed any more.
    unsafe { libc::_exit(status) }
}
