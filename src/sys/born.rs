//! A program that is born in a cgroup: `clone3(2)` and `execve(2)`, with nothing in between that a process of several threads may
//! not do (`signal-safety(7)`): the memory allocator's lock may be held by a thread that is missing in the child.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::clone::{self, Side};

/// What ends a child that could not become its program, as in `posix_spawn(3)`.
const NO_PROGRAM: i32 = 127;

/// A program, its surroundings, and the cgroup2 directory it is born in.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'a> {
    /// The file.
    pub program: &'a CStr,
    /// Its arguments, its own name first.
    pub args: &'a [CString],
    /// Its environment, `NAME=value`.
    pub env: &'a [CString],
    /// Its standard input, output and error: descriptors above 2.
    pub streams: [BorrowedFd<'a>; 3],
    /// The cgroup; the caller's without.
    pub cgroup: Option<BorrowedFd<'a>>,
}

impl Birth<'_> {
    /// Starts the program, in the root directory: its pid and pidfd. A child that cannot become it ends with status 127.
    ///
    /// # Errors
    /// Those of [`clone::Clone::spawn`].
    pub fn give(&self) -> io::Result<(i32, OwnedFd)> {
        let args = pointers(self.args);
        let env = pointers(self.env);
        let side = clone::Clone {
            flags: 0,
            cgroup: self.cgroup,
        }
        .spawn()?;
        match side {
            Side::Child => self.become_program(&args, &env),
            Side::Parent { pid, pidfd } => Ok((pid, pidfd)),
        }
    }

    fn become_program(&self, args: &[*const libc::c_char], env: &[*const libc::c_char]) -> ! {
        for (to, from) in (0..).zip(self.streams) {
            // SAFETY: a system call on a descriptor that is open; nothing in this copy of the process has the other.
            unsafe { libc::dup2(from.as_raw_fd(), to) };
        }
        // SAFETY: a system call with a constant string.
        unsafe { libc::chdir(c"/".as_ptr()) };
        // SAFETY: both arrays end with a null pointer, and the strings they point to outlive this frame.
        unsafe { libc::execve(self.program.as_ptr(), args.as_ptr(), env.as_ptr()) };
        clone::exit(NO_PROGRAM)
    }
}

/// The array that `execve(2)` takes.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let all = strings.iter().map(|string| string.as_ptr());
    all.chain([std::ptr::null()]).collect()
}
