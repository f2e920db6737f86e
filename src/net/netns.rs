//! Work inside another network namespace.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns};

use crate::error::{During, Error, Result};

/// Runs `work` inside the network namespace.
///
/// A thread of its own enters it and ends there: whatever fails, the caller can never be left in a tenant's namespace.
///
/// # Errors
/// Those of `setns(2)` and of `work`.
pub(super) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let visit = std::thread::Builder::new().spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET).during(|| "enter the network namespace")?;
            work()
        })?;
        visit.join().unwrap_or_else(|_| {
            Err(Error::Corrupt(
                "the visit to the network namespace ended early".into(),
            ))
        })
    })
}
