//! Names of hosts.

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    /// Of `nss.h`: says what answers for a database, instead of `nsswitch.conf(5)`.
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Has hosts looked up in `/etc/hosts` and by DNS from now on, which glibc does by itself. What else `nsswitch.conf(5)` may name is a shared
/// library, which would bring a second C library into this static program.
pub fn by_files_and_dns() {
    // SAFETY: both are strings that end with zero, and are copied. What it may answer is that there is no memory.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}
