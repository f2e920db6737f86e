//! The system call tables a filter knows, and which of them a machine can use.

use oci_spec::runtime::Arch;

/// `__X32_SYSCALL_BIT`: x32 shares x86-64's audit architecture and marks its numbers.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One way to call the kernel: an audit architecture with its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 64-bit x86 with 32-bit pointers.
    X32,
    /// 32-bit x86.
    X86,
    /// 64-bit ARM.
    Aarch64,
}

/// Calls for which x32 has a number of its own, from 512 up (`arch/x86/entry/syscalls/syscall_64.tbl`).
#[rustfmt::skip]
const X32_OWN: [&str; 36] = [
    "rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve",
    "ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create",
    "mq_notify", "kexec_load", "waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages",
    "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg", "process_vm_readv",
    "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit", "execveat", "preadv2",
    "pwritev2",
];

/// Sub-calls of i386 `socketcall(2)` (`linux/net.h`), which passes its number as the first argument.
#[rustfmt::skip]
const SOCKETCALL: [(&str, u32); 20] = [
    ("socket", 1), ("bind", 2), ("connect", 3), ("listen", 4), ("accept", 5), ("getsockname", 6),
    ("getpeername", 7), ("socketpair", 8), ("send", 9), ("recv", 10), ("sendto", 11), ("recvfrom", 12),
    ("shutdown", 13), ("setsockopt", 14), ("getsockopt", 15), ("sendmsg", 16), ("recvmsg", 17),
    ("accept4", 18), ("recvmmsg", 19), ("sendmmsg", 20),
];

/// Sub-calls of i386 `ipc(2)` (`linux/ipc.h`), in the low 16 bits of its first argument.
#[rustfmt::skip]
const IPC: [(&str, u32); 12] = [
    ("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4), ("msgsnd", 11), ("msgrcv", 12),
    ("msgget", 13), ("msgctl", 14), ("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24),
];

/// A sub-call of a multiplexer: the multiplexer's number, the bits of its first argument that count, and their value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubCall {
    pub(super) number: u32,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Abi {
    /// The one this program is built for.
    pub(super) const fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// `AUDIT_ARCH_*`, as in `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Whether arguments have 32 bits only.
    pub(super) const fn is_narrow(self) -> bool {
        matches!(self, Self::X86)
    }

    /// Every system call, in no particular order.
    pub(super) fn calls(self) -> Vec<(&'static str, u32)> {
        match self {
            Self::X86_64 => x86_64().collect(),
            // The plain number of a call with its own one is listed too: some kernels have taken it.
            Self::X32 => x86_64()
                .chain(X32_OWN.into_iter().zip(512..))
                .map(|(name, n)| (name, n | X32_BIT))
                .collect(),
            Self::X86 => syscalls::x86::Sysno::iter()
                .map(|s| (s.name(), s.id().unsigned_abs()))
                .collect(),
            Self::Aarch64 => aarch64().collect(),
        }
    }

    /// The sub-call of a multiplexer that does the same as `name`, if this ABI has one.
    pub(super) fn sub_call(self, name: &str) -> Option<SubCall> {
        if self != Self::X86 {
            return None;
        }
        let find = |table: &[(&str, u32)]| table.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let socketcall = find(&SOCKETCALL).map(|value| SubCall {
            number: 102,
            mask: u32::MAX,
            value,
        });
        socketcall.or_else(|| {
            find(&IPC).map(|value| SubCall {
                number: 117,
                mask: 0xffff,
                value,
            })
        })
    }
}

fn x86_64() -> impl Iterator<Item = (&'static str, u32)> {
    syscalls::x86_64::Sysno::iter().map(|s| (s.name(), s.id().unsigned_abs()))
}

fn aarch64() -> impl Iterator<Item = (&'static str, u32)> {
    let own = syscalls::aarch64::Sysno::iter().map(|s| (s.name(), s.id().unsigned_abs()));
    // The generic table has it under its old name; profiles say `newfstatat`.
    own.map(|(name, n)| (if name == "fstatat" { "newfstatat" } else { name }, n))
}

/// The native ABI and the listed ones that a kernel of its family can run. Others are without effect: a kernel never reports
/// them. 32-bit ARM is not among those known, so it stays unlisted on aarch64 (killed).
pub(super) fn listed(native: Abi, architectures: &[Arch]) -> Vec<Abi> {
    let mut abis = vec![native];
    for arch in architectures {
        let abi = match (native, arch) {
            (Abi::X86_64, Arch::ScmpArchX86) => Abi::X86,
            (Abi::X86_64, Arch::ScmpArchX32) => Abi::X32,
            _ => continue,
        };
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    abis
}
