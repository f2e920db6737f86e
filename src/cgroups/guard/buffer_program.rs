//! Buffers of sockets that a cgroup's processes may not make larger, by an eBPF program (`BPF_CGROUP_SETSOCKOPT`).
//!
//! What waits in a socket for netlink, for raw packets or for those of an interface is counted by no memory limit, and the host's
//! `net.core.rmem_max`, 4 MB since Linux 6.18, is all that bounds it: a thousand sockets held 8 GB. Buffers of TCP and UDP are counted,
//! and stay as the host has them.
//!
//! The program gets a `struct bpf_sockopt` per `setsockopt(2)`. It may change the value that the kernel then takes.

use super::Cgroup;
use crate::error::Result;
use crate::sys::bpf::op::{
    ADD, EXIT, JUMP, JUMP_IF_AT_MOST, JUMP_IF_BEYOND, JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL, LOAD_LONG, LOAD_WORD,
    MOVE, MOVE_REGISTER, STORE_REGISTER, STORE_WORD,
};
use crate::sys::bpf::{Hook, instruction};

/// What the program is called.
const NAME: &str = "condo_buffers";
/// The most that may be asked for in bytes, which is what kernels before 6.18 give without privileges.
const MOST: i32 = 212_992;

/// `SOL_SOCKET`, and its options for the two buffers.
const SOCKET: i32 = 1;
const SEND_BUFFER: i32 = 7;
const RECEIVE_BUFFER: i32 = 8;
/// `AF_NETLINK`, `AF_PACKET` and `SOCK_RAW`.
const NETLINK: i32 = 16;
const PACKET: i32 = 17;
const RAW: i32 = 3;

// Fields of `struct bpf_sockopt`, and of the `struct bpf_sock` that it leads to.
const SK: i16 = 0;
const VALUE: i16 = 8;
const VALUE_END: i16 = 16;
const LEVEL: i16 = 24;
const OPTION: i16 = 28;
const LENGTH: i16 = 32;
const FAMILY: i16 = 4;
const TYPE: i16 = 8;

// Registers: the answer, the context, three to work with.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const FIRST: u8 = 2;
const SECOND: u8 = 3;
const THIRD: u8 = 4;

impl Cgroup {
    /// Keeps processes here from making those buffers larger than kernels do without privileges. A host without cgroup2 has no such
    /// fence, and nothing is done there.
    ///
    /// # Errors
    /// Of `bpf(2)`.
    pub fn guard_buffers(&self) -> Result<()> {
        self.guard(Hook::SocketOption, &program(), NAME, "buffers of sockets")
    }
}

fn program() -> [u64; 24] {
    // How far it is from an instruction, by its number, to the last part.
    const PLAIN: i16 = 20;
    let plain = |from: i16| PLAIN - from - 1;
    [
        instruction(LOAD_WORD, FIRST, CONTEXT, LEVEL, 0),
        instruction(JUMP_UNLESS_EQUAL, FIRST, 0, plain(1), SOCKET),
        instruction(LOAD_WORD, FIRST, CONTEXT, OPTION, 0),
        instruction(JUMP_IF_EQUAL, FIRST, 0, 1, SEND_BUFFER),
        instruction(JUMP_UNLESS_EQUAL, FIRST, 0, plain(4), RECEIVE_BUFFER),
        instruction(LOAD_LONG, FIRST, CONTEXT, SK, 0),
        instruction(LOAD_WORD, SECOND, FIRST, FAMILY, 0),
        instruction(JUMP_IF_EQUAL, SECOND, 0, 3, NETLINK),
        instruction(JUMP_IF_EQUAL, SECOND, 0, 2, PACKET),
        instruction(LOAD_WORD, SECOND, FIRST, TYPE, 0),
        instruction(JUMP_UNLESS_EQUAL, SECOND, 0, plain(10), RAW),
        // The kernel takes the first four bytes, whatever the length, and those below zero for very many.
        instruction(LOAD_LONG, FIRST, CONTEXT, VALUE, 0),
        instruction(LOAD_LONG, SECOND, CONTEXT, VALUE_END, 0),
        instruction(MOVE_REGISTER, THIRD, FIRST, 0, 0),
        instruction(ADD, THIRD, 0, 0, 4),
        instruction(JUMP_IF_BEYOND, THIRD, SECOND, plain(15), 0),
        instruction(LOAD_WORD, THIRD, FIRST, 0, 0),
        instruction(JUMP_IF_AT_MOST, THIRD, 0, plain(17), MOST),
        instruction(STORE_WORD, FIRST, 0, 0, MOST),
        instruction(JUMP, 0, 0, 2, 0),
        // Nothing is changed: a length of zero says so, also for values that are longer than the program can see.
        instruction(MOVE, FIRST, 0, 0, 0),
        instruction(STORE_REGISTER, CONTEXT, FIRST, LENGTH, 0),
        instruction(MOVE, ANSWER, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}
