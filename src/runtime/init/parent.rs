//! The runtime's side of `create`: from a plan to an init process that waits for the order to start.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxSeccomp};

use super::super::bundle::Bundle;
use super::super::checkpoint::descriptors;
use super::super::claim::Claim;
use super::super::container::Container;
use super::super::hooks::{self, Surroundings};
use super::super::id::Id;
use super::super::plan::{Choices, Plan};
use super::super::state::Folder;
use super::super::{lsm, notify};
use super::announce::announce;
use super::child::{self, Setup};
use super::link::{self, Born, Done, Held, Parent, Ready};
use super::{Newborn, born_in, door, step_aside};
use crate::cgroups::Cgroup;
use crate::error::{During, Error, Result};
use crate::host::Host;
use crate::namespaces::ranges::Claimed;
use crate::namespaces::user::namespace_of;
use crate::namespaces::{Kind, enter};
use crate::process::{affinity, limits};
use crate::rootfs::Sources;
use crate::seccomp::{self, Filter};
use crate::sys;
use crate::sys::clone::Side;
use crate::undo::Undo;

/// What the caller of `create` asks for.
#[derive(Debug)]
pub struct Request<'a> {
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
    /// A socket that gets init's pidfd.
    pub pidfd_socket: Option<&'a Path>,
    /// Listening sockets from descriptor 3 on that init inherits and hears of by `LISTEN_FDS` (`sd_listen_fds(3)`).
    pub listen_fds: u32,
    /// Descriptors after those that init inherits.
    pub preserve_fds: u32,
    /// What was made for it before.
    pub provided: Provided,
    /// How it is done.
    pub choices: Choices,
}

/// What a container gets that its bundle cannot name.
#[derive(Debug, Default)]
pub struct Provided {
    /// The root filesystem as a detached mount, in place of what is at `root.path`.
    pub rootfs: Option<OwnedFd>,
    /// Device nodes as detached mounts, in place of the host's of these paths.
    pub devices: Vec<(PathBuf, OwnedFd)>,
    /// User ids of the machine, which the container gives back when it is deleted.
    pub ids: Option<Claimed>,
    /// A connection to the seccomp agent of the profile, which cannot be reached by its path yet.
    pub agent: Option<UnixStream>,
}

/// A container whose init waits.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Init.
    pub init: Newborn,
    /// For callers that want to hear that the program runs.
    pub link: Parent<Done>,
}

/// What the caller of `create` has to do for an init while that makes its mounts, by its pid and its cgroup: it has its namespaces, and
/// nothing of the container's own runs yet.
pub type Meanwhile<'m> = &'m dyn Fn(i32, Option<&Cgroup>) -> Result<()>;

/// Makes the container, or leaves nothing.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Unsupported`] before anything was done; [`Error::Exists`] for an id in use; whatever fails later,
/// `meanwhile` as well, with the step that was under way.
pub fn create(host: &Host, request: Request<'_>, meanwhile: Meanwhile<'_>) -> Result<Created> {
    limits::raise_files();
    let folder = Folder::new(request.root, request.id);
    let notify = request.choices.notify;
    let told = notify
        .then(|| notify::with_socket(request.bundle, &folder))
        .transpose()?;
    let bundle = told.as_ref().unwrap_or(request.bundle);
    let plan = Plan::decide(bundle, request.id, host, request.choices)?;
    plan.sysctls.check_joined(&plan.namespaces)?;
    lsm::check_mount_label(bundle.spec.linux().as_ref())?;
    let inherited = request.listen_fds.saturating_add(request.preserve_fds);
    let provided = request.provided;
    let held = provided.ids.as_ref().map(Claimed::held);
    let place = (request.root, request.id);
    let mut claim = Claim::stake(host, place, bundle, &plan, held)?;
    if notify {
        notify::make_place(&folder)?;
    }
    let sources = open_sources(&plan, provided.rootfs, provided.devices)?;
    claim.cover(sources.as_ref())?;
    let setup = Setup {
        sources,
        console: request.console,
        fifo: child::make_fifo(&claim.folder().fifo())?,
        door: door_of(host, &plan, &claim)?,
        listen_fds: request.listen_fds,
        preserve_fds: request.preserve_fds,
        agent: agent_of(plan.seccomp.as_ref(), provided.agent)?,
        state: &|pid, status| claim.state.oci(pid, status),
        plan: &plan,
    };
    let (init, sources, link) = bear(&plan, claim.cgroup.as_ref(), setup)?;
    log::debug!("container `{}`: init is process {}", request.id, init.pid);
    claim.born();
    let undo_init = Undo::of(|| init.kill());
    claim.settle(init.pid)?;
    let undo_devices = move_devices(&plan, init.pid)?;
    let cgroup = claim.cgroup.as_ref();
    let state = claim.state.oci(init.pid, "creating");
    let work = || -> Result<Held<Ready>> {
        let link = raise(&plan, &claim, &init, sources.as_ref(), link)?;
        meanwhile(init.pid, cgroup)?;
        let held = link.wait_and_map(&mut |index, tree| map_late(&plan, &init, index, &tree))?;
        run_hooks(&plan, held, &state, Surroundings::of_bundle(&claim.state.bundle))?.wait()
    };
    let held = work().map_err(|e| explain(e, cgroup))?;
    // Only now: the limits are the program's, and more files than it may open are open while mounts are made. The hooks up to here run at
    // the caller's priority, and a process with deadlines could not fork them.
    plan.process.limits.bound(init.pid)?;
    plan.process.prioritise(init.pid)?;
    claim.state.streams = streams(&plan, inherited);
    claim.name_init(init.pid)?;
    announce(&init, request.pid_file, request.pidfd_socket)?;
    let link = held.grant(&[])?;
    undo_devices.disarm();
    undo_init.disarm();
    provided.ids.into_iter().for_each(Claimed::keep);
    Ok(Created {
        container: claim.keep(),
        init,
        link,
    })
}

