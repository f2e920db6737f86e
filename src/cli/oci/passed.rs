//! Descriptors that the caller passes through to the container's program: sockets of systemd (`sd_listen_fds(3)`) and those
//! counted by `--preserve-fds`, in this order from 3 on.

use std::path::Path;

use super::args::Command;
use crate::error::{Error, Result};

/// How many sockets the caller passes by `LISTEN_FDS`, if they are meant for this process.
pub(super) fn listening() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// The descriptors to pass on must be there. To be called before this program opens any of its own: with a number off by one
/// the container would get the log's.
pub(super) fn check(command: Option<&Command>) -> Result<()> {
    let (listening, preserved) = match command {
        Some(Command::Create(args)) => (listening(), args.preserve_fds),
        Some(Command::Run(args)) => (listening(), args.create.preserve_fds),
        Some(Command::Exec(args)) => (0, args.preserve_fds),
        Some(Command::Restore(args)) => (0, args.preserve_fds),
        _ => (0, 0),
    };
    let open = |fd: u64| crate::files::exists(Path::new(&format!("/proc/self/fd/{fd}")));
    if let Some(Command::Checkpoint(args)) = command
        && u64::try_from(args.status_fd).is_ok_and(|fd| !open(fd))
    {
        return Err(Error::invalid("--status-fd", args.status_fd, "is not open"));
    }
    let end = 3 + u64::from(listening) + u64::from(preserved);
    match (3..end).find(|fd| !open(*fd)) {
        None => Ok(()),
        Some(fd) if fd < 3 + u64::from(listening) => {
            let problem = format!("needs descriptor {fd}, which is not open");
            Err(Error::invalid("LISTEN_FDS", listening, problem))
        }
        Some(fd) => {
            let problem = format!("needs descriptor {fd}, which is not open");
            Err(Error::invalid("--preserve-fds", preserved, problem))
        }
    }
}
