//! The figures of a container of an engine's: its memory and processors in `/proc` and not the machine's.
//!
//! Somebody has to answer when they are read, for as long as the container is there: a process beside it, as the engine has one
//! already (containerd's shim, conmon), which becomes this one's parent. It ends with the container's init. Nothing is shared between
//! containers, and where it was killed the next command of the runtime's starts another.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use super::super::figures::tend::Telling;
use super::super::resident;
use super::users;
use crate::error::{During, Error, Result};
use crate::files;
use crate::namespaces::user::IdMap;
use crate::runtime::bundle;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::Identity;
use crate::sys;

/// What the program is called in this role.
const CALLED: &str = "condo-figures";

/// Sees to it that somebody tells the figures of a container that was made a VPS. No command is about them: it goes on where that
/// fails, and the container has the host's.
pub fn tend(root: &Path, container: &Container) {
    let state = container.state();
    if !super::is_adopted(container) {
        return;
    }
    let told = || {
        container
            .folder()
            .teller()
            .is_some_and(|teller| teller.is_alive())
    };
    // What holds a pod's namespaces reads nothing.
    if state.cgroup.is_none() || users::holds_pod(&state.annotations) || told() {
        return;
    }
    if let Err(e) = start(root, container) {
        log::warn!("container `{}` has the host's figures: {e}", state.id);
    }
}

fn start(root: &Path, container: &Container) -> Result<()> {
    let root = std::path::absolute(root)?;
    let words = [
        OsStr::new(CALLED),
        root.as_os_str(),
        OsStr::new(&container.state().id),
    ];
    // In the cgroup of the engine's own process for the container.
    let (child, said) = resident::start((Path::new(resident::OWN_PROGRAM), &words), None, None)?;
    if said.is_empty() {
        return Ok(());
    }
    child.reap()?;
    Err(Error::Init(said.trim().into()))
}

/// Runs as the teller if this process was started as one.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next()? != CALLED {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    Some(resident::tell(tell(&args)))
}

fn tell(args: &[OsString]) -> Result<()> {
    let text = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    rustix::process::setsid().during(|| "start a session")?;
    // What the engine lends the container (`--preserve-fds`) and waits for the end of.
    sys::fd::close_others(3, &[]).during(|| "let go of inherited descriptors")?;
    let container = Container::load(
        Path::new(args.first().map_or(OsStr::new(""), |arg| arg)),
        &Id::new(text(1))?,
    )?;
    let init = container.running_init()?;
    let state = container.state();
    let spec = bundle::parse(&container.config()?)?;
    let root = IdMap::from_spec(&spec)?.root();
    let lacks = |what| Error::Corrupt(format!("it has no {what}"));
    let (owner, _) = root.ok_or_else(|| lacks("root"))?;
    let cgroup = state
        .cgroup
        .as_ref()
        .ok_or_else(|| lacks("cgroup"))?
        .path()
        .to_owned();
    let pid = state.init.map_or(0, |init| init.pid);
    let telling = Telling::install(cgroup, owner, (&spec, pid))?;
    files::write_atomic(
        &container.folder().figures(),
        &serde_json::to_vec(&Identity::own()?)?,
        0o600,
    )?;
    resident::silence()?;
    drop((container, spec));
    telling.until_end(&init)
}
