//! What was begun with a VPS and not finished: a command that copies was killed, or is at work. Until it is finished or undone the
//! VPS does not start.

use serde::{Deserialize, Serialize};

use super::snapshots::SnapshotName;
use super::store::Record;
use crate::error::{Error, Result};

/// Something unfinished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pending {
    /// Its disk is being filled.
    Arriving {
        /// The command, to be run again.
        by: String,
    },
    /// Its disk is being brought back to a snapshot.
    Restoring {
        /// The snapshot.
        snapshot: SnapshotName,
    },
}

impl Pending {
    /// In words, for whoever wonders: what to do about it.
    pub fn remedy(&self, record: &Record) -> String {
        let name = &record.name;
        match self {
            Self::Arriving { by } => {
                format!("its disk is not whole; run `{by}` again, or remove it: `condo delete {name}`")
            }
            Self::Restoring { snapshot } => format!(
                "its disk is being brought back to a snapshot; finish that: `condo snapshot restore {name} {snapshot}`"
            ),
        }
    }
}

/// Refuses work with a VPS about which something is unfinished.
pub(in crate::vps) fn refuse(record: &Record) -> Result<()> {
    match &record.config.pending {
        None => Ok(()),
        Some(pending) => Err(Error::Status(pending.remedy(record))),
    }
}
