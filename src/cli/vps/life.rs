//! Commands on several VPSs: each is tried, whatever became of the others.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::args::Targets;
use crate::cli::exit::Exit;
use crate::cli::progress::Spinner;
use crate::cli::report::report;
use crate::error;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::view::VpsStatus;

pub(super) fn start(condo: &Condo, targets: &Targets) -> Result<Exit> {
    let names = names(condo, targets)?;
    Ok(noted(condo.for_each(&names, Condo::start), "start"))
}

/// All at once. The spinner is gone before anything is complained about.
pub(super) fn stop(condo: &Condo, targets: &Targets, timeout: u64) -> Result<Exit> {
    Ok(noted(stop_all(condo, &names(condo, targets)?, timeout), "stop"))
}

/// The spinner's thread is gone before the start clones an init.
pub(super) fn restart(condo: &Condo, targets: &Targets, timeout: u64) -> Result<Exit> {
    each(condo, targets, "restart", |name| {
        for (_, result) in stop_all(condo, std::slice::from_ref(name), timeout) {
            result?;
        }
        condo.start(name)
    })
}

pub(super) fn kill(condo: &Condo, targets: &Targets, signal: Signal) -> Result<Exit> {
    each(condo, targets, "kill", |name| condo.kill(name, signal))
}

/// With `--all`, those that run.
pub(super) fn freeze(condo: &Condo, targets: &Targets) -> Result<Exit> {
    each_that_is(condo, targets, VpsStatus::Running, "freeze", |name| {
        condo.freeze(name)
    })
}

/// With `--all`, those that are frozen.
pub(super) fn thaw(condo: &Condo, targets: &Targets) -> Result<Exit> {
    each_that_is(condo, targets, VpsStatus::Paused, "thaw", |name| condo.thaw(name))
}

pub(super) fn delete(condo: &Condo, targets: &Targets, force: bool) -> Result<Exit> {
    let names = names(condo, targets)?;
    let spinner = Spinner::start(format!("deleting {}", several(&names)));
    let results = condo.for_each(&names, |condo, name| condo.delete(name, force));
    // It is gone before anything is complained about.
    drop(spinner);
    let exit = noted(results, "delete");
    if !targets.all {
        return Ok(exit);
    }
    let mut exit = exit;
    for name in condo
        .remains()?
        .iter()
        .filter(|_| force && condo.project().is_none())
    {
        exit = note(exit, condo.delete(name, force), "delete", name);
    }
    condo.sweep()?;
    Ok(exit)
}

fn stop_all(condo: &Condo, names: &[Name], timeout: u64) -> Vec<(Name, error::Result<()>)> {
    if names.is_empty() {
        return Vec::new();
    }
    let _spinner = Spinner::start(format!("stopping {}", several(names)));
    condo.stop(names, Duration::from_secs(timeout))
}

/// What a command is at work on.
fn several(names: &[Name]) -> String {
    match names {
        [one] => one.to_string(),
        all => format!("{} VPSs", all.len()),
    }
}

/// Reports each failure by itself.
fn noted(results: Vec<(Name, error::Result<()>)>, verb: &str) -> Exit {
    let each = results.into_iter();
    each.fold(Exit::Success, |exit, (name, result)| {
        note(exit, result, verb, &name)
    })
}

/// Does the work for every target and reports each failure by itself; the last one decides the exit status.
fn each(
    condo: &Condo,
    targets: &Targets,
    verb: &str,
    work: impl Fn(&Name) -> error::Result<()>,
) -> Result<Exit> {
    let mut exit = Exit::Success;
    for name in names(condo, targets)? {
        exit = note(exit, work(&name), verb, &name);
    }
    Ok(exit)
}

/// As [`each`]; of all VPSs it takes only those of this status.
fn each_that_is(
    condo: &Condo,
    targets: &Targets,
    status: VpsStatus,
    verb: &str,
    work: impl Fn(&Name) -> error::Result<()>,
) -> Result<Exit> {
    if !targets.all {
        return each(condo, targets, verb, work);
    }
    let all = condo.list()?.into_iter().filter(|vps| vps.status == status);
    Ok(all.fold(Exit::Success, |exit, vps| {
        note(exit, work(&vps.name), verb, &vps.name)
    }))
}

pub(super) fn note(exit: Exit, result: error::Result<()>, verb: &str, name: &Name) -> Exit {
    let result = result.with_context(|| format!("{verb} `{name}`"));
    result.map_or_else(|e| report(&e), |()| exit)
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
