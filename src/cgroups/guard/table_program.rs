//! Tables of the network that a cgroup's processes may make long, bounded by eBPF programs of the kind `BPF_LSM_CGROUP` (Linux 6.0).
//!
//! Neighbours, next hops, classes of traffic and others are counted by no memory limit, and each namespace's root makes as many as it
//! likes. A filter of system calls does not see what a message of netlink asks for; what security modules are asked does. So each
//! request that makes something is charged by what the kernel takes for the largest thing that it can ask for, and those beyond a
//! budget fail with `ENOSPC`. What is taken away again is not credited: whether a request to remove something finds it, nobody says.
//!
//! Three ways lead to such tables: netlink, which has a program for what is sent; `SIOCSARP`; multicast routes by `setsockopt(2)`.
//! All three share one map of one element, `struct { u64 spent, budget; }`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::Cgroup;
use crate::error::{During, Error, Result};
use crate::files;
use crate::host::kernel_types;
use crate::sys::bpf::assembly::Assembly;
use crate::sys::bpf::op::{
    ADD, ADD_REGISTER, AND, CALL, EXIT, FETCH, FETCH_AND_ADD, JUMP_IF_AT_MOST, JUMP_IF_BELOW, JUMP_IF_BEYOND,
    LOAD_BYTE, LOAD_HALF, LOAD_LONG, LOAD_WORD, MOVE, MOVE_LONG, MOVE_REGISTER, NEGATE, SHIFT_LEFT,
    STORE_WORD, SUBTRACT_REGISTER,
};
use crate::sys::bpf::{self, Hook, map};

/// What the programs and their map are called.
const NAME: &str = "condo_tables";

/// The security modules that are asked, where securityfs is mounted.
const MODULES: &str = "/sys/kernel/security/lsm";
/// Functions that ask security modules: about a message of netlink, an `ioctl`, one of a 32-bit program (kernels that ask apart), and
/// an option of a socket.
const FUNCTIONS: [&str; 4] = [
    "bpf_lsm_netlink_send",
    "bpf_lsm_file_ioctl",
    "bpf_lsm_file_ioctl_compat",
    "bpf_lsm_socket_setsockopt",
];
/// Where the programs look.
const FIELDS: [(&str, &str); 3] = [("sk_buff", "data"), ("sk_buff", "len"), ("sock", "sk_protocol")];

// What things cost, in bytes: measured on Linux 6.18 and rounded up.
const NEIGHBOUR: i32 = 512;
const NAMESPACE: i32 = 256;
const NEXT_HOP: i32 = 512;
/// A table of one with `fq_codel` or `cake` as they are by default has a megabyte at most.
const QUEUE: i32 = 1 << 20;
/// A group of next hops with as many buckets as it can have: that it has none is not looked for.
const GROUP: i32 = 5 << 20;
/// All VLANs at once, at a port of a bridge.
const VLANS: i32 = 1 << 19;
const MULTICAST_ROUTE: i32 = 1024;
/// A class, a filter, and whatever else there is.
const OTHER: i32 = 4096;

/// Messages of one `sendmsg(2)` that are looked at: there may be no more. Programs send 128 at most.
const MOST: i32 = 256;

// Protocols of netlink.
const ROUTE: i32 = 0;
const XFRM: i32 = 6;
const GENERIC: i32 = 16;

// Requests of `rtnetlink(7)`. Their last two bits say whether something is made, removed, asked about or set.
const NEW_LINK: i32 = 16;
const SET_LINK: i32 = 19;
const NEW_ADDRESS: i32 = 20;
const NEW_ROUTE: i32 = 24;
const NEW_NEIGHBOUR: i32 = 28;
const NEW_RULE: i32 = 32;
const NEW_QUEUE: i32 = 36;
const NEW_NAMESPACE: i32 = 88;
const NEW_NEXT_HOP: i32 = 104;
/// A route that names one next hop is charged as memory, and not longer than this.
const PLAIN_ROUTE: i32 = 128;

/// What makes nothing is not longer than this: questions and removals of IPsec, questions of generic netlink, in bytes.
const SHORT_IPSEC: i32 = 128;
const SHORT_GENERIC: i32 = 64;

const AF_INET: i32 = 2;
const AF_BRIDGE: i32 = 7;
const AF_INET6: i32 = 10;

/// `SIOCSARP`.
const SET_NEIGHBOUR: i32 = 0x8955;
/// `IPPROTO_IP` and `IPPROTO_IPV6`; `MRT_ADD_MFC` and `MRT_ADD_MFC_PROXY`, which both have.
const LEVELS: [i32; 2] = [0, 41];
const ADD_MULTICAST_ROUTES: [i32; 2] = [204, 210];

