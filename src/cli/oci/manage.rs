//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::path::Path;

use super::args;
use crate::error::Result;
use crate::host::Host;
use crate::process::signal;
use crate::runtime::container::{self, Container};
use crate::runtime::id::Id;
use crate::runtime::notify::Relay;
use crate::vps::run::adopt;

/// `start`
pub(super) fn start(host: &Host, root: &Path, args: &args::Id) -> Result<u8> {
    let container = load(root, &args.id)?;
    let relay = Relay::open(&container)?;
    container.start(host)?;
    relay.map_or(Ok(()), |relay| relay.run(true)).map(|()| 0)
}

/// `kill`
pub(super) fn kill(host: &Host, root: &Path, args: &args::Kill) -> Result<u8> {
    let container = load(root, &args.id)?;
    if signal::is_question(&args.signal) {
        return match args.all {
            // The processes of one that has stopped have all been asked.
            true => Ok(0),
            false => container.running_init().map(|_| 0),
        };
    }
    // Callers hand on what they were given, and that may be nothing.
    let name = Some(args.signal.as_str()).filter(|name| !name.is_empty());
    let mut signal = signal::parse("signal", name.unwrap_or("SIGTERM"))?;
    if adopt::is_adopted(&container) && !args.all {
        signal = adopt::farewell(&container, signal)?;
    }
    container.kill(host, signal, args.all).map(|()| 0)
}

/// `delete`
pub(super) fn delete(host: &Host, root: &Path, args: &args::Delete) -> Result<u8> {
    container::delete(host, root, &Id::new(&args.id)?, args.force).map(|()| 0)
}

/// `pause`
pub(super) fn pause(host: &Host, root: &Path, args: &args::Id) -> Result<u8> {
    load(root, &args.id)?.pause(host).map(|()| 0)
}

/// `resume`
pub(super) fn resume(host: &Host, root: &Path, args: &args::Id) -> Result<u8> {
    load(root, &args.id)?.resume(host).map(|()| 0)
}

fn load(root: &Path, id: &str) -> Result<Container> {
    Container::load(root, &Id::new(id)?)
}
