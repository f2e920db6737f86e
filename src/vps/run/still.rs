//! A VPS that stands still for a moment, so that its disk can be read as of one point in time. Whoever asked for that may be killed:
//! a helper process, which waits for that, lets the VPS go on.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::monitor;
use crate::cgroups::Cgroup;
use crate::error::{During, Result};
use crate::runtime::status::Status;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

/// What the helper is told when it is not needed any more.
const OVER: &[u8] = b"over";

/// A VPS that stands still until this is dropped.
#[derive(Debug)]
pub(in crate::vps) struct Still<'c> {
    condo: &'c Condo,
    name: &'c Name,
    since: Instant,
    helper: Child,
}

impl Condo {
    /// Freezes a VPS that runs; nothing for one that does not, or that somebody has frozen. The caller holds the VPS's lock.
    pub(in crate::vps) fn hold_still<'c>(&'c self, name: &'c Name) -> Result<Option<Still<'c>>> {
        let Some(container) = self
            .container(name)?
            .filter(|c| c.status(&self.host) == Status::Running)
        else {
            return Ok(None);
        };
        let helper = Command::new("/proc/self/exe")
            .arg0(monitor::CALLED)
            .arg("thaw")
            .arg(monitor::root_argument(self))
            .arg(name.as_str())
            .current_dir("/")
            .env_clear()
            // What ends the command by a key at the terminal does not end the helper.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .during(|| "start the helper that lets the VPS go on")?;
        let mut still = Still {
            condo: self,
            name,
            since: Instant::now(),
            helper,
        };
        still.wait_for_helper()?;
        still.since = Instant::now();
        match container.pause(&self.host) {
            // It ended by itself.
            Err(_) if container.status(&self.host) == Status::Stopped => Ok(None),
            other => other.map(|()| Some(still)),
        }
    }
}

impl Still<'_> {
    /// It says a word once it is there.
    fn wait_for_helper(&mut self) -> Result<()> {
        let mut word = [0];
        if let Some(said) = &mut self.helper.stdout {
            said.read_exact(&mut word)
                .during(|| "hear from the helper that lets the VPS go on")?;
        }
        Ok(())
    }

    /// Lets it go on; how long it stood still.
    pub(in crate::vps) fn go_on(self) -> Result<Duration> {
        thaw(self.condo, self.name)?;
        Ok(self.since.elapsed())
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if thaw(self.condo, self.name).is_ok()
            && let Some(helper) = &mut self.helper.stdin
        {
            let _ = helper.write_all(OVER);
        }
        drop(self.helper.stdin.take());
        let _ = self.helper.wait();
    }
}

fn thaw(condo: &Condo, name: &Name) -> Result<()> {
    match condo.container(name)? {
        Some(container) if container.status(&condo.host) == Status::Paused => container.resume(&condo.host),
        _ => Ok(()),
    }
}

/// The helper: waits for the command's end, and lets the VPS go on unless the command has.
pub(super) fn wait_and_thaw(root: Option<&Path>, name: &Name) -> Result<()> {
    let condo = Condo::open(root)?;
    // Not in the cgroup of the command, which may be killed as a whole.
    let _ = Cgroup::retreat(&condo.host.cgroups, &monitor::cgroup(&condo));
    std::io::stdout().write_all(b".")?;
    std::io::stdout().flush()?;
    let mut told = Vec::new();
    let heard = std::io::stdin().read_to_end(&mut told);
    if heard.is_ok() && told == OVER {
        return Ok(());
    }
    thaw(&condo, name)
}
