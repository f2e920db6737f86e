//! Bringing a saved container back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Signal;

use super::super::bundle::Bundle;
use super::super::claim::Claim;
use super::super::container::Container;
use super::super::hooks::{self, Surroundings};
use super::super::id::Id;
use super::super::init::Newborn;
use super::super::init::announce::announce;
use super::super::init::parent::move_devices;
use super::super::plan::{Choices, Plan};
use super::super::{console, lsm, notify};
use super::criu::{self, Birth, Criu, Notice};
use super::descriptors::Streams;
use super::options::{CgroupMode, Restore};
use super::rpc::{self, CgroupRoot, InheritFd, JoinNamespace, Kind as Ask, Request};
use super::{external, lend, trouble, unlock, verify};
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::files::{self, mountinfo};
use crate::host::Host;
use crate::namespaces::user::namespace_of;
use crate::namespaces::{Kind, enter};
use crate::rootfs::{self, RootfsPlan};
use crate::sys;
use crate::undo::Undo;

const LOG: &str = "restore.log";

/// What the caller of `restore` asks for.
#[derive(Debug)]
pub struct Comeback<'a> {
    /// Where the states of all containers are.
    pub root: &'a Path,
    /// The container's id.
    pub id: &'a Id,
    /// The bundle.
    pub bundle: &'a Bundle,
    /// Where a terminal's master goes.
    pub console: Option<OwnedFd>,
    /// Where init's pid is written.
    pub pid_file: Option<&'a Path>,
    /// Descriptors after the standard streams that take the places of saved ones.
    pub preserve_fds: u32,
    /// How it is done.
    pub choices: Choices,
    /// What CRIU is asked for.
    pub options: &'a Restore,
}

/// A container that runs again.
#[derive(Debug)]
pub struct Restored {
    /// The container.
    pub container: Container,
    /// Init, a child of this process.
    pub init: Newborn,
}

/// Brings the container back, or leaves nothing.
///
/// The prestart and createRuntime hooks run when its namespaces are there, with `creating`; those that would run inside have run
/// before the checkpoint. State and pid file are written before the processes run.
///
/// # Errors
/// As `create`'s, before anything was done; [`Error::NotFound`] without the images; [`Error::Unsupported`] for a missing or old
/// CRIU; what CRIU's log says otherwise.
pub fn restore(host: &Host, request: &Comeback<'_>) -> Result<Restored> {
    criu::check_caller(host, "restore")?;
    let plan = Plan::decide(request.bundle, request.id, host, request.choices)?;
    plan.cgroup.as_ref().ok_or_else(without_cgroup)?;
    let streams = prepare(request, &plan)?;
    let mut claim = Claim::stake(host, (request.root, request.id), request.bundle, &plan, None)?;
    claim.state.streams = streams.renamed();
    claim.delegate()?;
    notify::make_place(claim.folder())?;
    make_places(&plan.rootfs)?;
    let return_ = Return {
        plan: &plan,
        request,
        devices: Undo::new(),
        init: None,
        claim,
    };
    return_.bring_back(streams.inherited())
}

/// What can be refused before anything is done. The saved streams that find ours in their places.
fn prepare(request: &Comeback<'_>, plan: &Plan) -> Result<Streams> {
    lsm::check_mount_label(request.bundle.spec.linux().as_ref())?;
    external::check(&plan.rootfs)?;
    let common = &request.options.common;
    common.check_folders(false)?;
    let end = usize::try_from(request.preserve_fds)
        .unwrap_or(usize::MAX)
        .saturating_add(3);
    let streams = Streams::load(&common.images, end)?;
    criu::check_version(request.options.oldest())?;
    trouble::forget(common.log(), LOG);
    Ok(streams)
}

fn without_cgroup() -> Error {
    let why =
        "CRIU puts the processes together in the container's cgroup; leave out `--cgroup-manager disabled`";
    Error::unsupported("`restore` without a cgroup", why)
}

/// Makes the places of mounts that the root filesystem lacks (it may be a fresh copy on another host), in the way of `create`: the
/// tree is put together once, in a process whose mounts end with it.
fn make_places(plan: &RootfsPlan) -> Result<()> {
    let work = || rootfs::assemble(plan, plan.open_sources()?, &mut |_, _| Ok(())).map(drop);
    criu::to_its_end(Kind::Mount.flag(), work)
}

/// One restore on its way.
struct Return<'a> {
    plan: &'a Plan,
    request: &'a Comeback<'a>,
    devices: Undo<'static>,
    init: Option<Newborn>,
    claim: Claim<'a>,
}

