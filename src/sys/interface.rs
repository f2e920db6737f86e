//! Network interface ioctls (`netdevice(7)`).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// Brings up the loopback interface of the current network namespace.
pub fn set_loopback_up() -> io::Result<()> {
    // SAFETY: plain numbers.
    let fd = check(unsafe {
        libc::c_long::from(libc::socket(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            0,
        ))
    })?;
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).map_err(io::Error::other)?) };
    let mut name = [0; libc::IFNAMSIZ];
    name[0] = b'l' as libc::c_char;
    name[1] = b'o' as libc::c_char;
    let flags = libc::__c_anonymous_ifr_ifru {
        ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
    };
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: flags,
    };
    // SAFETY: the structure is initialised as SIOCSIFFLAGS reads it and outlives the call.
    check(unsafe {
        libc::c_long::from(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        ))
    })
    .map(drop)
}
