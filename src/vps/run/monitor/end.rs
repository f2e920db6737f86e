//! After init's end: what happened is recorded, everything is freed, and a reboot or the restart policy boots again.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::boot;
use crate::error::Result;
use crate::host::kernel_log;
use crate::sys;
use crate::vps::record::events::Kind;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::store::{ExitReason, LastExit, Record};

/// A run that is shorter was hardly worth its boot.
const SHORT: u64 = 10;
/// The longest pause before a boot, in seconds.
const LONGEST: u64 = 30;
/// How often a pause looks whether somebody stops the VPS.
const LOOK: Duration = Duration::from_millis(50);

/// After `watch`, which says how init ended, by which number, how many runs in a row were short before this one, and which descriptor
/// holds the network namespace.
pub(super) fn end(root: Option<&Path>, name: &Name, [how, number, hasty, netns]: [&str; 4]) -> Result<()> {
    // Until its counters are read; a process that ends lets go of it by itself.
    let netns = netns.parse().ok().and_then(|fd| sys::fd::adopt(fd).ok());
    let number: i32 = number.parse().unwrap_or(0);
    let condo = Condo::open(root)?;
    let record = condo.store.get(name)?;
    let stopping = condo.is_stopping(name);
    // reboot(2) in a pid namespace ends its init by SIGHUP for a restart and by SIGINT for a halt (pid_namespaces(7)).
    let reboot = how == "signal" && number == Signal::SIGHUP as i32 && !stopping;
    let hasty = hasty_runs(&condo, name, hasty.parse().unwrap_or(0))?;
    // Not worth leaving the VPS as it is.
    let end = witnessed(&condo, &record, how, number).unwrap_or_else(|e| {
        log::warn!("how `{name}` ended is not known: {e}");
        LastExit::now(ExitReason::Unknown, None, None)
    });
    let restart = !reboot && record.config.restart.follows(&end) && !condo.is_killed(name);
    let recorded = condo
        .store
        .record_exit(name, &end)
        .and_then(|()| condo.set_recorded(name));
    if let Err(e) = recorded {
        log::warn!("the end of `{name}` is not recorded: {e}");
    }
    if !reboot {
        condo.tell_end(&record, &end, stopping);
    }
    if !(reboot || restart) {
        return condo.take_down(&record);
    }
    condo.free(&record)?;
    drop(netns);
    if !pause(&condo, name, hasty) {
        return condo.take_down(&record);
    }
    let why = if reboot { Kind::Rebooted } else { Kind::Restarted };
    condo.tell(&record, why, Value::Null);
    drop(condo);
    boot::again(root, name, hasty)
}

/// How many runs in a row were short, now that this one has ended.
fn hasty_runs(condo: &Condo, name: &Name, before: u32) -> Result<u32> {
    let init = condo.container(name)?.and_then(|c| c.state().init);
    let lived = init.and_then(|init| init.uptime()).unwrap_or(0);
    Ok(if lived < SHORT {
        before.saturating_add(1)
    } else {
        0
    })
}

/// A boot is work for the host, outside of the VPS's limits: whoever reboots in a loop waits longer each time. False when
/// somebody stops the VPS.
fn pause(condo: &Condo, name: &Name, hasty: u32) -> bool {
    let end = Instant::now() + pause_after(hasty);
    loop {
        if condo.is_stopping(name) {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// None after a long run, then 1, 2, 4 … seconds.
fn pause_after(hasty: u32) -> Duration {
    let seconds = match hasty.checked_sub(1) {
        None => 0,
        Some(doublings) => 1_u64.checked_shl(doublings).unwrap_or(LONGEST).min(LONGEST),
    };
    Duration::from_secs(seconds)
}

fn witnessed(condo: &Condo, record: &Record, how: &str, number: i32) -> Result<LastExit> {
    if how == "exited" {
        return Ok(LastExit::now(ExitReason::Exited, Some(number), None));
    }
    let by_itself = [Signal::SIGINT as i32, Signal::SIGHUP as i32];
    if by_itself.contains(&number) {
        return Ok(LastExit::now(ExitReason::Exited, Some(0), None));
    }
    let reason = if number == Signal::SIGKILL as i32 && ran_out_of_memory(condo, &record.name)? {
        ExitReason::Oom
    } else {
        ExitReason::Killed
    };
    Ok(LastExit::now(reason, None, Some(number)))
}

/// Whether it was the kernel that killed init, for want of memory. That it killed somebody in the VPS says nothing of init: only
/// where the kernel's log cannot be had, it has to do, unless condo was killing the VPS itself.
fn ran_out_of_memory(condo: &Condo, name: &Name) -> Result<bool> {
    let Some(container) = condo.container(name)? else {
        return Ok(false);
    };
    let cgroup = container.cgroup(&condo.host).ok().flatten();
    if !cgroup.is_some_and(|c| c.oom_kills().is_ok_and(|n| n > 0)) {
        return Ok(false);
    }
    let pid = container.state().init.map_or(0, |init| init.pid);
    Ok(kernel_log::was_killed_for_memory(pid).unwrap_or_else(|| !condo.is_killed(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 5, 6, 64, 65, u32::MAX]
            .map(|hasty| pause_after(hasty).as_secs())
            .into();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30, 30, 30]);
    }
}
