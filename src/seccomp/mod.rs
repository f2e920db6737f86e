//! Seccomp: an OCI profile becomes one classic-BPF program, and the program is installed.
//!
//! ```text
//!  LinuxSeccomp --rules--> name -> Verdict --spans--> per ABI: intervals of numbers -> Verdict --emit--> sock_filter[]
//! ```
//! - [`compile`] is pure and allocates only: every fault of a profile is found at `create`, before anything has been done.
//! - [`Filter::install`] does not touch no-new-privs, so that `sudo`, `su` and `ping` work below it; that bit belongs to the
//!   process configuration. Without it the caller needs CAP_SYS_ADMIN in its user namespace.
//! - What a profile means is what libseccomp and runc make of it (see [`compile`]), because that is what profiles are
//!   written and tested against.

mod abi;
mod emit;
mod listener;
#[cfg(test)]
mod oracle;
mod rules;
mod spans;
mod vps;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};
use seccompiler::sock_filter;

use crate::error::{During, Error, Result};
use crate::sys::seccomp as sys;
use abi::Abi;
pub use listener::{Agent, Answered, Listener, can_ask};
use rules::Rules;
pub use vps::{Concessions, vps_profile};

/// `BPF_MAXINSNS`: the longest program the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;
/// Every flag that [`Filter::from_bytes`] believes.
const KNOWN_FLAGS: u32 = (sys::WAIT_KILLABLE_RECV << 1) - 1;

/// One compiled program with its `SECCOMP_FILTER_FLAG_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<sock_filter>,
    flags: u32,
}

/// Compiles a profile for this machine's architecture and the 32-bit ones it lists.
///
/// - An entry whose action equals the default action says nothing. An entry without `args` decides its calls for good, wherever
///   it stands; of several, the first. Otherwise the first entry whose conditions hold decides, else the default action.
/// - Conditions are all required; but where two name the same argument, each condition becomes a rule of its own (runc).
/// - Names that no architecture here has are skipped. The native architecture always counts as listed.
/// - A call through an architecture that is not listed kills the thread (libseccomp's `SCMP_ACT_KILL` for a bad architecture).
/// - Unless the default action lets calls pass, a number above all that the profile names is `ENOSYS` and not the default
///   action: a program that tries a system call newer than the profile finds its fallback (runc).
/// - On i386 a rule for `connect`, `shmat` and the like also decides that sub-call of `socketcall` and `ipc`. Their arguments
///   are in memory, where the filter cannot see them: of all that conditions could lead to, the strictest is done.
/// - Without `flags` speculative store bypass stays enabled, as in runc and as is the kernel's own default since 5.16.
///
/// # Errors
/// [`Error::Invalid`] naming the field for what cannot be expressed: an argument index above 5, an `errnoRet` where no errno
/// belongs or beyond its range, NOTIFY without a listener, a program longer than the kernel's 4096 instructions.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    compile_for(Abi::native(), profile)
}

fn compile_for(native: Abi, profile: &LinuxSeccomp) -> Result<Filter> {
    let rules = Rules::new(profile)?;
    let abis = abi::listed(native, profile.architectures().as_deref().unwrap_or_default());
    let program = emit::program(&spans::machines(&rules, &abis));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(
            "linux.seccomp.syscalls",
            format!("{} instructions", program.len()),
            format!("is more than the {MAX_INSTRUCTIONS} that the kernel takes; use fewer `args`"),
        ));
    }
    let notify = rules.notifies();
    listener::check(profile, notify)?;
    let flags = flags(profile.flags().as_deref(), notify);
    Ok(Filter { program, flags })
}

/// The flags of seccomp(2). WAIT_KILLABLE_RECV is `EINVAL` without a listener and means nothing there; TSYNC beside a listener
/// needs another way to report its failure, because the result is the descriptor.
fn flags(wanted: Option<&[LinuxSeccompFilterFlag]>, notify: bool) -> u32 {
    let mut flags = if notify { sys::NEW_LISTENER } else { 0 };
    for flag in wanted.unwrap_or(&[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]) {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => sys::LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync if notify => sys::TSYNC | sys::TSYNC_ESRCH,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => sys::TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => sys::SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notify => sys::WAIT_KILLABLE_RECV,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    flags
}

impl Filter {
    /// The number of BPF instructions, from 1 to 4096.
    #[expect(clippy::len_without_is_empty, reason = "no filter is empty")]
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Whether [`Filter::install`] will return a descriptor.
    pub fn wants_listener(&self) -> bool {
        self.flags & sys::NEW_LISTENER != 0
    }

    /// The filter as bytes for another process of this program: the flags, then eight bytes per instruction, little endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_le_bytes().to_vec();
        for i in &self.program {
            bytes.extend(i.code.to_le_bytes());
            bytes.extend([i.jt, i.jf]);
            bytes.extend(i.k.to_le_bytes());
        }
        bytes
    }

    /// The filter of [`Filter::to_bytes`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a length or flags that no filter has. The kernel verifies the instructions.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = || Error::Corrupt(format!("{} bytes are not a seccomp filter", bytes.len()));
        let (flags, rest) = bytes.split_first_chunk().ok_or_else(corrupt)?;
        let (instructions, []) = rest.as_chunks::<8>() else {
            return Err(corrupt());
        };
        let flags = u32::from_le_bytes(*flags);
        if instructions.is_empty() || instructions.len() > MAX_INSTRUCTIONS || flags & !KNOWN_FLAGS != 0 {
            return Err(corrupt());
        }
        let program = instructions
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            });
        Ok(Self {
            program: program.collect(),
            flags,
        })
    }

    /// Adds the filter to this thread, for good; it is inherited by every child and survives `execve`.
    ///
    /// The descriptor, if the profile wants a listener, must be handed over and closed ([`Agent::send`]): once its last
    /// copy is closed, calls with action NOTIFY fail with `ENOSYS`.
    ///
    /// # Errors
    /// Those of `seccomp(2)`, see [`sys::set_filter`].
    pub fn install(&self) -> Result<Option<OwnedFd>> {
        log::debug!("seccomp filter flags: {}", self.flags);
        sys::set_filter(&self.program, self.flags).during(|| "install the seccomp filter")
    }
}