/// What a checkpoint has to know of init's descriptors. Those of a terminal do not lead out.
fn streams(plan: &Plan, inherited: u32) -> Vec<String> {
    if plan.process.terminal {
        return Vec::new();
    }
    let count = usize::try_from(inherited).unwrap_or(usize::MAX);
    descriptors::own(count.saturating_add(3))
}

/// What init takes from the host. Without privileges it is opened by init, which has them in its user namespace.
fn open_sources(
    plan: &Plan,
    rootfs: Option<OwnedFd>,
    devices: Vec<(PathBuf, OwnedFd)>,
) -> Result<Option<Sources>> {
    let sources = (plan.caller.privileged.then(|| plan.rootfs.open_sources())).transpose()?;
    Ok(sources.map(|sources| sources.with(&plan.rootfs, rootfs, devices)))
}

/// A connection to the profile's seccomp agent, made while the host's paths are in sight, unless there is one already.
pub fn agent_of(profile: Option<&LinuxSeccomp>, made: Option<UnixStream>) -> Result<Option<seccomp::Agent>> {
    let Some(listener) = profile.and_then(seccomp::Listener::of) else {
        return Ok(None);
    };
    match made {
        Some(stream) => Ok(Some(listener.at(stream))),
        None => listener.connect().map(Some),
    }
}

/// Where init hands out its namespaces, which the kernel does not show to an ordinary user. None where its filter may be in force while
/// it waits: nobody knows what that allows.
fn door_of(host: &Host, plan: &Plan, claim: &Claim<'_>) -> Result<Option<OwnedFd>> {
    let is_filtered = plan.seccomp.as_ref().and_then(seccomp::Listener::of).is_some();
    let wanted = !host.caller.admin && !is_filtered;
    wanted.then(|| door::make(&claim.folder().door())).transpose()
}

/// Init before its first step, with the sources that are not opened by itself.
type Unready = (Newborn, Option<Sources>, Parent<Born>);

/// Clones init into its cgroup and namespaces. The sources come back because the parent still has to idmap them.
fn bear(plan: &Plan, cgroup: Option<&Cgroup>, setup: Setup<'_>) -> Result<Unready> {
    let (parent, link) = link::pair::<Born>()?;
    let user = plan.namespaces.joined(Kind::User);
    let held = if early(plan) {
        enter_namespaces(plan)?
    } else {
        enter::Held::default()
    };
    let flags = if user.is_some() {
        0
    } else {
        plan.namespaces.clone_flags()
    };
    let acting = act_as_owner(plan)?;
    let (side, outside) =
        born_in(flags, cgroup.and_then(Cgroup::birth)).during(|| "make the init process")?;
    match side {
        Side::Child => {
            // Nobody it was outside is mapped inside: there is no way back, nor a need for one.
            std::mem::forget(acting);
            drop(parent);
            prepare_birth(cgroup, user, plan, &link);
            child::run(setup, link)
        }
        Side::Parent { pid, pidfd } => {
            drop(acting);
            held.leave()?;
            drop(link);
            let newborn = Newborn { pid, pidfd };
            let init = if user.is_some() {
                successor(&newborn, || parent.proxied())?
            } else {
                newborn
            };
            if let (true, Some(cgroup)) = (outside, cgroup) {
                cgroup.adopt(init.pid).inspect_err(|_| drop(init.kill()))?;
            }
            Ok((init, setup.sources, parent))
        }
    }
}

/// The user who is root inside, see [`Choices::own_account`].
fn act_as_owner(plan: &Plan) -> Result<Option<sys::cred::EffectiveUser>> {
    let owner = plan.ids.root().map(|(uid, _)| uid);
    let owner =
        owner.filter(|uid| plan.choices.own_account && plan.namespaces.is_new(Kind::User) && *uid != 0);
    owner
        .map(sys::cred::EffectiveUser::assume)
        .transpose()
        .during(|| "become the user who is root inside")
}

