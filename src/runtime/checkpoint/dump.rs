//! Saving a container.

use std::cell::Cell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::super::bundle::{self, Bundle};
use super::super::container::Container;
use super::super::id::Id;
use super::super::notify;
use super::super::plan::{Choices, Plan};
use super::super::status::Status;
use super::criu::{self, Birth, Criu, Notice};
use super::options::Dump;
use super::rpc::{self, Features, Kind as Ask, PageServer, Request};
use super::{descriptors, external, trouble, unlock};
use crate::cgroups::{Cgroup, Home, Manager};
use crate::error::{Error, Result};
use crate::files::{self, mountinfo};
use crate::host::Host;
use crate::namespaces::Kind;

const LOG: &str = "dump.log";

/// Saves the container `id` of `root`. Unless it is to go on it is deleted then: its processes are gone with the dump.
///
/// # Errors
/// [`Error::Unsupported`] for a missing or old CRIU and for what it cannot save, [`Error::Status`] for a container that does not
/// run. When the dump fails the container goes on as before.
pub fn checkpoint(host: &Host, root: &Path, id: &Id, mut options: Dump<'_>) -> Result<()> {
    criu::check_caller(host, "checkpoint")?;
    let container = Container::load(root, id)?;
    let _lock = container.lock()?;
    let before = container.status(host);
    if !matches!(before, Status::Running | Status::Paused) {
        let text = format!("container cannot be checkpointed in {before} state");
        return Err(Error::Status(text));
    }
    let cgroup = container.need_cgroup(host, "checkpoint")?;
    let plan = plan_of(host, &container, id)?;
    external::check(&plan.rootfs)?;
    criu::check_version(criu::OLDEST)?;
    check_features(&options)?;
    options.common.check_folders(true)?;
    check_parent(&options)?;
    trouble::forget(options.common.log(), LOG);
    let status = options.status.take();
    let dumped = dump(&container, &cgroup, &plan, &options, status)
        .map_err(|e| trouble::explain(e, options.common.log(), LOG));
    if dumped.is_err() && before == Status::Running {
        // A CRIU that died may have left it frozen.
        if cgroup.is_frozen().unwrap_or(false) {
            cgroup.thaw()?;
        }
    }
    dumped?;
    if options.leave_running || options.pre_dump {
        return Ok(());
    }
    container.clear(host)
}

/// The plan by which the container was made.
fn plan_of(host: &Host, container: &Container, id: &Id) -> Result<Plan> {
    let raw = container.config()?;
    let bundle = Bundle {
        path: container.state().bundle.clone(),
        spec: bundle::parse(&raw)?,
        raw,
    };
    let folder = container.folder();
    let bundle = match files::exists(&folder.notify()) {
        true => notify::with_socket(&bundle, folder)?,
        false => bundle,
    };
    let choices = Choices {
        cgroup_manager: match container.state().cgroup {
            Some(Home::Scope(_)) => Manager::Systemd,
            Some(Home::Path(_)) => Manager::Cgroupfs,
            None => Manager::Disabled,
        },
        ..Choices::default()
    };
    Plan::decide(&bundle, id, host, choices)
}

fn check_parent(options: &Dump<'_>) -> Result<()> {
    let Some(parent) = &options.parent else {
        return Ok(());
    };
    let refuse = |problem: &str| Err(Error::invalid("--parent-path", parent.display(), problem));
    if parent.is_absolute() {
        return refuse("must be relative to --image-path");
    }
    if !options.common.images.join(parent).is_dir() {
        return refuse("is no directory below --image-path");
    }
    Ok(())
}

fn check_features(options: &Dump<'_>) -> Result<()> {
    if options.pre_dump {
        let wanted = Features {
            mem_track: Some(true),
            lazy_pages: None,
        };
        criu::check_features("--pre-dump", wanted)?;
    }
    if options.common.lazy_pages {
        let wanted = Features {
            mem_track: None,
            lazy_pages: Some(true),
        };
        criu::check_features("--lazy-pages", wanted)?;
    }
    Ok(())
}

