//! `condo events`.

use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use serde_json::Value;

use crate::cli::exit::Exit;
use crate::cli::output::unwritten;
use crate::error::{self, Error};
use crate::vps::record::events::Event;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;

pub(super) const EXAMPLES: &str = "\
Examples:
  condo events
  condo events --follow --json web | jq -r .event";

pub(super) const WATCH_EXAMPLES: &str = "\
The units have it as condo-watch.service.

Examples:
  condo watch --every 5
  systemctl enable --now condo-watch";

/// `condo watch`.
pub(super) fn watch(condo: &Condo, every: u64) -> Result<Exit> {
    if every == 0 {
        return Err(Error::invalid("--every", every, "must be 1 at least").into());
    }
    condo.watch(Duration::from_secs(every))?;
    Ok(Exit::Success)
}

pub(super) fn run(condo: &Condo, names: &[Name], follow: bool, json: bool) -> Result<Exit> {
    let mut show = |event: &Event| -> error::Result<()> {
        if !names.is_empty() && !names.contains(&event.vps) {
            return Ok(());
        }
        let line = if json {
            serde_json::to_string(event)?
        } else {
            told(event)
        };
        let mut out = std::io::stdout().lock();
        std::io::Write::write_all(&mut out, format!("{line}\n").as_bytes())?;
        Ok(std::io::Write::flush(&mut out)?)
    };
    match condo.events(follow, &mut show) {
        // Reading events breaks no pipe.
        Err(e) if e.errno() == Some(Errno::EPIPE as i32) => Err(unwritten(e)),
        other => Ok(other.map(|()| Exit::Success)?),
    }
}

/// `2026-01-01T00:00:00.000Z web exited status=0`
fn told(event: &Event) -> String {
    let mut words = vec![
        event.time.clone(),
        event.vps.to_string(),
        event.event.as_str().to_owned(),
    ];
    words.extend(event.detail.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    }));
    words.join(" ")
}
