//! Loop devices (`loop(4)`): a file as a block device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::check;

// From `linux/loop.h`.
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// The number of a loop device that has no file; the kernel makes one where there is none. `control` is `/dev/loop-control`.
pub fn free(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    let number = check(number.into())?;
    u32::try_from(number).map_err(io::Error::other)
}

/// Gives a free loop device a file, past the page cache where the file's file system can, in blocks of `block_size`. The device lets
/// go of the file when the last one closes or unmounts it.
///
/// # Errors
/// `EBUSY` when somebody else was faster.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_size: u32) -> io::Result<()> {
    let config = Config {
        file: file.as_raw_fd().cast_unsigned(),
        block_size,
        info: Info {
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            ..EMPTY
        },
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads the structure, which outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into()).map(drop)
}

/// Device and inode number of the file that a loop device has.
///
/// # Errors
/// `ENXIO` when it has none.
pub fn file_of(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut info = EMPTY;
    request(device.as_raw_fd(), LOOP_GET_STATUS64, &mut info)?;
    Ok((info.device, info.inode))
}

fn request(device: RawFd, request: libc::c_ulong, info: &mut Info) -> io::Result<()> {
    // SAFETY: the kernel fills the structure, which is of the size it expects.
    check(unsafe { libc::ioctl(device, request, &raw mut *info) }.into()).map(drop)
}

/// Tells a loop device that its file has another size.
pub fn follow_size(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) }.into()).map(drop)
}