impl Return<'_> {
    /// When it fails no process is left of the container, wherever the images wanted it to be.
    fn bring_back(mut self, streams: Vec<InheritFd>) -> Result<Restored> {
        let done = self.run(streams);
        let log = self.request.options.common.log();
        match (done, self.init) {
            (Ok(()), Some(init)) => {
                self.devices.disarm();
                let container = self.claim.keep();
                Ok(Restored { container, init })
            }
            (Ok(()), None) => Err(Error::Init("criu restored nothing".into())),
            (Err(e), init) => {
                if let Some(init) = init {
                    init.give_up();
                }
                Err(trouble::explain(e, log, LOG))
            }
        }
    }

    fn cgroup(&self) -> Result<&Cgroup> {
        self.claim.cgroup.as_ref().ok_or_else(without_cgroup)
    }

    fn run(&mut self, streams: Vec<InheritFd>) -> Result<()> {
        let namespaces = self.open_namespaces()?;
        // Beside what the caller passed to us: that is inheritable already.
        let inherited: Vec<BorrowedFd<'_>> = namespaces.iter().map(|(_, fd)| fd.as_fd()).collect();
        let plan = self.plan;
        let images = &self.request.options.common.images;
        let users = plan.namespaces.is_new(Kind::User);
        if let Some((uid, _)) = plan.ids.root().filter(|_| users) {
            // They are opened once more from inside.
            console::own_pipes(uid);
        }
        // Cgroups that CRIU is to leave alone are no reason for it to make their namespace.
        let unmanaged = self.request.options.common.cgroups == CgroupMode::Ignore;
        let cgroup_namespace = unmanaged && plan.namespaces.is_new(Kind::Cgroup);
        let prepare = || {
            plan.rootfs.cover_root()?;
            if cgroup_namespace {
                enter::unshare(Kind::Cgroup)?;
            }
            let root = plan.ids.root().filter(|_| users);
            root.map_or(Ok(()), |(_, gid)| lend::to_group(images, gid))
        };
        let criu = Criu::start(&Birth {
            // Its mounts, the root above all, are nobody else's, and gone with it.
            namespaces: Kind::Mount.flag(),
            cgroup: self.claim.cgroup.as_ref(),
            inherited: &inherited,
            folders: &self.request.options.common.folders(),
            prepare: Some(&prepare),
        })?;
        // From here on it keeps the cgroup alive, and what it makes is of its class of caches.
        self.claim.settle(criu.pid())?;
        let mut options = self.options(&criu)?;
        options.inherit_fd = streams;
        for (kind, fd) in &namespaces {
            options
                .inherit_fd
                .extend(external::key(*kind).map(|key| InheritFd {
                    key: key.into(),
                    fd: fd.as_raw_fd(),
                }));
        }
        let request = Request {
            kind: Ask::Restore as i32,
            options: Some(options),
            ..Request::default()
        };
        criu.ask(&request, &mut |notice| self.attend(notice, criu.pid()))?;
        criu.finish()
    }

    /// The namespaces that are the caller's to keep, which CRIU gets by descriptor.
    fn open_namespaces(&self) -> Result<Vec<(Kind, OwnedFd)>> {
        let joined = self.plan.namespaces.all_joined();
        let external = joined.filter(|(kind, _)| external::key(*kind).is_some());
        external
            .map(|(kind, path)| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
                    .during(|| format!("open namespace `{}`", path.display()))?;
                Ok((kind, fd))
            })
            .collect()
    }

    /// The options for CRIU, which is there already.
    fn options(&self, criu: &Criu) -> Result<rpc::Options> {
        let asked = self.request.options;
        let mut joined = Vec::new();
        for (kind, path) in self.plan.namespaces.all_joined() {
            match kind {
                Kind::Network | Kind::Pid => {}
                Kind::Cgroup => {
                    let why = "CRIU cannot join a cgroup namespace; leave out its `path`";
                    return Err(Error::unsupported(
                        "`linux.namespaces`: a cgroup namespace by path",
                        why,
                    ));
                }
                kind => joined.push(JoinNamespace {
                    kind: kind.file().into(),
                    file: external::text(path)?,
                }),
            }
        }
        Ok(rpc::Options {
            log_file: LOG.into(),
            root: external::text(self.plan.rootfs.root())?,
            evasive_devices: true,
            rst_sibling: true,
            tcp_close: asked.tcp_close,
            lsm_profile: asked.lsm_profile.clone(),
            lsm_mount_context: asked.lsm_mount_context.clone(),
            ext_mnt: external::provided(
                &self.plan.rootfs,
                &mountinfo::of("self")?,
                &self.claim.folder().notify(),
            )?,
            cg_root: cgroup_roots(criu.pid())?,
            join_ns: joined,
            ..asked.common.request(&criu.folders, &self.claim.state.annotations)
        })
    }

    fn attend(&mut self, notice: Notice, criu: i32) -> Result<()> {
        match notice.script.as_str() {
            "setup-namespaces" => self.settle(notice.pid),
            "orphan-pts-master" => match (notice.fd, &self.request.console) {
                (Some(master), Some(receiver)) => console::send_master(receiver.as_fd(), &master),
                _ => Err(Error::invalid(
                    "process.terminal",
                    false,
                    "does not fit the checkpoint, whose container has a terminal",
                )),
            },
            "post-restore" => self.introduce(notice.pid),
            "network-unlock" => {
                let network = self.plan.namespaces.joined(Kind::Network);
                network.map_or(Ok(()), unlock::all_but_one)
            }
            "pre-resume" => {
                let init = self.init.as_ref().map_or(0, |init| init.pid);
                let checked = || verify::all(self.plan, self.cgroup()?, init, criu);
                checked().inspect_err(|_| self.put_down())
            }
            _ => Ok(()),
        }
    }

    /// CRIU lets the processes go whatever it is answered. Init need not be in the cgroup.
    fn put_down(&self) {
        if let Some(init) = &self.init {
            let _ = rustix::process::pidfd_send_signal(&init.pidfd, Signal::KILL);
        }
        if let Err(e) = self.cgroup().and_then(Cgroup::kill) {
            log::warn!("{e}");
        }
    }

    /// The network, which CRIU leaves empty, then the hooks that would find the namespaces complete at `create`.
    fn settle(&mut self, pid: i32) -> Result<()> {
        self.claim.born();
        let init = self.init.insert(Newborn::named(pid)?);
        let own = [Kind::Network, Kind::Ipc, Kind::Uts].into_iter();
        let kinds: Vec<Kind> = own.filter(|kind| self.plan.namespaces.is_new(*kind)).collect();
        let loopback = kinds.contains(&Kind::Network);
        let work = || {
            enter::join_process(init.pidfd.as_fd(), &kinds)?;
            if loopback {
                sys::interface::set_loopback_up().during(|| "bring up the loopback interface")?;
            }
            self.plan.sysctls.apply(None)
        };
        if !kinds.is_empty() {
            criu::to_its_end(0, work)?;
        }
        self.devices = self.move_devices(pid)?;
        let state = self.claim.state.oci(pid, "creating");
        let around = Surroundings::of_bundle(&self.claim.state.bundle);
        hooks::run("prestart", &self.plan.hooks.prestart, &state, around)?;
        hooks::run("createRuntime", &self.plan.hooks.create_runtime, &state, around)
    }

    /// Those of a namespace that was joined stayed there, unless it is another one.
    fn move_devices(&self, pid: i32) -> Result<Undo<'static>> {
        if self.plan.namespaces.joined(Kind::Network).is_none() || self.plan.devices.is_empty() {
            return move_devices(self.plan, pid);
        }
        let network = namespace_of(pid, Kind::Network)?;
        let devices = self.plan.devices.missing_in(network.as_fd())?;
        devices.move_into(network.as_fd())
    }

    /// Init is there, and still: from here on the container can be found.
    fn introduce(&mut self, pid: i32) -> Result<()> {
        let init = Newborn::named(pid)?;
        self.claim.state.namespaces = foreign_namespaces(pid)?;
        self.claim.name_init(pid)?;
        announce(self.init.insert(init), self.request.pid_file, None)
    }
}

