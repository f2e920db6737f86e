//! What no image needs any more.

use std::collections::BTreeSet;

use super::Images;
use super::layers::Removed;
use super::registry::Blobs;
use crate::error::{Error, Result};

impl Images {
    /// Takes away layers that no image has, downloads, and what processes that died left half made.
    ///
    /// # Errors
    /// [`crate::error::Error::Busy`] while an image is being put together.
    pub fn prune(&self) -> Result<Vec<Removed>> {
        self.sweep()?;
        self.prune_with(|| Blobs::new(self.dir()).prune())
    }

    /// Takes away layers that no image has, and nothing that a pull could go on with.
    ///
    /// # Errors
    /// [`crate::error::Error::Busy`] while an image is being put together.
    pub fn prune_layers(&self) -> Result<Vec<Removed>> {
        self.prune_with(|| Ok(Vec::new()))
    }

    fn prune_with(&self, others: impl FnOnce() -> Result<Vec<Removed>>) -> Result<Vec<Removed>> {
        let needed = || -> Result<BTreeSet<String>> {
            let mut needed = BTreeSet::new();
            for name in self.names()? {
                match self.get(&name) {
                    Err(e) if matches!(e.root(), Error::NotFound { .. }) => {}
                    // Whose layers are not known keeps all.
                    other => needed.extend(other?.manifest.layers),
                }
            }
            Ok(needed)
        };
        self.layers().prune(needed, others)
    }
}
