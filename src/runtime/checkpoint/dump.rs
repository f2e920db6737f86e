//! Saving a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::super::bundle::{self, Bundle};
use super::super::container::Container;
use super::super::id::Id;
use super::super::plan::{Choices, Plan};
use super::super::status::Status;
use super::criu::{self, Birth, Criu, Notice};
use super::options::Dump;
use super::rpc::{self, Features, Kind as Ask, PageServer, Request};
use super::{descriptors, external, trouble};
use crate::cgroups::{Cgroup, Home, Manager};
use crate::error::{Error, Result};
use crate::files::mountinfo;
use crate::host::Host;
use crate::namespaces::Kind;

const LOG: &str = "dump.log";

/// Saves the container `id` of `root`. Unless it is to go on it is deleted then: its processes are gone with the dump.
///
/// # Errors
/// [`Error::Unsupported`] for a missing or old CRIU and for what it cannot save, [`Error::Status`] for a container that does not
/// run. When the dump fails the container goes on as before.
pub fn checkpoint(host: &Host, root: &Path, id: &Id, options: &Dump) -> Result<()> {
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
    criu::check_version()?;
    check_features(options)?;
    options.common.check_folders(true)?;
    check_parent(options)?;
    trouble::forget(options.common.log(), LOG);
    let dumped =
        dump(&container, &cgroup, &plan, options).map_err(|e| trouble::explain(e, options.common.log(), LOG));
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

fn check_parent(options: &Dump) -> Result<()> {
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

fn check_features(options: &Dump) -> Result<()> {
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
    options: &Dump,
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
        let others = cgroup.pids()?.into_iter().filter(|other| *other != pid);
        let pids: Vec<i32> = std::iter::once(pid).chain(others).collect();
        let names = descriptors::names(&pids, &inside)?;
        asked.external.extend(descriptors::external(&names));
        descriptors::save(&options.common.images, &names)?;
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

fn dump(container: &Container, cgroup: &Cgroup, plan: &Plan, options: &Dump) -> Result<()> {
    let criu = Criu::start(&Birth {
        folders: &options.common.folders(),
        ..Birth::default()
    })?;
    let request = request(container, cgroup, plan, options, &criu.folders)?;
    let mut attend = |notice: Notice| match (&options.status, notice.script.as_str()) {
        (Some(status), "status-ready") => Ok(rustix::io::write(status.as_fd(), &[0]).map(drop)?),
        _ => Ok(()),
    };
    criu.ask(&request, &mut attend)?;
    criu.finish()
}