/// Whether the parent enters the namespaces that are joined. Who has no privileges gets them in the user namespace that is
/// joined first.
fn early(plan: &Plan) -> bool {
    plan.caller.admin || plan.namespaces.joined(Kind::User).is_none()
}

fn enter_namespaces(plan: &Plan) -> Result<enter::Held> {
    let mut held = enter::Held::enter(&plan.namespaces)?;
    if plan.namespaces.is_new(Kind::Time) && !plan.namespaces.is_late(Kind::Time) {
        held.new_time(&plan.time_offsets)?;
    }
    Ok(held)
}

/// Enters the cgroup, while still the host's root; then joins a user namespace, if there is one to join, and makes init from
/// inside of it, so that init's other namespaces belong to it.
fn prepare_birth(cgroup: Option<&Cgroup>, user: Option<&Path>, plan: &Plan, link: &link::Init<Born>) {
    let Ok(reporter) = link.reporter() else {
        sys::clone::exit(1)
    };
    let work = || -> Result<()> {
        cgroup.map_or(Ok(()), Cgroup::enter)?;
        let Some(user) = user else { return Ok(()) };
        plan.process.limits.score_self()?;
        // Before anybody inside can see us: their root may trace whoever is of their namespaces (CVE-2016-9962).
        crate::process::protect::hide()?;
        enter::join(Kind::User, user)?;
        crate::process::credentials::become_root()?;
        if !early(plan) {
            enter_namespaces(plan)?.stay();
        }
        step_aside(plan.namespaces.clone_flags(), &reporter)
    };
    if let Err(e) = work() {
        child::fail(&reporter, &e);
    }
}

/// The process that a stand-in made in its place.
fn successor(standin: &Newborn, named: impl FnOnce() -> Result<OwnedFd>) -> Result<Newborn> {
    let named = named();
    standin.reap()?;
    Newborn::held(named?)
}

/// The parent's part of Born.
fn raise(
    plan: &Plan,
    claim: &Claim<'_>,
    init: &Newborn,
    sources: Option<&Sources>,
    link: Parent<Born>,
) -> Result<Parent<link::Mounted>> {
    let held = link.wait()?;
    if let Some(writer) = &plan.maps {
        writer.write(&plan.ids, &plan.caller, init.pid)?;
    }
    claim.delegate()?;
    if let Some(sources) = sources {
        idmap(plan, init, sources)?;
    }
    if plan.namespaces.joined(Kind::User).is_none() {
        plan.process.limits.score(init.pid)?;
    }
    affinity::release(init.pid);
    held.grant(&init.pid.to_ne_bytes())
}

/// Also before Born: init has its namespaces from birth. The devices come back when creation fails.
pub fn move_devices(plan: &Plan, init: i32) -> Result<Undo<'static>> {
    if plan.devices.is_empty() {
        return Ok(Undo::new());
    }
    plan.devices.move_into(namespace_of(init, Kind::Network)?.as_fd())
}

fn idmap(plan: &Plan, init: &Newborn, sources: &Sources) -> Result<()> {
    let own = own_userns(plan, init)?;
    sources.idmap(&plan.rootfs, &mut userns_of, own.as_ref().map(AsFd::as_fd))
}

/// The same for a source that appeared only while init mounts.
fn map_late(plan: &Plan, init: &Newborn, index: usize, tree: &OwnedFd) -> Result<()> {
    let own = own_userns(plan, init)?;
    let op = plan.rootfs.mounts().get(index);
    let op = op.ok_or_else(|| Error::Corrupt(format!("init names a mount {index}")))?;
    op.idmap(tree.as_fd(), &mut userns_of, own.as_ref().map(AsFd::as_fd))
}

fn own_userns(plan: &Plan, init: &Newborn) -> Result<Option<OwnedFd>> {
    let has = plan.namespaces.has(Kind::User);
    has.then(|| namespace_of(init.pid, Kind::User)).transpose()
}

fn userns_of(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    crate::namespaces::user::IdMap::from_mappings(uids, gids, "mounts")?.into_namespace()
}

/// The parent's part of Mounted.
fn run_hooks(
    plan: &Plan,
    held: Held<link::Mounted>,
    state: &[u8],
    surroundings: Surroundings<'_>,
) -> Result<Parent<Ready>> {
    let filter = plan.filter.as_ref().map_or(Vec::new(), Filter::to_bytes);
    hooks::run("prestart", &plan.hooks.prestart, state, surroundings)?;
    hooks::run("createRuntime", &plan.hooks.create_runtime, state, surroundings)?;
    held.grant(&filter)
}

/// Init's mysterious death is often the memory limit's doing.
fn explain(error: Error, cgroup: Option<&Cgroup>) -> Error {
    let starved = || cgroup.is_some_and(|c| c.oom_kills().is_ok_and(|n| n > 0));
    match error.root() {
        Error::Init(text) if text.contains("died") && starved() => Error::Init(format!(
            "{text}: out of memory; raise `linux.resources.memory.limit`"
        )),
        _ => error,
    }
}
