//! Quotas of projects (`quotactl(2)`), the project a directory belongs to (`ioctl_xfs_fsgetxattr(2)`), and growing ext4.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

// From `linux/quota.h` and `linux/dqblk_xfs.h`.
const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQSTATV: u32 = 0x5808;
/// Which fields of [`Dqblk`] count: `QIF_LIMITS`.
const QIF_LIMITS: u32 = 1 | 4;
const FS_QSTATV_VERSION1: i8 = 1;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
/// Of which `dqb_bhardlimit` counts.
const BLOCK: u64 = 1024;

// From `linux/fs.h` and ext4's `ext4.h`.
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Dqblk {
    block_hard: u64,
    block_soft: u64,
    bytes: u64,
    inode_hard: u64,
    inode_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_statv`.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    incore: u32,
    rest: [u64; 24],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// What a project uses and may use; a limit of 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes it may use, in whole KiB.
    pub bytes_limit: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Inodes it may use.
    pub inodes_limit: u64,
    /// Inodes in use.
    pub inodes: u64,
}

fn quotactl<T>(file: BorrowedFd<'_>, command: u32, project: u32, data: &mut T) -> io::Result<()> {
    // SAFETY: `data` is the structure that the command reads or fills; each caller passes the matching one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            (command << 8) | PRJQUOTA,
            project,
            &raw mut *data,
        )
    };
    check(result).map(drop)
}

/// Whether the file system of `file` holds projects to their quotas.
pub fn is_enforced(file: BorrowedFd<'_>) -> bool {
    let mut state = State {
        version: FS_QSTATV_VERSION1,
        pad: 0,
        flags: 0,
        incore: 0,
        rest: [0; 24],
    };
    quotactl(file, Q_XGETQSTATV, 0, &mut state).is_ok() && state.flags & FS_QUOTA_PDQ_ENFD != 0
}

/// The account of a project on the file system of `file`.
///
/// # Errors
/// `ESRCH` where quotas are off, `ENOSYS` where the file system has none.
pub fn account(file: BorrowedFd<'_>, project: u32) -> io::Result<Account> {
    let mut block = Dqblk::default();
    match quotactl(file, Q_GETQUOTA, project, &mut block) {
        // XFS keeps no record of a project that has used nothing.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        other => other?,
    }
    Ok(Account {
        bytes_limit: block.block_hard.saturating_mul(BLOCK),
        bytes: block.bytes,
        inodes_limit: block.inode_hard,
        inodes: block.inodes,
    })
}

/// Sets what a project may use on the file system of `file`: bytes and inodes, 0 for no limit.
pub fn limit(file: BorrowedFd<'_>, project: u32, bytes: u64, inodes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut block = Dqblk {
        block_hard: blocks,
        block_soft: blocks,
        inode_hard: inodes,
        inode_soft: inodes,
        valid: QIF_LIMITS,
        ..Dqblk::default()
    };
    quotactl(file, Q_SETQUOTA, project, &mut block)
}

/// The project of a directory, if what is made in it belongs to that as well.
pub fn project_of(dir: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let attributes = attributes(dir)?;
    Ok((attributes.flags & FS_XFLAG_PROJINHERIT != 0).then_some(attributes.project))
}

/// Puts a directory, and all that is made in it from now on, into a project.
pub fn set_project(dir: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut wanted = attributes(dir)?;
    wanted.flags |= FS_XFLAG_PROJINHERIT;
    wanted.project = project;
    // SAFETY: the kernel reads the structure, which is of the size it expects.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const wanted) }.into()).map(drop)
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: the kernel fills the structure, which is of the size it expects.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut found) }.into())?;
    Ok(found)
}

/// Grows the mounted ext4 that `file` is on to so many blocks of its own size. One that is as large already stays.
pub fn grow_ext4(file: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads the number, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) }.into()).map(drop)
}
