//! The process that stays with a running VPS: init's parent, reader of its console, witness of its end.
//!
//! ```text
//!  condo start ──spawns──> boot ──exec──> watch ──exec──> end ──> (exit, or boot again after `reboot` inside)
//! ```
//! One process takes these roles by executing itself: its pid and its child stay the same, and what stays resident for weeks
//! is a small program ([`alone`]), a loop that has allocated next to nothing. Closing the terminal, ending the command or
//! killing all of its cgroup changes nothing for it.

pub mod alone;
mod boot;
mod early;
mod end;
mod figures;
mod keep;
mod log;
mod watch;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(super) use self::log::older as older_log;
use super::resident::{self, OWN_PROGRAM, tell};
use super::still;
use crate::cgroups::Cgroup;
use crate::error::{Error, Result};
use crate::files::Lock;
use crate::runtime::init::Newborn;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// What the program is called in this role, so that `ps` tells it from the command; and the small program's file.
pub(super) const CALLED: &str = "condo-monitor";
/// What `boot` says last when the VPS runs. Lines before it are remarks.
const RUNNING: &str = "running\n";
/// Stands for the host's own instance where a root is expected.
const NO_ROOT: &str = "-";

/// Starts the monitor of a stopped VPS and returns when the VPS runs, or with the reason why not.
///
/// The lock goes along as the monitor's standard input: should this command be killed, nobody touches the VPS until the
/// monitor is done.
pub(super) fn launch(condo: &Condo, name: &Name, lock: &Lock) -> Result<()> {
    let (child, said) = start(condo, name, "boot", Some(lock.share()?.as_fd()))?;
    if let Some(remarks) = said.strip_suffix(RUNNING) {
        remarks
            .lines()
            .for_each(|remark| ::log::warn!("`{name}`: {remark}"));
        return Ok(());
    }
    child.reap()?;
    let said = said.trim();
    Err(Error::Init(if said.is_empty() {
        "the monitor died without a word".into()
    } else {
        said.into()
    }))
}

/// Starts a process that tells a VPS's figures in its monitor's place, and returns when they are where the VPS looks for them.
pub(super) fn tell_figures(condo: &Condo, name: &Name) -> Result<()> {
    let (child, said) = start(condo, name, "figures", None)?;
    if said.is_empty() {
        return Ok(());
    }
    child.reap()?;
    Err(Error::Init(said.trim().into()))
}

/// Starts a process that stays, in a first role, and returns what it said until it closed its standard error. Where its birth in the
/// monitors' cgroup fails, it moves there by itself, and says what is wrong with that cgroup.
fn start(condo: &Condo, name: &Name, role: &str, input: Option<BorrowedFd<'_>>) -> Result<(Newborn, String)> {
    let root = root_argument(condo);
    let [called, role, name] = [CALLED, role, name.as_str()].map(OsStr::new);
    let refuge = Cgroup::refuge(&condo.host.cgroups, &cgroup(condo)).ok();
    let words = [called, role, &root, name];
    resident::start((Path::new(OWN_PROGRAM), &words), input, refuge.as_ref())
}

/// Where all monitors of an instance are: a systemd unit, CI job or login session that ends takes along whoever is in its
/// cgroup, and is charged until then. No VPS has a name that begins with a dot.
pub(super) fn cgroup(condo: &Condo) -> String {
    format!("{}/.monitors", condo.folders.cgroup_parent())
}

pub(super) fn root_argument(condo: &Condo) -> OsString {
    condo
        .root()
        .map_or(NO_ROOT.into(), |root| root.as_os_str().to_owned())
}

/// Runs as the monitor if this process was started as one.
pub fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next()? != CALLED {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    Some(tell(take_role(&args)))
}

fn take_role(args: &[OsString]) -> Result<()> {
    let text = |at: usize| args.get(at).and_then(|a| a.to_str()).unwrap_or_default();
    let root = args.get(1).filter(|root| *root != NO_ROOT).map(PathBuf::from);
    if let [role, folder] = args
        && role == alone::KEEP
    {
        return keep::keep(Path::new(folder));
    }
    let name: Name = text(2).parse()?;
    match text(0) {
        "boot" => boot::first(root.as_deref(), &name),
        "figures" => figures::tell(root.as_deref(), &name),
        "watch" => watch::watch(&args[1..]),
        "thaw" => still::wait_and_thaw(root.as_deref(), &name),
        "end" => end::end(root.as_deref(), &name, [text(3), text(4), text(5), text(6)]),
        other => Err(Error::invalid("monitor", other, "is not a role")),
    }
}

/// Goes on in another role. Comes back only with the reason why not.
fn become_role(program: &Path, role: &str, root: Option<&Path>, name: &str, rest: &[String]) -> Error {
    let root = root.map_or(NO_ROOT.into(), |r| r.as_os_str().to_owned());
    let failed = Command::new(program)
        .arg0(CALLED)
        .arg(role)
        .arg(root)
        .arg(name)
        .args(rest)
        .exec();
    Error::During {
        what: format!("go on as `{role}`"),
        source: Box::new(failed.into()),
    }
}
