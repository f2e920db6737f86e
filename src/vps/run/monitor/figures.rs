//! The role that tells a VPS's figures in the place of a monitor that was killed, until the VPS's init has ended.

use std::path::Path;

use super::super::figures::tend::Telling;
use super::super::resident::silence;
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::runtime::bundle;
use crate::seccomp::Listener;
use crate::sys;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// For `condo`, which waits until our standard error is closed: the figures are in their places then.
pub(super) fn tell(root: Option<&Path>, name: &Name) -> Result<()> {
    rustix::process::setsid().during(|| "start a session")?;
    sys::fd::close_others(3, &[]).during(|| "let go of inherited descriptors")?;
    let condo = Condo::open(root)?;
    let record = condo.store.get(name)?;
    let stopped = || Error::Status("the VPS is not running".into());
    let container = condo.container(name)?.ok_or_else(stopped)?;
    let init = container.init().ok_or_else(stopped)?;
    let pid = container.state().init.map_or(0, |init| init.pid);
    Cgroup::retreat(&condo.host.cgroups, &super::cgroup(&condo)).during(|| "leave the command's cgroup")?;
    let spec = bundle::parse(&container.config()?)?;
    let asks = Listener::of_spec(&spec).is_some();
    let mut telling = match Telling::begin(&record, &spec, pid) {
        Err(_) if asks => Telling::of_calls(&record, &spec)?,
        other => other?,
    };
    if asks {
        telling.answer_calls(condo.listen_for_calls(name)?)?;
        telling.keep_listeners();
    }
    condo.set_figures_teller(name)?;
    silence()?;
    drop((condo, container, spec));
    telling.until_end(&init, None).map(drop)
}
