//! Moves whose end is unclear, when the other host cannot be asked any more.

use crate::error::{Error, Result};
use crate::files::Lock;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::pending::{self, Pending};

impl Condo {
    /// Ends a move whose end is unclear: the other host does not have the VPS, as somebody knows, and it stays here. Whether it runs.
    ///
    /// # Errors
    /// [`Error::Status`] for a VPS that is not being handed over, [`Error::Busy`] while that is going on.
    pub fn keep_here(&self, vps: &Name) -> Result<bool> {
        let (_lock, ran) = self.unclear(vps)?;
        pending::refuse_half_deleted(&self.store.get(vps)?)?;
        self.stay(vps, ran)?;
        Ok(ran)
    }

    /// The other way around: the other host has it, and it goes from here.
    ///
    /// # Errors
    /// As for [`Condo::keep_here`].
    pub fn leave_to_other(&self, vps: &Name) -> Result<()> {
        let (lock, _) = self.unclear(vps)?;
        drop(lock);
        self.delete(vps, true)
    }

    /// Whether a VPS that is being handed over ran before; nobody is at work on that.
    fn unclear(&self, vps: &Name) -> Result<(Option<Lock>, bool)> {
        let record = self.store.get(vps)?;
        let lock = self.no_copies(vps)?;
        match record.config.pending {
            Some(Pending::Leaving { ran, .. }) => Ok((lock, ran)),
            _ => Err(Error::Status(
                "the VPS is not being handed over: it is here".into(),
            )),
        }
    }
}
