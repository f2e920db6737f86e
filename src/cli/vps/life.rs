//! Commands on several VPSs: each is tried, whatever became of the others.

use std::time::Duration;

use rustix::process::Signal;

use super::args::Targets;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::progress::Spinner;
use crate::error::{During, Result};
use crate::vps::lifecycle::Condo;
use crate::vps::name::Name;
use crate::vps::view::VpsStatus;

pub(super) fn start(condo: &Condo, targets: &Targets) -> Result<Exit> {
    each(condo, targets, "start", |name| condo.start(name))
}

pub(super) fn stop(condo: &Condo, targets: &Targets, timeout: u64) -> Result<Exit> {
    each(condo, targets, "stop", |name| stop_one(condo, name, timeout))
}

/// The spinner's thread is gone before the start clones an init.
pub(super) fn restart(condo: &Condo, targets: &Targets, timeout: u64) -> Result<Exit> {
    each(condo, targets, "restart", |name| {
        if condo.show(name)?.status != VpsStatus::Stopped {
            stop_one(condo, name, timeout)?;
        }
        condo.start(name)
    })
}

pub(super) fn kill(condo: &Condo, targets: &Targets, signal: Signal) -> Result<Exit> {
    each(condo, targets, "kill", |name| condo.kill(name, signal))
}

pub(super) fn delete(condo: &Condo, targets: &Targets, force: bool) -> Result<Exit> {
    let exit = each(condo, targets, "delete", |name| {
        let _spinner = Spinner::start(format!("deleting {name}"));
        condo.delete(name, force)
    })?;
    if targets.all {
        condo.sweep()?;
    }
    Ok(exit)
}

fn stop_one(condo: &Condo, name: &Name, timeout: u64) -> Result<()> {
    let _spinner = Spinner::start(format!("stopping {name}"));
    condo.stop(name, Duration::from_secs(timeout))
}

/// Does the work for every target and complains about each failure by itself; the worst decides the exit status.
fn each(condo: &Condo, targets: &Targets, verb: &str, work: impl Fn(&Name) -> Result<()>) -> Result<Exit> {
    let mut exit = Exit::Success;
    for name in names(condo, targets)? {
        if let Err(e) = work(&name).during(|| format!("{verb} `{name}`")) {
            output::complain(&e.to_string());
            exit = Exit::from(&e);
        }
    }
    Ok(exit)
}

/// The targets, each once.
fn names(condo: &Condo, targets: &Targets) -> Result<Vec<Name>> {
    if targets.all {
        return Ok(condo.list()?.into_iter().map(|vps| vps.name).collect());
    }
    let mut names: Vec<Name> = Vec::new();
    for name in &targets.names {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}
