//! Subvolumes of btrfs and their quota groups (`linux/btrfs.h`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

const SNAP_CREATE: libc::c_ulong = 0x5000_9401;
const SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
const INO_LOOKUP: libc::c_ulong = 0xd000_9412;
const FS_INFO: libc::c_ulong = 0x8400_941f;
const QUOTA_CTL: libc::c_ulong = 0xc010_9428;
const QGROUP_CREATE: libc::c_ulong = 0x4010_942a;
const QGROUP_LIMIT: libc::c_ulong = 0x8030_942b;
const QUOTA_RESCAN_WAIT: libc::c_ulong = 0x942e;

/// `BTRFS_QUOTA_CTL_ENABLE`.
const ENABLE: u64 = 1;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`: all that the subvolume refers to, shared with others or not.
const MAX_RFER: u64 = 1;
/// `BTRFS_FIRST_FREE_OBJECTID`: the inode number of every subvolume's root.
pub const ROOT_INODE: u64 = 256;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Named {
    fd: i64,
    name: [u8; 4088],
}

impl Named {
    fn new(name: &CStr) -> io::Result<Self> {
        let mut named = Self {
            fd: 0,
            name: [0; 4088],
        };
        let bytes = name.to_bytes();
        // The kernel refuses names above 255 bytes itself; the last byte stays zero.
        let room = named
            .name
            .get_mut(..bytes.len())
            .ok_or(io::ErrorKind::InvalidFilename)?;
        room.copy_from_slice(bytes);
        Ok(named)
    }
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct Limit {
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved: [u64; 2],
}

fn request<T>(file: BorrowedFd<'_>, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is the structure that the request reads or fills; each caller passes the matching one.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut *argument) }.into()).map(drop)
}

/// Makes an empty subvolume in a directory.
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    request(parent, SUBVOL_CREATE, &mut Named::new(name)?)
}

/// Makes a subvolume in a directory that is what the one of `source` is now. It is on the disk when this returns.
pub fn snapshot(source: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let mut named = Named::new(name)?;
    named.fd = source.as_raw_fd().into();
    request(parent, SNAP_CREATE, &mut named)
}

/// Removes a subvolume with all that is in it; what it takes up is freed later.
pub fn remove_subvolume(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    request(parent, SNAP_DESTROY, &mut Named::new(name)?)
}

/// The number of the subvolume that `file` is in, which its quota group has as well.
pub fn subvolume_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    /// `struct btrfs_ioctl_ino_lookup_args`.
    #[repr(C)]
    struct Lookup {
        tree: u64,
        object: u64,
        name: [u8; 4080],
    }
    let mut lookup = Lookup {
        tree: 0,
        object: ROOT_INODE,
        name: [0; 4080],
    };
    request(file, INO_LOOKUP, &mut lookup)?;
    Ok(lookup.tree)
}

/// The UUID of the file system, by which `/sys/fs/btrfs` has it.
pub fn uuid(file: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    /// `struct btrfs_ioctl_fs_info_args`.
    #[repr(C)]
    struct Info {
        ids: [u64; 2],
        uuid: [u8; 16],
        rest: [u8; 992],
    }
    let mut info = Info {
        ids: [0; 2],
        uuid: [0; 16],
        rest: [0; 992],
    };
    request(file, FS_INFO, &mut info)?;
    Ok(info.uuid)
}

/// Switches quotas of the file system on, and waits until all that is there is counted. It may have been done before.
pub fn enable_quotas(file: BorrowedFd<'_>) -> io::Result<()> {
    let mut control = [ENABLE, 0];
    match request(file, QUOTA_CTL, &mut control) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    // SAFETY: this request takes no argument.
    check(unsafe { libc::ioctl(file.as_raw_fd(), QUOTA_RESCAN_WAIT) }.into()).map(drop)
}

/// Sets how many bytes the subvolume that `file` is in may refer to; without a number, as many as there is room for.
pub fn limit(file: BorrowedFd<'_>, bytes: Option<u64>) -> io::Result<()> {
    let mut limit = Limit {
        group: 0,
        flags: MAX_RFER,
        // All ones lift a limit.
        max_referenced: bytes.unwrap_or(u64::MAX),
        max_exclusive: 0,
        reserved: [0; 2],
    };
    request(file, QGROUP_LIMIT, &mut limit)
}

/// Forgets the quota group of a subvolume that is gone. `file` is any on the file system.
///
/// # Errors
/// `EBUSY` while the subvolume is being cleaned up; Linux 6.12 then forgets the group by itself.
pub fn forget_group(file: BorrowedFd<'_>, subvolume: u64) -> io::Result<()> {
    let mut removal = [0, subvolume];
    request(file, QGROUP_CREATE, &mut removal)
}
