//! The role that keeps the listeners of system call filters open beside the monitors.

use std::path::Path;

use super::super::figures::keeper::Keeper;
use super::super::resident::silence;
use crate::error::{During, Result};
use crate::process::limits;
use crate::sys;

/// For the instance whose VPSs have their run directories in this folder. Who has started it waits until our standard error is closed.
pub(super) fn keep(folder: &Path) -> Result<()> {
    rustix::process::setsid().during(|| "start a session")?;
    sys::fd::close_others(3, &[]).during(|| "let go of inherited descriptors")?;
    limits::raise_files();
    let keeper = Keeper::listen(folder)?;
    silence()?;
    keeper.run()
}
