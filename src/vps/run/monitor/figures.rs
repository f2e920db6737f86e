//! The role that tells a VPS's figures in the place of a monitor that was killed, until the VPS's init has ended.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::figures::tend::Telling;
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::runtime::bundle;
use crate::sys;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// For `condo`, which waits until our standard error is closed: the figures are in their places then.
pub(super) fn tell(root: Option<&Path>, name: &Name) -> Result<()> {
    rustix::process::setsid().during(|| "start a session")?;
    sys::fd::close_on_exec_from(3).during(|| "let go of inherited descriptors")?;
    let condo = Condo::open(root)?;
    let record = condo.store.get(name)?;
    let stopped = || Error::Status("the VPS is not running".into());
    let container = condo.container(name)?.ok_or_else(stopped)?;
    let init = container.init().ok_or_else(stopped)?;
    let pid = container.state().init.map_or(0, |init| init.pid);
    Cgroup::retreat(&condo.host.cgroups, &super::cgroup(&condo)).during(|| "leave the command's cgroup")?;
    let spec = bundle::parse(&container.config()?)?;
    let mut telling = Telling::begin(&condo, &record, &spec, pid)?;
    condo.set_figures_teller(name)?;
    super::boot::silence()?;
    drop((condo, container, spec));
    loop {
        let (device, patience) = telling.wants(Instant::now());
        // Where nothing is to be asked, init stands in and is asked about nothing.
        let absent = (init.as_fd(), PollFlags::empty());
        let asked = device.map_or(absent, |device| (device, PollFlags::IN));
        let mut fds = [
            PollFd::from_borrowed_fd(init.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(asked.0, asked.1),
        ];
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match rustix::event::poll(&mut fds, patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.during(|| "wait for questions")?,
        };
        let (ended, asked) = (
            !fds[0].revents().is_empty(),
            device.is_some() && !fds[1].revents().is_empty(),
        );
        if ended || !telling.go_on(asked) {
            return Ok(());
        }
    }
}
