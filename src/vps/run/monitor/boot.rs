//! From a record to a running VPS.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::io::FdFlags;
use rustix::net::{SocketFlags, SocketType};
use rustix::process::WaitOptions;

use super::super::engines;
use super::super::figures::calls::Calls;
use super::super::figures::tend::{NOBODY, Telling};
use super::super::names;
use super::super::nodes::{self, Node};
use super::super::program;
use super::super::provision::{self, Pending};
use super::super::resident::silence;
use super::super::spec::{self, Init, Input};
use super::super::tables;
use super::super::terminals;
use super::RUNNING;
use super::alone::become_watch;
use super::early::{self, Early};
use super::log::Log;
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::files::{self, Root, socket};
use crate::namespaces::user::{IdMap, namespace_of};
use crate::namespaces::{Kind, enter};
use crate::process::inherited;
use crate::runtime::bundle::Bundle;
use crate::runtime::console;
use crate::runtime::id::Id;
use crate::runtime::init::Newborn;
use crate::runtime::init::parent::{self, Created, Provided, Request};
use crate::runtime::plan::Choices;
use crate::runtime::status::Identity;
use crate::seccomp::{self, Listener};
use crate::storage::Owners;
use crate::sys;
use crate::vps::record::facts::Facts;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::permit::{self, Permit};
use crate::vps::record::store::Record;
use crate::vps::wire::network;

/// Boots for `condo start`, which reads our standard error for the outcome; then watches.
pub(super) fn first(root: Option<&Path>, name: &Name) -> Result<()> {
    // Out of the command's session: its terminal's end is not ours.
    rustix::process::setsid().during(|| "start a session")?;
    // Nor is what it inherited: a pipe or a lock of a script would stay open for as long as the VPS runs.
    sys::fd::close_on_exec_from(3).during(|| "let go of inherited descriptors")?;
    let kept = inherited::shed();
    let watched = boot(root, name)?;
    let said = report(&kept, watched.unseen.as_ref(), watched.early.as_ref());
    let _ = std::io::stderr().write_all(said.as_bytes());
    silence()?;
    Err(watched.watch(root, name, 0))
}

/// Boots again after a reboot from inside; then watches. `hasty` is how many runs in a row were short until now.
pub(super) fn again(root: Option<&Path>, name: &Name, hasty: u32) -> Result<()> {
    // Who kept the listener of the run before.
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    let watched = boot(root, name)?;
    Err(watched.watch(root, name, hasty))
}

/// What the command is told: remarks, and that the VPS runs if it does.
fn report(kept: &[String], figures: Option<&Error>, early: Option<&Early>) -> String {
    let mut lines = Vec::new();
    if !kept.is_empty() {
        lines.push(format!(
            "it has what its starter has and may not change back: {}; start it from a shell without",
            kept.join(", ")
        ));
    }
    lines.extend(figures.map(|e| format!("`free`, `top` and others show the host's figures in it: {e}")));
    match early {
        Some(early) if !early.meant => return early.text.clone(),
        other => lines.extend(other.map(|early| early.text.clone())),
    }
    lines
        .iter()
        .map(|line| format!("{line}\n"))
        .chain([RUNNING.to_owned()])
        .collect()
}

/// What the loop needs of a VPS that runs.
struct Watched {
    init: Newborn,
    master: OwnedFd,
    listener: OwnedFd,
    /// Held so that what its interfaces have counted can be read when its processes are gone.
    netns: OwnedFd,
    log: PathBuf,
    /// Its figures.
    figures: Option<Telling>,
    /// Why its files have the host's.
    unseen: Option<Error>,
    /// An end that has come already.
    early: Option<Early>,
}

impl Watched {
    /// Becomes the loop.
    fn watch(self, root: Option<&Path>, name: &Name, hasty: u32) -> Error {
        let fds = [&self.init.pidfd, &self.master, &self.listener, &self.netns];
        for fd in fds {
            if let Err(e) = rustix::io::fcntl_setfd(fd, FdFlags::empty()) {
                return e.into();
            }
        }
        let mut rest = vec![self.log.display().to_string(), self.init.pid.to_string()];
        rest.extend(fds.map(|fd| fd.as_raw_fd().to_string()));
        rest.push(hasty.to_string());
        rest.push(match &self.figures {
            Some(telling) => match telling.hand_over() {
                Ok(word) => word,
                Err(e) => return e,
            },
            None => NOBODY.to_owned(),
        });
        become_watch(root, name.as_str(), &rest)
    }
}