// Functions of the kernel's for programs.
const LOOK_UP: i32 = 1;
const READ: i32 = 113;
const SET_ERROR: i32 = 187;
/// `BPF_PSEUDO_MAP_FD`.
const A_MAP: u8 = 1;
const ENOSPC: i32 = 28;

// Registers: the answer and the context, three to work with; those that calls leave alone; the frame.
const ANSWER: u8 = 0;
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const THIRD: u8 = 3;
const FOURTH: u8 = 4;
const FIFTH: u8 = 5;
const COUNT: u8 = 6;
const PLACE: u8 = 7;
const LEFT: u8 = 8;
const COST: u8 = 9;
const FRAME: u8 = 10;

// Places in the frame: `struct nlmsghdr` with the first word behind it, a key.
const MESSAGE: i16 = -24;
const LENGTH: i16 = MESSAGE;
const TYPE: i16 = MESSAGE + 4;
const FAMILY: i16 = MESSAGE + HEAD as i16;
const KEY: i16 = -32;
const HEAD: i32 = 16;

/// Places of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Message,
    Link,
    Made,
    Route,
    Other,
    Plain,
    Ipsec,
    Generic,
    Add,
    Option,
    Charge,
    Allow,
    Refuse,
}

/// Whether this kernel runs such programs.
///
/// # Errors
/// As of [`Cgroup::bound_tables`].
pub fn can_bound_tables() -> Result<()> {
    let modules = files::read_text(Path::new(MODULES));
    // Without this file system nobody knows, and programs that are never asked do no harm.
    if modules.is_ok_and(|names| names.trim().split(',').all(|name| name != "bpf")) {
        return Err(Error::unsupported(
            FUNCTIONS[0],
            "the kernel was started without `bpf` among its security modules (lsm=)",
        ));
    }
    let mut code = Assembly::<To>::default();
    code.op(MOVE, [ANSWER, 0], 0, 1);
    code.op(EXIT, [0, 0], 0, 0);
    let hook = Hook::Security(Found::look()?.netlink);
    bpf::load(hook, &code.finish(), NAME).during(|| "load a program as a security module")?;
    Ok(())
}

impl Cgroup {
    /// Bounds what processes here may make the kernel keep in tables of the network that no limit counts, in bytes.
    ///
    /// # Errors
    /// `Unsupported` where the kernel cannot: before Linux 6.0, or without `bpf` among its security modules or its own description.
    /// Those of `bpf(2)`: some kernels refuse such programs to everybody.
    pub fn bound_tables(&self, budget: u64) -> Result<()> {
        let found = Found::look()?;
        let ledger = ledger(budget).during(|| "make a map of what tables of the network take")?;
        let (messages, ioctls, options) = (
            messages(found.fields, ledger.as_fd()),
            ioctls(ledger.as_fd()),
            options(ledger.as_fd()),
        );
        let programs = [
            (Some(found.netlink), &messages),
            (found.others[0], &ioctls),
            (found.others[1], &ioctls),
            (found.others[2], &options),
        ];
        for (function, program) in programs {
            if let Some(id) = function {
                self.guard(Hook::Security(id), program, NAME, "tables of the network")?;
            }
        }
        Ok(())
    }
}

/// What of the kernel the programs need to know.
struct Found {
    netlink: u32,
    others: [Option<u32>; 3],
    fields: [i16; 3],
}

impl Found {
    fn look() -> Result<Self> {
        match kernel_types::find(FUNCTIONS, FIELDS)? {
            ([Some(netlink), others @ ..], [Some(data), Some(len), Some(protocol)]) => Ok(Self {
                netlink,
                others,
                fields: [data, len, protocol],
            }),
            _ => Err(Error::unsupported(
                FUNCTIONS[0],
                "the kernel was built without CONFIG_BPF_LSM",
            )),
        }
    }
}

/// A map in which nothing is spent.
fn ledger(budget: u64) -> io::Result<OwnedFd> {
    let ledger = map::create::<4, 16>(1, NAME)?;
    let mut value = [0; 16];
    value[8..].copy_from_slice(&budget.to_ne_bytes());
    map::set(ledger.as_fd(), [0_u8; 4], value)?;
    Ok(ledger)
}

