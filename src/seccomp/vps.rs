//! The default profile of a VPS.
//!
//! A tenant runs a whole distribution as root of its own user namespace: systemd, apt, ssh, sudo, ping, Docker inside. So the
//! profile allows what a distribution uses, namespaces and mounts among it, and takes away what acts on the whole host, what
//! has been the way into the kernel again and again, and what nothing uses any more. Where a capability outside of the
//! tenant's reach protects a call already, denying it takes the kernel's check out of the line of fire.
//!
//! Calls that are newer than this list are `ENOSYS` until they have been looked at: programs have a fallback for that.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall,
};

use super::abi::Abi;

/// `EPERM`: what a program that knows the call expects where it lacks the privilege.
const EPERM: u32 = 1;
/// `ENOSYS`: what makes a program use something else.
const ENOSYS: u32 = 38;
/// `EAFNOSUPPORT`: no such address family.
const EAFNOSUPPORT: u32 = 97;

/// The newest number looked at (`file_setattr`): a newer table of names allows nothing by itself.
const REVIEWED: u32 = 469;

/// What acts on the whole host, or has no namespaces, or serves an attacker first. The answer is `EPERM`.
const HOST: [&[&str]; 8] = [
    // Another kernel, or code into this one.
    &[
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
    ],
    // Files by handle and not by path: from a container to any file of the same file system (the "shocker" escape, 2014).
    &["open_by_handle_at"],
    // The host's clock. Reading and a tenant's ntpd asking (`adjtimex`) stay; the kernel lets it set nothing.
    &["settimeofday", "stime", "clock_settime", "clock_settime64"],
    // The host's swap, its process accounting (which writes to a file of the caller's choice), its disk quotas.
    &["swapon", "swapoff", "acct", "quotactl", "quotactl_fd"],
    // The host's kernel log: addresses, and what happens in other VPSs.
    &["syslog"],
    // Ports of the hardware; virtual 8086 mode.
    &["iopl", "ioperm", "vm86", "vm86old"],
    // Programs in the kernel and its verifier (CVE-2020-8835, CVE-2021-3490, CVE-2022-23222); counters that see across VPSs
    // (CVE-2013-2094, CVE-2023-5717 and side channels).
    &["bpf", "perf_event_open"],
    // Stops the kernel in the middle of a copy: the lever that makes races winnable (exploits of CVE-2016-6187, CVE-2021-26708).
    &["userfaultfd"],
];

/// What a VPS does without, its programs having a fallback for `ENOSYS`.
const WITHOUT: [&[&str]; 4] = [
    // A second way to make system calls, past this very filter: seccomp does not see what a ring is told to do. For years the
    // richest source of kernel exploits (CVE-2021-41073, CVE-2022-2602, CVE-2023-2598).
    &["io_uring_setup", "io_uring_enter", "io_uring_register"],
    // Keys are counted per uid and outlive their session (CVE-2016-0728). `ENOSYS` and not `EPERM`: systemd and container
    // runtimes take the first for a kernel without keyrings and go on, the second for a failure.
    &["add_key", "request_key", "keyctl"],
    // Segments of 16-bit programs (CVE-2015-5157, CVE-2017-17053).
    &["modify_ldt"],
    // Gone or never there in kernels of the last ten years, or superseded beyond any user.
    &[
        "_sysctl",
        "afs_syscall",
        "bdflush",
        "create_module",
        "epoll_ctl_old",
        "epoll_wait_old",
        "get_kernel_syms",
        "getpmsg",
        "gtty",
        "idle",
        "lock",
        "lookup_dcookie",
        "mpx",
        "nfsservctl",
        "prof",
        "profil",
        "putpmsg",
        "query_module",
        "security",
        "stty",
        "sysfs",
        "tuxcall",
        "ulimit",
        "uselib",
        "ustat",
        "vserver",
    ],
];

/// Address families of a server: UNIX, IPv4, IPv6, netlink, packet (DHCP clients, tcpdump). What is left out is either not
/// namespaced (vsock talks to the hypervisor and to the host's own listeners, CVE-2021-26708) or a protocol that hardly anybody
/// uses and a request for which loads its module (RDS CVE-2010-3904, TIPC CVE-2021-43267).
///
/// A 32-bit program reaches `socket` through `socketcall` too, the arguments of which no filter sees, and `int 0x80` is open to
/// every program: see [`Concessions::socketcall`].
const FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];

/// What makes sockets of a family, and loads its module before it finds that the family has no pairs.
const SOCKETS: [&str; 2] = ["socket", "socketpair"];

/// What makes rings on a socket.
const SET_OPTION: &str = "setsockopt";

/// `SOL_PACKET`.
const PACKET: u64 = 263;

/// `PACKET_RX_RING` and `PACKET_TX_RING`: buffers that the kernel shares with a program, gigabytes for one socket, which no
/// kernel charges to the program's memory (and CVE-2016-8655, CVE-2017-7308, CVE-2020-14386).
const RINGS: [u64; 2] = [5, 13];

/// What a VPS may do that the profile refuses by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Concessions {
    /// i386's `socketcall(2)`, by which programs of older C libraries (Debian's i386 among them) and of Go make sockets. No
    /// filter sees what it is asked for: every family, and [`Concessions::packet_rings`], come with it.
    pub socketcall: bool,
    /// Rings on packet sockets, for programs that capture frames.
    pub packet_rings: bool,
}

