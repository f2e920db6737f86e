//! Standing still: all processes of a VPS are stopped where they are, keep their memory, and go on later.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::vps::record::events::Kind;
use crate::vps::record::instance::Condo;
use crate::vps::record::name::Name;
use crate::vps::record::view::VpsStatus;

impl Condo {
    /// Freezes a running VPS; one that is frozen already is fine.
    ///
    /// # Errors
    /// [`Error::Status`] for one that does not run.
    pub fn freeze(&self, name: &Name) -> Result<()> {
        let (record, _lock) = self.hold_settled(name)?;
        match (self.status(name)?, self.container(name)?) {
            (VpsStatus::Paused, _) => Ok(()),
            (VpsStatus::Running, Some(container)) => {
                container.pause(&self.host)?;
                self.tell(&record, Kind::Frozen, Value::Null);
                Ok(())
            }
            _ => Err(stopped(name)),
        }
    }

    /// Lets a frozen VPS go on; one that runs already is fine.
    ///
    /// # Errors
    /// [`Error::Status`] for one that is stopped.
    pub fn thaw(&self, name: &Name) -> Result<()> {
        let (record, _lock) = self.hold_settled(name)?;
        match (self.status(name)?, self.container(name)?) {
            (VpsStatus::Running, _) => Ok(()),
            (VpsStatus::Paused, Some(container)) => {
                container.resume(&self.host)?;
                self.tell(&record, Kind::Thawed, Value::Null);
                Ok(())
            }
            _ => Err(stopped(name)),
        }
    }
}

fn stopped(name: &Name) -> Error {
    Error::Status(format!("the VPS is not running; start it: condo start {name}"))
}

/// What cannot be done with a VPS that stands still.
pub(super) fn frozen(name: &Name) -> Error {
    Error::Status(format!("the VPS is frozen; let it go on: condo thaw {name}"))
}
