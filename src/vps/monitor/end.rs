//! After init's end: what happened is recorded, everything is freed, and a reboot boots again.

use std::path::Path;

use nix::sys::signal::Signal;

use super::super::lifecycle::Condo;
use super::super::name::Name;
use super::super::power::exit;
use super::super::store::{ExitReason, LastExit, Record};
use super::boot;
use crate::error::Result;

/// How init ended, as `watch` passes it on.
pub(super) fn end(root: Option<&Path>, name: &Name, how: &str, number: &str) -> Result<()> {
    let number: i32 = number.parse().unwrap_or(0);
    let condo = Condo::open(root)?;
    let record = condo.store.get(name)?;
    let stopping = condo.is_stopping(name);
    // reboot(2) in a pid namespace ends its init by SIGHUP for a restart and by SIGINT for a halt (pid_namespaces(7)).
    let reboot = how == "signal" && number == Signal::SIGHUP as i32 && !stopping;
    condo
        .store
        .record_exit(name, &witnessed(&condo, &record, how, number)?)?;
    condo.set_recorded(name)?;
    if !reboot {
        return condo.take_down(&record);
    }
    condo.free(&record)?;
    drop(condo);
    boot::again(root, name)
}

fn witnessed(condo: &Condo, record: &Record, how: &str, number: i32) -> Result<LastExit> {
    if how == "exited" {
        return Ok(exit(ExitReason::Exited, Some(number), None));
    }
    let by_itself = [Signal::SIGINT as i32, Signal::SIGHUP as i32];
    if by_itself.contains(&number) {
        return Ok(exit(ExitReason::Exited, Some(0), None));
    }
    let out_of_memory = match condo.container(&record.name)? {
        Some(container) => {
            container
                .cgroup(&condo.host)
                .and_then(|c| c.oom_kills())
                .unwrap_or(0)
                > 0
        }
        None => false,
    };
    let reason = if out_of_memory && number == Signal::SIGKILL as i32 {
        ExitReason::Oom
    } else {
        ExitReason::Killed
    };
    Ok(exit(reason, None, Some(number)))
}
