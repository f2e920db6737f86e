//! `checkpoint`.

use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::FdFlags;

use super::args::{Checkpoint, Images};
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::runtime::checkpoint::dump;
use crate::runtime::checkpoint::options::{self, CgroupMode, Common, Dump};
use crate::runtime::container::Container;
use crate::runtime::foreground::Signals;
use crate::runtime::id::Id;
use crate::vps::run::adopt;

/// `checkpoint`: the container's state in files; it is deleted unless it is to go on.
pub(super) fn checkpoint(host: &Host, root: &Path, args: &Checkpoint) -> Result<u8> {
    if args.images.lazy_pages && args.page_server.is_none() {
        let problem = "needs `--page-server ADDRESS:PORT`: CRIU would wait at a port that nobody knows";
        return Err(Error::invalid("--lazy-pages", true, problem));
    }
    // Others it ends as it ends any program.
    let signals = args.images.lazy_pages.then(Signals::take).transpose()?;
    let options = Dump {
        common: common(&args.images)?,
        parent: args.parent_path.clone(),
        leave_running: args.leave_running,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        link_remap: args.link_remap,
        status: status(args)?,
        page_server: args
            .page_server
            .as_deref()
            .map(options::page_server)
            .transpose()?,
        pre_dump: args.pre_dump,
        interrupt: signals.as_ref().map(Signals::ending),
    };
    let id = Id::new(&args.id)?;
    if adopt::is_adopted(&Container::load(root, &id)?) {
        let why = "it was made a VPS, whose user ids and root filesystem `restore` could not give it again";
        return Err(Error::unsupported(format!("a checkpoint of `{id}`"), why));
    }
    dump::checkpoint(host, root, &id, options)?;
    Ok(0)
}

/// What both commands take.
pub(super) fn common(args: &Images) -> Result<Common> {
    if let Some(other) = args.empty_ns.iter().find(|name| *name != "network") {
        let problem = "is not a namespace that can be left empty: only `network` can";
        return Err(Error::invalid("--empty-ns", other, problem));
    }
    Ok(Common {
        images: args.image_path.clone(),
        work: args.work_path.clone(),
        tcp_established: args.tcp_established,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        cgroups: CgroupMode::from_name(&args.manage_cgroups_mode)?,
        auto_dedup: args.auto_dedup,
        lazy_pages: args.lazy_pages,
    })
}

fn status(args: &Checkpoint) -> Result<Option<std::os::fd::OwnedFd>> {
    match args.status_fd {
        -1 => Ok(None),
        fd if fd < 0 => Err(Error::invalid("--status-fd", fd, "is not a descriptor")),
        number => {
            let fd = crate::sys::fd::adopt(number).during(|| format!("--status-fd `{number}`"))?;
            let mode = rustix::fs::fcntl_getfl(&fd)? & OFlags::RWMODE;
            if mode != OFlags::WRONLY && mode != OFlags::RDWR {
                return Err(Error::invalid("--status-fd", number, "is not open for writing"));
            }
            // Held by CRIU as well, it would have no end before CRIU's.
            rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
            Ok(Some(fd))
        }
    }
}