fn request(
    container: &Container,
    cgroup: &Cgroup,
    plan: &Plan,
    options: &Dump<'_>,
    folders: &[OwnedFd],
) -> Result<Request> {
    let gone = || Error::Status("container not running".into());
    let pid = container.state().init.ok_or_else(gone)?.pid;
    let mut asked = rpc::Options {
        pid: Some(pid),
        log_file: LOG.into(),
        root: external::text(plan.rootfs.root())?,
        leave_running: options.leave_running,
        tcp_skip_in_flight: options.tcp_skip_in_flight,
        link_remap: options.link_remap,
        freeze_cgroup: freezer(cgroup)?,
        track_mem: options.parent.is_some() || options.pre_dump,
        parent_img: options.parent.as_deref().map(external::text).transpose()?,
        page_server: options.page_server.clone().map(|(address, port)| PageServer {
            address,
            port: port.into(),
        }),
        ..options.common.request(folders, &container.state().annotations)
    };
    for kind in [Kind::Network, Kind::Pid] {
        if plan.namespaces.joined(kind).is_some() {
            asked.external.extend(external::namespace(pid, kind)?);
        }
    }
    if !options.pre_dump {
        let inside = mountinfo::of(&pid.to_string())?;
        asked.ext_mnt = external::saved(&plan.rootfs, pid, &inside, &mountinfo::of("self")?)?;
        let streams = &container.state().streams;
        asked.external.extend(descriptors::external(streams));
        descriptors::save(&options.common.images, streams)?;
    }
    Ok(Request {
        kind: if options.pre_dump { Ask::PreDump } else { Ask::Dump } as i32,
        options: Some(asked),
        ..Request::default()
    })
}

/// The cgroup by which CRIU stops all processes at once.
fn freezer(cgroup: &Cgroup) -> Result<Option<String>> {
    let paths = cgroup.paths();
    let place = paths.get("freezer").or_else(|| paths.get(""));
    place.map(|path| external::text(path)).transpose()
}

fn dump(
    container: &Container,
    cgroup: &Cgroup,
    plan: &Plan,
    options: &Dump<'_>,
    mut status: Option<OwnedFd>,
) -> Result<()> {
    let criu = Criu::start(&Birth {
        folders: &options.common.folders(),
        ..Birth::default()
    })?;
    let request = request(container, cgroup, plan, options, &criu.folders)?;
    let serving = Cell::new(false);
    let mut attend = |notice: Notice| {
        if notice.script == "status-ready" {
            serving.set(true);
            container.serve(true)?;
            // Closed by that as well: who reads until the end need not wait for ours.
            if let Some(status) = status.take() {
                tell(&status);
            }
        }
        Ok(())
    };
    let wait = |socket: BorrowedFd<'_>| match options.interrupt {
        // Before, the processes have code of CRIU's in them, which is not to be left there.
        Some(interrupt) if serving.get() => wait(socket, interrupt),
        _ => Ok(()),
    };
    match criu.ask_while(&request, &mut attend, &wait) {
        // After a pre-dump it waits for the dump, which will be another's to do.
        Ok(_) if options.pre_dump => Ok(()),
        Ok(_) => criu.finish(),
        Err(e) => {
            drop(criu);
            if serving.get() {
                container.serve(false)?;
                // CRIU leaves it to the restore from there on.
                unlock_network(container, plan).unwrap_or_else(|e| log::warn!("{e}"));
            }
            Err(e)
        }
    }
}

/// Says that pages can be fetched. Nobody there to listen is no reason to give up.
fn tell(status: &OwnedFd) {
    if let Err(e) = rustix::io::write(status, &[0]) {
        log::warn!("cannot write to `--status-fd`: {e}");
    }
}

/// Waits until CRIU says something. Nobody knows whether the pages will ever be fetched.
fn wait(socket: BorrowedFd<'_>, interrupt: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [socket, interrupt].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) => {
                let text = "given up at a signal, before all pages were fetched: the container goes on";
                return Err(Error::Status(text.into()));
            }
        }
    }
}

/// A network of the container's own goes with it.
fn unlock_network(container: &Container, plan: &Plan) -> Result<()> {
    let namespaces = &plan.namespaces;
    match (namespaces.joined(Kind::Network), container.state().init) {
        (Some(path), _) => unlock::once(path),
        (None, Some(init)) if namespaces.is_new(Kind::Network) && init.open().is_some() => {
            unlock::once(format!("/proc/{}/ns/net", init.pid).as_ref())
        }
        _ => Ok(()),
    }
}
