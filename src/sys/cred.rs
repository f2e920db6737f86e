//! Identities of this thread alone: towards filesystems (`setfsuid(2)` and `setfsgid(2)`), and towards the kernel's accounts
//! (`seteuid(2)`).

use std::io;
use std::marker::PhantomData;

use rustix::process::Uid;
use rustix::thread::{CapabilitySets, capabilities, set_capabilities, set_thread_res_uid};

/// While it lives, files this thread makes belong to another user and group; its capabilities stay as they were.
#[derive(Debug)]
pub struct FsIdentity {
    uid: libc::c_int,
    gid: libc::c_int,
    sets: CapabilitySets,
    /// The identity belongs to the thread: not `Send`.
    _thread: PhantomData<*const ()>,
}

impl FsIdentity {
    /// Takes the identity on.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETUID` and `CAP_SETGID`.
    pub fn assume(uid: u32, gid: u32) -> io::Result<Self> {
        let sets = capabilities(None)?;
        // SAFETY: plain numbers.
        let old_gid = unsafe { libc::setfsgid(gid) };
        // SAFETY: plain numbers.
        let old_uid = unsafe { libc::setfsuid(uid) };
        let identity = Self {
            uid: old_uid,
            gid: old_gid,
            sets,
            _thread: PhantomData,
        };
        // The calls report no failure; asking for an impossible id returns the current one.
        // SAFETY: plain numbers.
        let now = unsafe { libc::setfsuid(u32::MAX) };
        if now.cast_unsigned() != uid {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Leaving user 0 drops the file capabilities from the effective set, see capabilities(7).
        set_capabilities(None, sets)?;
        Ok(identity)
    }
}

impl Drop for FsIdentity {
    fn drop(&mut self) {
        // SAFETY: plain numbers.
        unsafe { libc::setfsuid(self.uid.cast_unsigned()) };
        // SAFETY: plain numbers.
        unsafe { libc::setfsgid(self.gid.cast_unsigned()) };
        // Coming back to user 0 raises what is permitted: return to what was effective. The set is a subset, so it cannot fail.
        let _ = set_capabilities(None, self.sets);
    }
}

/// While it lives, this thread acts as another user: what it makes is counted for that one. Files are still reached as before,
/// and its capabilities stay as they were.
#[derive(Debug)]
pub struct EffectiveUser {
    sets: CapabilitySets,
    /// The identity belongs to the thread: not `Send`.
    _thread: PhantomData<*const ()>,
}

impl EffectiveUser {
    /// Takes the identity on, from the host's root.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETUID`.
    pub fn assume(uid: u32) -> io::Result<Self> {
        let sets = capabilities(None)?;
        let acting = Self {
            sets,
            _thread: PhantomData,
        };
        // The real one stays, and with it what is permitted. The saved one is the effective one, which lets a child that is
        // born meanwhile move itself to another cgroup of v1 (`cgroup1_procs_write`).
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(Uid::ROOT, uid, uid)?;
        // SAFETY: a plain number.
        unsafe { libc::setfsuid(0) };
        set_capabilities(None, sets)?;
        Ok(acting)
    }
}

impl Drop for EffectiveUser {
    fn drop(&mut self) {
        let back = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
        if back.and_then(|()| set_capabilities(None, self.sets)).is_err() {
            // Going on as somebody else would do half of everything.
            std::process::abort();
        }
    }
}