fn boot(root: Option<&Path>, name: &Name) -> Result<Watched> {
    let condo = Condo::open(root)?;
    let record = condo.store.get(name)?;
    files::create_dir_all(&condo.folders.run_of(name), 0o700)?;
    condo.set_monitor(name, &Identity::own()?)?;
    condo.set_running(name)?;
    let result = raise(&condo, &record);
    if result.is_err() {
        // The failure that stopped us is the one to report; what cannot be freed now, the next command frees.
        if let Err(e) = condo.take_down(&record) {
            log::warn!("{e}");
        }
    }
    result
}

fn raise(condo: &Condo, record: &Record) -> Result<Watched> {
    Cgroup::retreat(&condo.host.cgroups, &super::cgroup(condo)).during(|| "leave the command's cgroup")?;
    let image = condo.images().get(record.booted())?;
    // The root disk never shows in the host's mount table and goes with us.
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let home = namespace_of(own, Kind::Mount)?;
    enter::leave_mounts()?;
    let mounted = mount(condo, record)?;
    let nodes = nodes::of(&record.config)?;
    nodes::make(&nodes_of(condo, record), &nodes, record.uid_base)?;
    let rootfs = condo.folders.rootfs(&record.name);
    let init = program::of(&image.manifest, &rootfs, &mounted.pending)?;
    let profile = filter(condo, record);
    let asks = Listener::of(&profile).is_some();
    let bundle = render(condo, record, &init, (&mounted.engines, &nodes), profile)?;
    terminals::make_room();
    let (ours, theirs) = console::pair()?;
    let calls = asks.then(|| condo.listen_for_calls(&record.name)).transpose()?;
    let created = create(condo, record, &bundle, theirs)?;
    condo.hold_project(record)?;
    let master = console::receive_fd(ours.as_fd())?;
    let figures = Telling::begin(record, &bundle.spec, created.init.pid);
    names::remember_root(condo, &record.name, created.init.pid)?;
    let netns = namespace_of(created.init.pid, Kind::Network)?;
    let listener = listen(&condo.folders.run_of(&record.name))?;
    created.container.start(&condo.host)?;
    created.link.wait_for_exec()?;
    let (figures, unseen) = with_calls(figures, calls, (record, &bundle.spec))?;
    enter::return_to(home.as_fd(), Kind::Mount)?;
    let log = condo.folders.console_log(&record.name);
    let early = early::look(&created.init, master.as_fd(), &mut Log::open(log.clone()))?;
    Ok(Watched {
        init: created.init,
        master,
        listener,
        netns,
        log,
        figures,
        unseen,
        early,
    })
}

/// The figures, with who answers system calls where there is such, also where there are no files; and why there are none.
fn with_calls(
    figures: Result<Telling>,
    calls: Option<Calls>,
    (record, spec): (&Record, &Spec),
) -> Result<(Option<Telling>, Option<Error>)> {
    let (mut figures, unseen) = match figures {
        Ok(telling) => (Some(telling), None),
        Err(e) => (None, Some(e)),
    };
    if let Some(mut calls) = calls {
        calls.meet()?;
        let mut telling = figures.map_or_else(|| Telling::of_calls(record, spec), Ok)?;
        telling.answer_calls(calls)?;
        figures = Some(telling);
    }
    Ok((figures, unseen))
}

/// The system calls it is refused or asked about. A process has one filter at most that asks (`seccomp(2)`, `EBUSY`), and those in a VPS
/// have that one's.
fn filter(condo: &Condo, record: &Record) -> LinuxSeccomp {
    let own = record.config.own_sysinfo && condo.host.caller.privileged && seccomp::can_ask();
    let agent = own.then(|| condo.calls_of(&record.name));
    seccomp::vps_profile(permit::concessions(&record.config.permit), agent.as_deref())
}

/// What the mounted root disk asks for.
struct Mounted {
    /// What is to be done inside first.
    pending: Pending,
    /// Places of container engines that have directories beside it.
    engines: Vec<&'static str>,
}

/// Mounts the root disk, and beside it directories for container engines.
fn mount(condo: &Condo, record: &Record) -> Result<Mounted> {
    let target = condo.folders.rootfs(&record.name);
    files::create_dir_all(&target, 0o700)?;
    let userns = IdMap::shifted(record.uid_base, record.ids()).into_namespace()?;
    let owners = Owners {
        userns: userns.as_fd(),
        range: record.range(),
    };
    let (disk, seat) = match &record.config.rescue {
        None => (condo.disk(record)?, condo.folders.seat(&record.name)),
        Some(rescue) => {
            mount_own(condo, record, owners)?;
            let seat = condo.folders.rescue(&record.name);
            (condo.rescue_disk(rescue, record)?, seat)
        }
    };
    disk.mount(owners, &target)?;
    let pending = provision::first_start(record, &network::resolvers(condo, record)?, &seat, &target)?;
    // Its tenant may have made something else of the file: it starts all the same.
    if let Err(e) = Root::open(&target).and_then(|root| names::write(condo, record, &root)) {
        log::warn!("the names of VPSs that it may talk to are not told: {e}");
    }
    let engines = match condo.volume(record).is_safe_without_overlay() {
        true => engines::free(&target)?,
        false => Vec::new(),
    };
    let names: Vec<&str> = engines.iter().map(|place| engines::name(place)).collect();
    let beside = engines_of(condo, record);
    files::create_dir_all(&beside, 0o700)?;
    disk.mount_plain(&names, owners, &beside)?;
    Ok(Mounted { pending, engines })
}