/// The profile of a VPS, for x86-64 with 32-bit programs, and for aarch64. x32, which no distribution uses, kills. `agent` is the socket of
/// the process that answers `sysinfo(2)`, where that is not the kernel.
pub fn vps_profile(concessions: Concessions, agent: Option<&Path>) -> LinuxSeccomp {
    let mut entries = vec![entry(allowed(concessions), Action::ScmpActAllow, None)];
    entries.push(entry(names(&HOST), Action::ScmpActErrno, Some(EPERM)));
    entries.extend(sockets());
    if !concessions.packet_rings {
        entries.extend(options());
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(ENOSYS))
        .set_architectures(Some(vec![
            Arch::ScmpArchX86_64,
            Arch::ScmpArchX86,
            Arch::ScmpArchAarch64,
        ]))
        .set_syscalls(Some(entries));
    if let Some(agent) = agent {
        ask(&mut profile, "sysinfo", agent);
    }
    profile
}

/// Has a system call of a profile answered by whoever listens at `agent`.
fn ask(profile: &mut LinuxSeccomp, call: &str, agent: &Path) {
    let mut entries = profile.syscalls().clone().unwrap_or_default();
    for other in &mut entries {
        let names = other.names().iter().filter(|name| *name != call).cloned();
        let names = names.collect();
        other.set_names(names);
    }
    entries.push(entry(vec![call.to_owned()], Action::ScmpActNotify, None));
    profile.set_syscalls(Some(entries));
    profile.set_listener_path(Some(agent.to_owned()));
}

/// The same profile where nobody is there to answer: what would be asked about is allowed.
pub(super) fn without_agent(profile: &LinuxSeccomp) -> LinuxSeccomp {
    let mut profile = profile.clone();
    let mut entries = profile.syscalls().clone().unwrap_or_default();
    let asked = |entry: &&mut LinuxSyscall| entry.action() == Action::ScmpActNotify;
    for entry in entries.iter_mut().filter(asked) {
        entry.set_action(Action::ScmpActAllow);
    }
    profile.set_syscalls(Some(entries));
    profile.set_listener_path(None);
    profile
}

fn entry(names: Vec<String>, action: Action, errno: Option<u32>) -> LinuxSyscall {
    let mut entry = LinuxSyscall::default();
    entry.set_names(names).set_action(action).set_errno_ret(errno);
    entry
}

fn names(groups: &[&[&str]]) -> Vec<String> {
    groups
        .iter()
        .copied()
        .flatten()
        .map(ToString::to_string)
        .collect()
}

/// Every name in the two lists.
pub(super) fn denied() -> impl Iterator<Item = &'static str> {
    HOST.iter().chain(&WITHOUT).copied().flatten().copied()
}

/// All calls up to [`REVIEWED`] but those and the ones that depend on their arguments. Without `socketcall` itself among them,
/// of its sub-calls those pass that pass by their own numbers whatever their arguments.
fn allowed(concessions: Concessions) -> Vec<String> {
    let tables = [Abi::X86_64, Abi::X86, Abi::Aarch64]
        .into_iter()
        .flat_map(Abi::calls);
    let mut names: BTreeSet<&str> = tables
        .filter(|(_, n)| *n <= REVIEWED)
        .map(|(name, _)| name)
        .collect();
    for name in denied().chain(SOCKETS) {
        names.remove(name);
    }
    if !concessions.socketcall {
        names.remove("socketcall");
    }
    if !concessions.packet_rings {
        names.remove(SET_OPTION);
    }
    names.into_iter().map(ToString::to_string).collect()
}

/// Holds when the low word of an argument is `value`: the kernel takes an `int`.
fn word(index: usize, value: u64) -> LinuxSeccompArg {
    masked(index, 0xffff_ffff, value)
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    // Every field of the builder has a default: it cannot fail.
    let arg = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(Op::ScmpCmpMaskedEq)
        .value(mask)
        .value_two(value);
    arg.build().unwrap_or_default()
}

/// Holds always; an entry without conditions would outweigh those before it.
fn otherwise() -> Vec<LinuxSeccompArg> {
    vec![masked(0, 0, 0)]
}

fn conditional(
    calls: &[&str],
    action: Action,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut entry = entry(names(&[calls]), action, errno);
    entry.set_args(Some(args));
    entry
}

/// [`SOCKETS`] for the families. Conditions on one argument are alternatives.
fn sockets() -> Vec<LinuxSyscall> {
    let families = FAMILIES.iter().map(|family| word(0, *family)).collect();
    vec![
        conditional(&SOCKETS, Action::ScmpActAllow, None, families),
        conditional(&SOCKETS, Action::ScmpActErrno, Some(EAFNOSUPPORT), otherwise()),
    ]
}

/// [`SET_OPTION`] for all but the rings.
fn options() -> Vec<LinuxSyscall> {
    let refuse = |ring| {
        let args = vec![word(1, PACKET), word(2, ring)];
        conditional(&[SET_OPTION], Action::ScmpActErrno, Some(EPERM), args)
    };
    let mut entries: Vec<_> = RINGS.into_iter().map(refuse).collect();
    entries.push(conditional(
        &[SET_OPTION],
        Action::ScmpActAllow,
        None,
        otherwise(),
    ));
    entries
}
