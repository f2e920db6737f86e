//! A container of an engine's (Docker, Podman, containerd) that is made a VPS: the engine calls the runtime as for every other
//! container, and the runtime changes what it was told before it plans.
//!
//! ```text
//! users       which user ids: a range of its own, the pod's, or those that the engine chose
//! config      the change of the configuration, a pure function
//! place       the root filesystem and volumes through the id map
//! figures     who tells the container its memory and processors
//! processors  those that it runs on
//! ```
//! There is no daemon. What it holds of the machine is in the container's state and goes back with `delete`.

mod config;
pub mod figures;
mod place;
pub mod processors;
mod users;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use rustix::process::Signal;
use serde_json::Value;

use super::{farewell, nodes, tables, terminals};
use crate::cgroups::Manager;
use crate::error::{During, Error, Result};
use crate::files;
use crate::host::Host;
use crate::runtime::bundle::{self, Bundle};
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::init::parent::Provided;
use crate::runtime::state::Folder;
use crate::vps::record::facts::{Clocks, memory};
use crate::vps::record::limits::Limits;
use crate::vps::record::permit::Permit;
use config::Given;

/// The name by which the runtime makes every container a VPS.
const PROGRAM: &str = "condo-vps";
/// What asks for it of a runtime of any name, and is found in the state of each.
const ANNOTATION: &str = "io.condo.vps";

/// What engines inside need of the host's devices.
const FOR_ENGINES: [Permit; 2] = [Permit::Fuse, Permit::Tun];

/// Whether a container is to be a VPS, by the name that the runtime was called by or by its annotation. The annotation alone can
/// also say no.
pub fn is_asked(called: Option<&OsStr>, spec: &Spec) -> bool {
    let annotation = spec.annotations().as_ref().and_then(|all| all.get(ANNOTATION));
    match annotation.map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => called.and_then(|name| Path::new(name).file_name()) == Some(OsStr::new(PROGRAM)),
    }
}

/// Whether a container was made a VPS.
pub fn is_adopted(container: &Container) -> bool {
    container
        .state()
        .annotations
        .get(ANNOTATION)
        .is_some_and(|value| value == "true")
}

/// A container that is to be a VPS.
#[derive(Debug)]
pub struct Adopted {
    /// Its bundle as it is to be.
    pub bundle: Bundle,
    /// What goes with it.
    pub provided: Provided,
    /// Over which who tells its figures hears of its system call filter, for [`figures::tend`].
    pub heard: Option<OwnedFd>,
}

/// Makes a container a VPS. `manager` is who makes its cgroup.
///
/// # Errors
/// [`Error::Unsupported`] without privileges, and for a root filesystem whose owners cannot be translated; [`Error::Invalid`] for a
/// container that is to share with the host what a VPS has to itself.
pub fn adopt(host: &Host, (root, id): (&Path, &Id), bundle: &Bundle, manager: Manager) -> Result<Adopted> {
    if !host.caller.privileged {
        let why = "only the machine's root hands out user ids and translates owners; run the engine as root";
        return Err(Error::unsupported("a VPS", why));
    }
    let mut config: Value = serde_json::from_slice(&bundle.raw)?;
    config::refuse_shared(&config)?;
    place::refuse_hosts(&config)?;
    let folder = Folder::new(root, id);
    let users = users::choose(&config, root, &folder)?;
    let devices: Vec<_> = FOR_ENGINES
        .into_iter()
        .filter_map(nodes::permitted)
        .filter(|node| files::exists(&Path::new("/dev").join(&node.name)))
        .collect();
    let nodes = [nodes::standard(), devices.clone()].concat();
    let namespace = users.namespace()?;
    let translate = |namespace| place::translate(bundle, &config, namespace, (users.root(), &nodes));
    let mut translated = namespace.as_ref().map(translate).transpose()?;
    let (binds, plain) = translated
        .as_mut()
        .map_or_else(Default::default, place::Translated::said);
    let agent = figures::are_asked_for(&bundle.spec, manager).then(|| folder.agent());
    let given = Given {
        users: users.entry(),
        ids: users.count(),
        memory: memory()?,
        clocks: Clocks::read(),
        binds,
        plain,
        uuid: uuid(id),
        devices,
        agent,
    };
    let parameters = config::rewrite(&mut config, &given);
    place::set_in_network(&config, &parameters)?;
    let raw = serde_json::to_vec(&config)?;
    let spec = bundle::parse(&raw).during(|| "make the container a VPS")?;
    let path = bundle.path.clone();
    let mut provided = match translated {
        Some(translated) => translated.provide(users.claimed()),
        None => Provided::default(),
    };
    let asks = given.agent.map(|_| UnixStream::pair()).transpose()?;
    let (heard, agent) = asks.unzip();
    provided.agent = agent;
    Ok(Adopted {
        bundle: Bundle { path, spec, raw },
        provided,
        heard: heard.map(OwnedFd::from),
    })
}

/// The machine's id of a container, where the engine's is as long as one.
fn uuid(id: &Id) -> Option<String> {
    let id = id.as_str();
    let digits = id
        .get(..32)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    Some(parts.join("-"))
}

/// A further process in one (`exec`): the engine knows of the capabilities and the profile of ordinary containers only.
pub fn adapt(process: &mut Process) -> Result<()> {
    let held = process.user().uid() == 0;
    let sets = serde_json::from_value(config::capabilities(held))?;
    process.set_capabilities(Some(sets)).set_apparmor_profile(None);
    Ok(())
}

/// The signal that asks the init of one to power off, where an engine sends what asks programs to end: systemd would only execute
/// itself anew.
pub fn farewell(container: &Container, signal: Signal) -> Result<Signal> {
    let pid = container.state().init.map_or(0, |init| init.pid);
    farewell::instead_of(pid, signal)
}

/// Bounds what of the kernel's memory no limit of the engine counts, and leaves others terminals.
pub fn guard(host: &Host, container: &Container) -> Result<()> {
    terminals::make_room();
    let Some(cgroup) = container.cgroup(host)? else {
        return Ok(());
    };
    cgroup.guard_sysctls()?;
    cgroup.guard_buffers()?;
    tables::bound(&cgroup, Limits::default().table_memory());
    Ok(())
}
