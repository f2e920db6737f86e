//! Fault injection: the runtime, or the init it makes, is killed after its n-th system call, for every n there is. Whatever is
//! left then, `delete --force` clears all of it; and what a runtime that lives cannot finish, it clears by itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use super::Container;
use crate::harness;
use crate::harness::trace::{Victim, kill_after};

tests![
    create_killed_after_every_system_call in guest: 600,
    init_killed_after_every_system_call: 600,
    delete_killed_after_every_system_call: 600,
];

/// Rounds that run at once: most of a round is waiting for the kernel's grace periods.
const WORKERS: usize = 4;

/// Calls `round` with 1, 2, 3 … until it says that there is no such system call. A machine that is slow takes every 40th only,
/// from a random one on: all of them would take it an hour.
fn for_every_call(round: impl Fn(&Container, usize) -> Result<bool> + Sync) -> Result<usize> {
    let step = if harness::timeout_factor() > 1 { 40 } else { 1 };
    let next = AtomicUsize::new(1 + std::process::id() as usize % step);
    let containers: Vec<Container> = (0..WORKERS)
        .map(|_| Container::littering())
        .collect::<Result<_>>()?;
    let work = |c: &Container| -> Result<()> {
        loop {
            let n = next.fetch_add(step, Ordering::Relaxed);
            if !round(c, n).with_context(|| format!("after call {n}"))? {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = containers.iter().map(|c| scope.spawn(|| work(c))).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("a thread"))
    })?;
    Ok(next.load(Ordering::Relaxed) - WORKERS * step)
}

fn create_killed_after_every_system_call() -> Result<()> {
    known_difference!("runc", "keeps no state before it makes cgroups");
    let calls = for_every_call(|c, n| {
        let create = c.command(&["create", "--bundle", "%", "@"]);
        let ended = kill_after(&create, Victim::Program, n)?;
        ensure!(ended.cut != ended.success, "{ended:?}");
        c.cleared()?;
        Ok(ended.cut)
    })?;
    ensure!(calls > 100, "only {calls} system calls were seen");
    Ok(())
}

fn init_killed_after_every_system_call() -> Result<()> {
    needs!(ours);
    let calls = for_every_call(|c, n| {
        let create = c.command(&["create", "--bundle", "%", "@"]);
        let ended = kill_after(&create, Victim::FirstChild, n)?;
        if ended.success {
            // It was killed at the very end, when all had been said.
            c.cleared()?;
        } else {
            ensure!(ended.cut, "{ended:?}");
            c.nothing_left()?;
        }
        Ok(ended.cut)
    })?;
    ensure!(calls > 50, "only {calls} system calls were seen");
    Ok(())
}

fn delete_killed_after_every_system_call() -> Result<()> {
    known_difference!("runc", "removes a state before all of it is cleared");
    let calls = for_every_call(|c, n| {
        c.up()?;
        let delete = c.command(&["delete", "--force", "@"]);
        let ended = kill_after(&delete, Victim::Program, n)?;
        ensure!(ended.cut != ended.success, "{ended:?}");
        c.cleared()?;
        Ok(ended.cut)
    })?;
    ensure!(calls > 50, "only {calls} system calls were seen");
    Ok(())
}
