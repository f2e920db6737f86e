//! Programs that hold the processes of a cgroup back from what no limit of the cgroup counts.

mod buffer_program;
mod sysctl_program;
mod table_program;

use std::os::fd::AsFd;

use super::Cgroup;
use crate::error::{During, Result};
use crate::sys::bpf::{self, Hook};

pub use table_program::can_bound_tables;

impl Cgroup {
    /// Puts a program of this name in force; `what` it guards is for the error. A host without cgroup2 has no such fence, and
    /// nothing is done there.
    ///
    /// # Errors
    /// Of `bpf(2)`.
    fn guard(&self, hook: Hook, program: &[u64], name: &str, what: &str) -> Result<()> {
        let Some(dir) = self.hierarchy.cgroup2() else {
            return Ok(());
        };
        let load = || -> Result<()> {
            let program = bpf::load(hook, program, name)?;
            Ok(bpf::attach(hook, dir.as_fd(), program.as_fd())?)
        };
        load().during(|| format!("guard {what} by a program"))
    }
}
