//! `bpf(2)`: programs of cgroup2 directories, classifiers of packets, and maps that these ask.

pub mod assembly;
pub mod interface;
pub mod map;
pub mod op;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

// Commands, types and flags of `linux/bpf.h`; `libc` does not have them.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_SCHED_CLS: u32 = 3;
/// Terms of programs that call nothing which is for programs under the GPL only.
const LICENSE: &CStr = c"Apache-2.0";
const ALLOW_MULTI: u32 = 2;

/// One instruction of eBPF in the kernel's encoding (`struct bpf_insn`, little and big endian alike in memory order).
pub fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
}

/// `BPF_OBJ_NAME_LEN`.
const NAME_LEN: usize = 16;
/// The kernel's own limit on programs at one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// What a program of a cgroup decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `BPF_CGROUP_DEVICE`: opening and making of device nodes.
    Device,
    /// `BPF_CGROUP_SYSCTL`: reading and writing of kernel parameters.
    Sysctl,
    /// `BPF_CGROUP_SETSOCKOPT`: setting options of sockets.
    SocketOption,
    /// `BPF_LSM_CGROUP`: what a security module is asked, here by the function of the kernel with this id among its types.
    Security(u32),
}

impl Hook {
    /// `enum bpf_prog_type`.
    fn program(self) -> u32 {
        match self {
            Self::Device => 15,
            Self::Sysctl => 23,
            Self::SocketOption => 25,
            Self::Security(_) => 29,
        }
    }

    /// `enum bpf_attach_type`.
    fn place(self) -> u32 {
        match self {
            Self::Device => 6,
            Self::Sysctl => 18,
            Self::SocketOption => 22,
            Self::Security(_) => 43,
        }
    }

    /// Where a program says that it will be attached, which those have to that could be at several places.
    fn expected(self) -> u32 {
        match self {
            Self::Device | Self::Sysctl => 0,
            Self::SocketOption | Self::Security(_) => self.place(),
        }
    }

    /// The function of the kernel that asks the program, where there is one.
    fn function(self) -> u32 {
        match self {
            Self::Security(id) => id,
            _ => 0,
        }
    }

    /// Terms that the kernel is told: it lets only programs under the GPL decide as security modules, and those of condo may be used
    /// under it as well.
    fn license(self) -> &'static CStr {
        match self {
            Self::Security(_) => c"Dual MIT/GPL",
            _ => LICENSE,
        }
    }
}

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` needs here.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// The part that `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` need.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// The part that `BPF_PROG_QUERY` needs.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The part that `BPF_PROG_GET_FD_BY_ID` needs.
#[repr(C)]
struct ById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part that `BPF_OBJ_GET_INFO_BY_FD` needs.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to and with the name; the kernel fills in as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 6],
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LEN],
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `T` is the prefix of `union bpf_attr` that belongs to the command, and every address in it points to memory of
    // the stated length that the caller of this function keeps alive.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a program of encoded instructions, with a name of at most 15 bytes.
///
/// # Errors
/// `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`, `EINVAL` or `EACCES` from the verifier, `ENOSYS` without `CONFIG_BPF_SYSCALL`.
pub fn load(hook: Hook, instructions: &[u64], name: &str) -> io::Result<OwnedFd> {
    let attributes = Load {
        prog_type: hook.program(),
        expected_attach_type: hook.expected(),
        attach_btf_id: hook.function(),
        license: hook.license().as_ptr() as u64,
        ..Load::default()
    };
    load_with(attributes, instructions, name)
}

/// Loads a `BPF_PROG_TYPE_SCHED_CLS` program, which `tc(8)` runs for packets, with a name of at most 15 bytes.
///
/// # Errors
/// Those of [`load`]; the type needs `CAP_NET_ADMIN` as well.
pub fn load_classifier(instructions: &[u64], name: &str) -> io::Result<OwnedFd> {
    let attributes = Load {
        prog_type: PROG_TYPE_SCHED_CLS,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    load_with(attributes, instructions, name)
}

fn load_with(mut attributes: Load, instructions: &[u64], name: &str) -> io::Result<OwnedFd> {
    attributes.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    attributes.insns = instructions.as_ptr() as u64;
    for (to, from) in attributes.prog_name[..NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    owned(bpf(PROG_LOAD, &mut attributes)?)
}

/// Attaches a program to a cgroup2 directory, beside those attached already: an access must please them all.
///
/// # Errors
/// `EBADF` or `EINVAL` when it is no cgroup2 directory, `E2BIG` after 64 programs.
pub fn attach(hook: Hook, cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: hook.place(),
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Detaches a program from a cgroup2 directory.
///
/// # Errors
/// `ENOENT` when it is not attached there.
pub fn detach(hook: Hook, cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: hook.place(),
        attach_flags: 0,
    };
    bpf(PROG_DETACH, &mut attributes).map(drop)
}

/// The ids of the programs attached to a cgroup2 directory itself (not to its parents).
pub fn programs(hook: Hook, cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_fd: number(cgroup),
        attach_type: hook.place(),
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// Opens a loaded program by its id.
///
/// # Errors
/// `ENOENT` when it is gone, `EPERM` without `CAP_SYS_ADMIN`.
pub fn open_program(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = ById {
        prog_id: id,
        next_id: 0,
        open_flags: 0,
    };
    owned(bpf(PROG_GET_FD_BY_ID, &mut attributes)?)
}

/// The name a program was loaded with.
pub fn program_name(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = ProgramInfo::default();
    let mut attributes = Info {
        bpf_fd: number(program),
        info_len: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(NAME_LEN);
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}