/// Mounts the disk of a VPS whose place a rescue system has.
fn mount_own(condo: &Condo, record: &Record, owners: Owners<'_>) -> Result<()> {
    let own = own_of(condo, record);
    files::create_dir_all(&own, 0o700)?;
    condo.disk(record)?.mount(owners, &own)
}

/// Where that is mounted, seen by nobody else. As for [`engines_of`].
fn own_of(condo: &Condo, record: &Record) -> PathBuf {
    condo.folders.bundle(&record.name).join("own")
}

/// Where the directories of container engines are mounted, seen by nobody else. Not below what a failed start removes, while they are
/// still mounted.
fn engines_of(condo: &Condo, record: &Record) -> PathBuf {
    condo.folders.bundle(&record.name).join("engines")
}

/// Where the VPS's device nodes are made, seen by nobody else. As for [`engines_of`].
fn nodes_of(condo: &Condo, record: &Record) -> PathBuf {
    condo.folders.bundle(&record.name).join("dev")
}

fn render(
    condo: &Condo,
    record: &Record,
    init: &Init,
    (engines, nodes): (&[&'static str], &[Node]),
    profile: LinuxSeccomp,
) -> Result<Bundle> {
    let limits = &record.config.limits;
    let disk = condo.limited_disk(record, limits)?;
    let facts = Facts::probe(&condo.host)?;
    let rootfs = condo.folders.rootfs(&record.name);
    let own = own_of(condo, record);
    let spec = spec::render(Input {
        record,
        init,
        rootfs: &rootfs,
        nodes: (&nodes_of(condo, record), nodes),
        engines: (&engines_of(condo, record), engines),
        own: record.config.rescue.as_ref().map(|_| own.as_path()),
        cgroup: &condo.place_of(record)?,
        disk,
        facts: &facts,
        seccomp: Some(profile),
    })?;
    let path = condo.folders.bundle(&record.name);
    files::write_atomic(&path.join("config.json"), &serde_json::to_vec(&spec)?, 0o600)?;
    Bundle::load(&path)
}

fn create(condo: &Condo, record: &Record, bundle: &Bundle, console: OwnedFd) -> Result<Created> {
    let id = Id::new(record.name.as_str())?;
    let root = condo.folders.runtime();
    let request = Request {
        root: &root,
        id: &id,
        bundle,
        console: Some(console),
        pid_file: None,
        pidfd_socket: None,
        listen_fds: 0,
        preserve_fds: 0,
        provided: Provided::default(),
        choices: Choices {
            own_account: true,
            console: true,
            ..Choices::default()
        },
    };
    let connect = |pid: i32, cgroup: Option<&Cgroup>| {
        cgroup.map_or(Ok(()), |cgroup| bound_kernel(condo, record, cgroup))?;
        network::attach(condo, record, namespace_of(pid, Kind::Network)?.as_fd())
    };
    parent::create(&condo.host, request, &connect)
}

/// Bounds memory of the kernel that does not count as the VPS's. Before there is a program that could take it: only sockets made
/// from now on count. In a VPS nobody may do that, and the bounds of that one hold for all in it.
fn bound_kernel(condo: &Condo, record: &Record, cgroup: &Cgroup) -> Result<()> {
    if !condo.host.caller.privileged {
        return Ok(());
    }
    cgroup.guard_sysctls()?;
    if !record.config.permit.contains(&Permit::LargeBuffers) {
        cgroup.guard_buffers()?;
    }
    if !record.config.permit.contains(&Permit::LargeTables) {
        tables::bound(cgroup, record.config.limits.table_memory());
    }
    let sockets = record.config.limits.socket_memory();
    sockets.map_or(Ok(()), |bytes| cgroup.bound_sockets(bytes))
}

/// The socket in the run directory that `condo console` connects to.
fn listen(folder: &Path) -> Result<OwnedFd> {
    let path = folder.join("console.sock");
    socket::listen(&path, SocketType::STREAM, SocketFlags::empty(), 4)
}
