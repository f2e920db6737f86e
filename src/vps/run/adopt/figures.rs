//! The figures of a container of an engine's: its memory and processors in `/proc` and not the machine's.
//!
//! Somebody has to answer when they are read, for as long as the container is there: a process beside it, as the engine has one
//! already (containerd's shim, conmon), which becomes this one's parent, and its heir. Both end with the container's init. Nothing is
//! shared between containers, and where both were killed the next command of the runtime's starts others.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use oci_spec::runtime::Spec;
use rustix::fs::FileType;

use super::super::figures::calls::Calls;
use super::super::figures::heir;
use super::super::figures::tend::Telling;
use super::super::resident;
use super::users;
use crate::cgroups::Manager;
use crate::error::{During, Error, Result};
use crate::figures;
use crate::files;
use crate::namespaces::user::IdMap;
use crate::runtime::bundle;
use crate::runtime::container::Container;
use crate::runtime::id::Id;
use crate::runtime::status::Identity;
use crate::seccomp::{self, Listener};
use crate::sys;

/// What the program is called in this role.
const CALLED: &str = "condo-figures";

/// What leaves `sysinfo(2)` to the kernel, and its agent to who else wants to be one inside.
const HOST_SYSINFO: &str = "io.condo.host-sysinfo";

/// Whether a container that is to be a VPS has its `sysinfo(2)` answered by who tells its figures.
pub(super) fn are_asked_for(spec: &Spec, manager: Manager) -> bool {
    let annotation = |name: &str| spec.annotations().as_ref()?.get(name);
    annotation(HOST_SYSINFO).is_none_or(|value| value != "true")
        && manager != Manager::Disabled
        && !users::holds_pod(annotation)
        && figures::can_be_told()
        && seccomp::can_ask()
}

/// Sees to it that somebody tells the figures of a container that was made a VPS. No command is about them: it goes on where that
/// fails, and the container has the host's. `heard` is where its init's system call filter is heard of.
pub fn tend(root: &Path, container: &Container, heard: Option<&OwnedFd>) {
    let state = container.state();
    if !super::is_adopted(container) {
        return;
    }
    let told = || container.folder().tellers().iter().any(Identity::is_alive);
    // What holds a pod's namespaces reads nothing.
    if state.cgroup.is_none() || users::holds_pod(|name| state.annotations.get(name)) || told() {
        return;
    }
    if let Err(e) = start(root, container, heard) {
        log::warn!("container `{}` has the host's figures: {e}", state.id);
    }
}

fn start(root: &Path, container: &Container, heard: Option<&OwnedFd>) -> Result<()> {
    let words = [
        OsStr::new(CALLED),
        root.as_os_str(),
        OsStr::new(&container.state().id),
    ];
    // In the cgroup of the engine's own process for the container.
    let program = Path::new(resident::OWN_PROGRAM);
    let (child, said) = resident::start((program, &words), heard.map(AsFd::as_fd), None)?;
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
    let asks = Listener::of_spec(&spec).is_some();
    let mut telling = match Telling::install(cgroup.clone(), owner, (&spec, pid)) {
        // Whoever asks would wait for an answer, or hear that there is no such call.
        Err(_) if asks => Telling::without_files(cgroup, owner, &spec),
        other => other?,
    };
    if asks {
        telling.answer_calls(heard(&container.folder().agent())?)?;
    }
    let path = container.folder().figures();
    resident::silence()?;
    drop((container, spec));
    heir::tell(telling, &init, &|tellers| {
        files::write_atomic(&path, &serde_json::to_vec(tellers)?, 0o600)
    })
}

/// Hears of the filters of processes that enter the container, and of its init's where `create` has left us the other end of that.
fn heard(path: &Path) -> Result<Calls> {
    let mut calls = Calls::listen(path)?;
    let input = rustix::stdio::stdin();
    if FileType::from_raw_mode(rustix::fs::fstat(input)?.st_mode) == FileType::Socket {
        calls.expect(rustix::io::fcntl_dupfd_cloexec(input, 3)?)?;
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether it is the host's also depends on the machine; these are not asked for on any.
    #[test]
    fn some_leave_it_to_the_kernel() {
        let spec = |name: &str, value: &str| -> Spec {
            serde_json::from_value(json!({ "ociVersion": "1.0.2", "annotations": { name: value } })).unwrap()
        };
        assert!(!are_asked_for(&spec("a", "b"), Manager::Disabled));
        assert!(!are_asked_for(&spec(HOST_SYSINFO, "true"), Manager::Cgroupfs));
        let holder = spec("io.kubernetes.cri.container-type", "sandbox");
        assert!(!are_asked_for(&holder, Manager::Systemd));
    }
}
