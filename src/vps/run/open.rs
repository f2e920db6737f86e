//! Opening an instance of condo: what every command does first.

use std::path::Path;

use crate::cgroups;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::vps::record::instance::Condo;
use crate::vps::wire::damage;

impl Condo {
    /// Opens the instance below `root`, or the host's own.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let host = Host::probe()?;
        if host.caller.uid != 0 {
            return Err(Error::unsupported(
                "running condo as an ordinary user",
                "try again with sudo",
            ));
        }
        let condo = Self::at(root, with_cgroup2(host))?;
        // Nothing that the command is about: it goes on.
        if let Err(e) = damage::restore_if_damaged(&condo) {
            log::warn!("the network of running VPSs is damaged and could not be restored: {e}");
        }
        if let Err(e) = condo.finish_renames() {
            log::warn!("a rename that was interrupted could not be finished: {e}");
        }
        Ok(condo)
    }
}

/// The host with cgroup2 beside its v1 controllers, if it can have that.
fn with_cgroup2(host: Host) -> Host {
    let look = || match cgroups::mount_cgroup2(&host.cgroups)? {
        true => Host::probe().map(Some),
        false => Ok(None),
    };
    look()
        .inspect_err(|e| log::warn!("VPSs are without what only cgroup2 can hold: {e}"))
        .ok()
        .flatten()
        .unwrap_or(host)
}