/// What is sent by netlink: `netlink_send(struct sock *, struct sk_buff *)`.
fn messages([data, len, protocol]: [i16; 3], ledger: BorrowedFd<'_>) -> Vec<u64> {
    let mut code = Assembly::default();
    code.op(LOAD_LONG, [SECOND, FIRST], 0, 0);
    code.op(LOAD_LONG, [PLACE, FIRST], 8, 0);
    code.op(LOAD_WORD, [LEFT, PLACE], len, 0);
    code.op(LOAD_LONG, [PLACE, PLACE], data, 0);
    code.op(LOAD_HALF, [SECOND, SECOND], protocol, 0);
    // Zero, which the verifier does not see: it would follow each sum by itself.
    code.op(MOVE_REGISTER, [COST, LEFT], 0, 0);
    code.op(SUBTRACT_REGISTER, [COST, LEFT], 0, 0);
    code.op(MOVE, [COUNT, 0], 0, MOST);
    code.go_if(SECOND, &[ROUTE], To::Message);
    code.op(MOVE_REGISTER, [COST, LEFT], 0, 0);
    code.go_if(SECOND, &[XFRM], To::Ipsec);
    code.go_if(SECOND, &[GENERIC], To::Generic);
    code.go(To::Allow);
    next_message(&mut code);
    made(&mut code);
    add(&mut code);
    others(&mut code);
    charge(&mut code, ledger);
    code.finish()
}

/// Looks at a message as the kernel does (`netlink_rcv_skb`): one that is shorter than its head or longer than what is left ends it.
fn next_message(code: &mut Assembly<To>) {
    code.label(To::Message);
    code.jump(JUMP_IF_BELOW, [LEFT, 0], HEAD, To::Charge);
    code.go_if(COUNT, &[0], To::Refuse);
    code.op(ADD, [COUNT, 0], 0, -1);
    code.op(MOVE_REGISTER, [FIRST, FRAME], 0, 0);
    code.op(ADD, [FIRST, 0], 0, MESSAGE.into());
    code.op(MOVE, [SECOND, 0], 0, HEAD + 8);
    code.op(MOVE_REGISTER, [THIRD, PLACE], 0, 0);
    code.op(CALL, [0, 0], 0, READ);
    code.go_unless(ANSWER, 0, To::Refuse);
    code.op(LOAD_WORD, [FIRST, FRAME], LENGTH, 0);
    code.jump(JUMP_IF_BELOW, [FIRST, 0], HEAD, To::Charge);
    code.jump(JUMP_IF_BEYOND, [FIRST, LEFT], 0, To::Charge);
    code.op(LOAD_HALF, [SECOND, FRAME], TYPE, 0);
    code.op(LOAD_BYTE, [FIFTH, FRAME], FAMILY, 0);
    code.op(MOVE, [THIRD, 0], 0, 0);
    code.op(MOVE_REGISTER, [FOURTH, SECOND], 0, 0);
    code.op(AND, [FOURTH, 0], 0, 3);
    code.go_if(FOURTH, &[0], To::Made);
    code.go_unless(SECOND, SET_LINK, To::Add);
    code.label(To::Link);
    code.go_unless(FIFTH, AF_BRIDGE, To::Add);
    cost(code, VLANS);
}

/// What `rtnetlink(7)` makes. Interfaces, addresses and rules are charged as memory, and so are routes with one next hop.
fn made(code: &mut Assembly<To>) {
    code.label(To::Made);
    code.go_if(SECOND, &[NEW_LINK], To::Link);
    code.go_if(SECOND, &[NEW_ADDRESS, NEW_RULE], To::Add);
    code.go_if(SECOND, &[NEW_ROUTE], To::Route);
    code.op(MOVE, [THIRD, 0], 0, NEIGHBOUR);
    code.go_if(SECOND, &[NEW_NEIGHBOUR], To::Add);
    code.op(MOVE, [THIRD, 0], 0, NAMESPACE);
    code.go_if(SECOND, &[NEW_NAMESPACE], To::Add);
    code.op(MOVE, [THIRD, 0], 0, QUEUE);
    code.go_if(SECOND, &[NEW_QUEUE], To::Add);
    code.go_unless(SECOND, NEW_NEXT_HOP, To::Other);
    // A group says of no family that it is its own.
    code.op(MOVE, [THIRD, 0], 0, GROUP);
    code.go_if(FIFTH, &[0], To::Add);
    cost_by_length(code, NEXT_HOP, 2);
    code.label(To::Route);
    code.go_if(FIFTH, &[AF_INET, AF_INET6], To::Plain);
    code.label(To::Other);
    cost_by_length(code, OTHER, 5);
    code.label(To::Plain);
    code.jump(JUMP_IF_AT_MOST, [FIRST, 0], PLAIN_ROUTE, To::Add);
    cost_by_length(code, 0, 5);
}

/// Adds what a message costs, and goes on behind it.
fn add(code: &mut Assembly<To>) {
    code.label(To::Add);
    code.op(ADD_REGISTER, [COST, THIRD], 0, 0);
    code.op(LOAD_WORD, [FIRST, FRAME], LENGTH, 0);
    code.op(ADD, [FIRST, 0], 0, 3);
    code.op(AND, [FIRST, 0], 0, -4);
    code.jump(JUMP_IF_BEYOND, [FIRST, LEFT], 0, To::Charge);
    code.op(ADD_REGISTER, [PLACE, FIRST], 0, 0);
    code.op(SUBTRACT_REGISTER, [LEFT, FIRST], 0, 0);
    code.go(To::Message);
}