/// The namespaces the process does not share with us. CRIU makes a time namespace that the config need not have, so that clocks
/// go on where they stopped.
fn foreign_namespaces(pid: i32) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{}", kind.file()));
        if of(&pid.to_string())? != of("self")? {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Where saved cgroups are put: the container's own, in which CRIU already is, in every hierarchy.
fn cgroup_roots(pid: i32) -> Result<Vec<CgroupRoot>> {
    let text = files::read_text(Path::new(&format!("/proc/{pid}/cgroup")))?;
    Ok(roots(&text))
}

/// Lines of `proc_pid_cgroup(5)`: `4:cpu,cpuacct:/path`, `1:name=systemd:/path`, `0::/path`.
fn roots(text: &str) -> Vec<CgroupRoot> {
    let lines = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'));
    lines
        .flat_map(|(controllers, path)| {
            controllers.split(',').map(|controller| CgroupRoot {
                controller: Some(controller.to_owned()),
                path: path.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_root() {
        let found = roots("4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n");
        let found: Vec<_> = found
            .iter()
            .map(|r| (r.controller.as_deref().unwrap(), r.path.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("cpu", "/a"),
                ("cpuacct", "/a"),
                ("name=systemd", "/b:c"),
                ("", "/d")
            ]
        );
    }
}
