//! Programs of network interfaces, in the order in which they see packets (`BPF_TCX_INGRESS`, Linux 6.6).

use std::io;
use std::os::fd::BorrowedFd;

use super::{PROG_ATTACH, PROG_DETACH, PROG_QUERY, bpf, number};

/// The kernel's own limit on programs at one side of an interface (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;
// Flags of `linux/bpf.h`.
const REPLACE: u32 = 4;
const BEFORE: u32 = 8;
const AFTER: u32 = 16;

/// Which packets of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those that come in by it.
    In,
    /// Those that go out by it.
    Out,
}

impl Side {
    /// `enum bpf_attach_type`.
    fn place(self) -> u32 {
        match self {
            Self::In => 46,
            Self::Out => 47,
        }
    }
}

/// Where in the order a program comes.
#[derive(Debug, Clone, Copy)]
pub enum Seat<'a> {
    /// Before all that are there.
    First,
    /// Behind all that are there.
    Last,
    /// Where this one is, which goes. There is no moment without either.
    Of(BorrowedFd<'a>),
}

/// What is at one side of an interface.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Their ids, in their order.
    pub ids: Vec<u32>,
    /// Counts changes.
    pub revision: u64,
}

/// The part of `union bpf_attr` that `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` need.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// The part that `BPF_PROG_QUERY` needs, all of it: the kernel writes to the last field.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// What is there, at an interface of the caller's network namespace.
///
/// # Errors
/// `EINVAL` where the kernel has no such lists, `ENODEV` without such an interface.
pub fn programs(link: u32, side: Side) -> io::Result<Programs> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_ifindex: link,
        attach_type: side.place(),
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(Programs {
        ids,
        revision: attributes.revision,
    })
}

/// Puts a program there, unless others were put or taken away since this revision. It stays as long as the interface.
///
/// # Errors
/// `ESTALE` for another revision, `EINVAL` where the kernel has no such lists.
pub fn attach(
    link: u32,
    side: Side,
    program: BorrowedFd<'_>,
    seat: Seat<'_>,
    revision: u64,
) -> io::Result<()> {
    let (attach_flags, replace_bpf_fd) = match seat {
        Seat::First => (BEFORE, 0),
        Seat::Last => (AFTER, 0),
        Seat::Of(other) => (REPLACE, number(other)),
    };
    let mut attributes = Attach {
        target_ifindex: link,
        attach_bpf_fd: number(program),
        attach_type: side.place(),
        attach_flags,
        replace_bpf_fd,
        relative_fd: 0,
        expected_revision: revision,
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Takes a program away.
///
/// # Errors
/// `ENOENT` when it is not there.
pub fn detach(link: u32, side: Side, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target_ifindex: link,
        attach_bpf_fd: number(program),
        attach_type: side.place(),
        ..Attach::default()
    };
    bpf(PROG_DETACH, &mut attributes).map(drop)
}