/// Associations and policies of IPsec, and what families of generic netlink do, of which nobody knows what it is: peers of WireGuard take
/// 40 bytes to ask for and 1,700 to keep. All messages together are charged by their length.
fn others(code: &mut Assembly<To>) {
    code.label(To::Ipsec);
    code.jump(JUMP_IF_AT_MOST, [LEFT, 0], SHORT_IPSEC, To::Allow);
    code.op(SHIFT_LEFT, [COST, 0], 0, 4);
    code.go(To::Charge);
    code.label(To::Generic);
    code.jump(JUMP_IF_AT_MOST, [LEFT, 0], SHORT_GENERIC, To::Allow);
    code.op(SHIFT_LEFT, [COST, 0], 0, 6);
}

/// `file_ioctl(struct file *, unsigned int, unsigned long)`.
fn ioctls(ledger: BorrowedFd<'_>) -> Vec<u64> {
    let mut code = Assembly::default();
    code.op(LOAD_LONG, [SECOND, FIRST], 8, 0);
    code.op(MOVE, [COST, 0], 0, NEIGHBOUR);
    code.go_unless(SECOND, SET_NEIGHBOUR, To::Allow);
    charge(&mut code, ledger);
    code.finish()
}

/// `socket_setsockopt(struct socket *, int, int)`.
fn options(ledger: BorrowedFd<'_>) -> Vec<u64> {
    let mut code = Assembly::default();
    code.op(LOAD_LONG, [SECOND, FIRST], 8, 0);
    code.op(LOAD_LONG, [THIRD, FIRST], 16, 0);
    code.op(MOVE, [COST, 0], 0, MULTICAST_ROUTE);
    code.go_if(SECOND, &LEVELS, To::Option);
    code.go(To::Allow);
    code.label(To::Option);
    code.go_if(THIRD, &ADD_MULTICAST_ROUTES, To::Charge);
    code.go(To::Allow);
    charge(&mut code, ledger);
    code.finish()
}

/// The end of every program: what it costs is spent, or the request fails.
fn charge(code: &mut Assembly<To>, ledger: BorrowedFd<'_>) {
    code.label(To::Charge);
    code.go_if(COST, &[0], To::Allow);
    code.op(STORE_WORD, [FRAME, 0], KEY, 0);
    code.op(MOVE_LONG, [FIRST, A_MAP], 0, ledger.as_raw_fd());
    code.op(0, [0, 0], 0, 0);
    code.op(MOVE_REGISTER, [SECOND, FRAME], 0, 0);
    code.op(ADD, [SECOND, 0], 0, KEY.into());
    code.op(CALL, [0, 0], 0, LOOK_UP);
    code.go_if(ANSWER, &[0], To::Refuse);
    code.op(MOVE_REGISTER, [FIRST, COST], 0, 0);
    code.op(FETCH_AND_ADD, [ANSWER, FIRST], 0, FETCH);
    code.op(ADD_REGISTER, [FIRST, COST], 0, 0);
    code.op(LOAD_LONG, [SECOND, ANSWER], 8, 0);
    code.jump(JUMP_IF_BEYOND, [SECOND, FIRST], 0, To::Allow);
    // What is refused costs nothing.
    code.op(NEGATE, [COST, 0], 0, 0);
    code.op(FETCH_AND_ADD, [ANSWER, COST], 0, FETCH);
    code.label(To::Refuse);
    code.op(MOVE, [FIRST, 0], 0, -ENOSPC);
    code.op(CALL, [0, 0], 0, SET_ERROR);
    code.op(MOVE, [ANSWER, 0], 0, 0);
    code.op(EXIT, [0, 0], 0, 0);
    code.label(To::Allow);
    code.op(MOVE, [ANSWER, 0], 0, 1);
    code.op(EXIT, [0, 0], 0, 0);
}

/// A fixed cost.
fn cost(code: &mut Assembly<To>, bytes: i32) {
    code.op(MOVE, [THIRD, 0], 0, bytes);
    code.go(To::Add);
}

/// A cost that grows with the message, by a power of two.
fn cost_by_length(code: &mut Assembly<To>, bytes: i32, power: i32) {
    code.op(LOAD_WORD, [THIRD, FRAME], LENGTH, 0);
    code.op(SHIFT_LEFT, [THIRD, 0], 0, power);
    code.op(ADD, [THIRD, 0], 0, bytes);
    code.go(To::Add);
}
