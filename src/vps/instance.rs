//! One instance of condo: where its state is, and what it works with.

use std::path::{Path, PathBuf};

use super::folders::Folders;
use super::store::Store;
use crate::error::Result;
use crate::host::Host;

/// One instance of condo, opened once per process.
#[derive(Debug)]
pub struct Condo {
    /// Where its state is.
    pub folders: Folders,
    /// The machine.
    pub host: Host,
    /// Its records.
    pub store: Store,
    root: Option<PathBuf>,
}

impl Condo {
    /// The instance below `root`, or the host's own.
    pub(super) fn at(root: Option<&Path>, host: Host) -> Result<Self> {
        let folders = Folders::open(root)?;
        let store = Store::open(&folders)?;
        Ok(Self {
            folders,
            host,
            store,
            root: root.map(Into::into),
        })
    }

    /// The `--root` this instance was opened with.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }
}
