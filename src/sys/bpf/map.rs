//! Hash maps that programs ask while they run.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{NAME_LEN, OBJ_GET_INFO_BY_FD, ProgramInfo, bpf, number, owned};

// Commands, types and flags of `linux/bpf.h`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_LRU_HASH: u32 = 9;
const NO_PREALLOC: u32 = 1;

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` needs here.
#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
}

/// The part that commands on one element need.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part that `BPF_MAP_GET_FD_BY_ID` needs.
#[repr(C)]
struct ById {
    map_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Makes a map from `K` bytes to `V` bytes, with a name of at most 15 bytes. Its elements take memory as they come.
///
/// # Errors
/// `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`, `ENOMEM`.
pub fn create<const K: usize, const V: usize>(most: u32, name: &str) -> io::Result<OwnedFd> {
    make::<K, V>((MAP_TYPE_HASH, NO_PREALLOC), most, name)
}

/// The same, but its memory is taken at once, and when it is full it forgets what was not asked for of late.
///
/// # Errors
/// As for [`create`].
pub fn create_forgetful<const K: usize, const V: usize>(most: u32, name: &str) -> io::Result<OwnedFd> {
    make::<K, V>((MAP_TYPE_LRU_HASH, 0), most, name)
}

fn make<const K: usize, const V: usize>(
    (map_type, map_flags): (u32, u32),
    most: u32,
    name: &str,
) -> io::Result<OwnedFd> {
    let mut attributes = Create {
        map_type,
        key_size: K as u32,
        value_size: V as u32,
        max_entries: most,
        map_flags,
        ..Create::default()
    };
    for (to, from) in attributes.map_name[..NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    owned(bpf(MAP_CREATE, &mut attributes)?)
}

/// Sets an element of a map that was made with these sizes.
///
/// # Errors
/// `E2BIG` when the map is full.
pub fn set<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: [u8; K],
    value: [u8; V],
) -> io::Result<()> {
    let mut element = Element {
        map_fd: number(map),
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut element).map(drop)
}

/// Removes an element of a map that was made with this size of keys.
///
/// # Errors
/// `ENOENT` when there is none.
pub fn remove<const K: usize>(map: BorrowedFd<'_>, key: [u8; K]) -> io::Result<()> {
    let mut element = Element {
        map_fd: number(map),
        padding: 0,
        key: key.as_ptr() as u64,
        value: 0,
        flags: 0,
    };
    bpf(MAP_DELETE_ELEM, &mut element).map(drop)
}

/// How many maps of one program are told apart.
const MAPS: usize = 2;

/// Opens a map that a program asks, by its place among them, of which it names the first first.
///
/// # Errors
/// `ENOENT` when it asks fewer, `EPERM` without `CAP_SYS_ADMIN`.
pub fn of_program(program: BorrowedFd<'_>, place: usize) -> io::Result<OwnedFd> {
    let mut ids = [0_u32; MAPS];
    let mut info = ProgramInfo {
        nr_map_ids: MAPS as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let mut attributes = super::Info {
        bpf_fd: number(program),
        info_len: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // No map has the number 0.
    let mut attributes = ById {
        map_id: ids.get(place).copied().unwrap_or_default(),
        next_id: 0,
        open_flags: 0,
    };
    owned(bpf(MAP_GET_FD_BY_ID, &mut attributes)?)
}
