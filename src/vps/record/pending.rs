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
        /// Whether it ran before, and so runs again afterwards.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ran: bool,
    },
    /// It is being handed over to another host, which may have it already.
    Leaving {
        /// The other host, as `migrate` takes it.
        to: String,
        /// What both hosts know this move by.
        token: String,
        /// Whether it ran before.
        ran: bool,
    },
    /// It ran before a command stopped it, here or on the host that it came from, and its start is still to be seen.
    Starting,
}

impl Pending {
    /// In words, for whoever wonders: what to do about it.
    pub fn remedy(&self, record: &Record) -> String {
        let name = &record.name;
        match self {
            // That was run on the host which still has it.
            Self::Arriving { by } if by.starts_with("condo migrate ") => format!(
                "it has not arrived from another host; run `{by}` again there, or remove what has come: `condo delete {name}`"
            ),
            Self::Arriving { by } => {
                format!("its disk is not whole; run `{by}` again, or remove it: `condo delete {name}`")
            }
            Self::Restoring { snapshot, .. } => format!(
                "its disk is being brought back to a snapshot; finish that: `condo snapshot restore {name} {snapshot}`"
            ),
            Self::Leaving { to, .. } => format!(
                "it is being handed over to another host, which may run it already; finish that: condo migrate {name} {to}; if that \
                 host cannot be asked any more, say where it is: condo migrate {name} --here, or --there"
            ),
            Self::Starting => format!("it ran, and is to run again: `condo start {name}`"),
        }
    }
}

/// Refuses work with a VPS about which something is unfinished.
pub(in crate::vps) fn refuse(record: &Record) -> Result<()> {
    refuse_half_deleted(record)?;
    if record.config.rescue.as_ref().is_some_and(|rescue| rescue.ending) {
        let text = format!(
            "its rescue is being ended; finish that: `condo rescue {} --end`",
            record.name
        );
        return Err(Error::Status(text));
    }
    match &record.config.pending {
        None | Some(Pending::Starting) => Ok(()),
        Some(pending) => Err(Error::Status(pending.remedy(record))),
    }
}

/// Refuses what needs all of a VPS while parts of it may be gone.
pub(in crate::vps) fn refuse_half_deleted(record: &Record) -> Result<()> {
    if !record.config.deleting {
        return Ok(());
    }
    let name = &record.name;
    let text = format!("its deletion was interrupted; finish that: `condo delete {name}`");
    Err(Error::Status(text))
}

/// Refuses to delete the only one there may be, unless by force or decided already: nobody knows yet which host has it.
pub(in crate::vps) fn refuse_to_delete(record: &Record, force: bool) -> Result<()> {
    match &record.config.pending {
        Some(leaving @ Pending::Leaving { .. }) if !force && !record.config.deleting => {
            Err(Error::Status(leaving.remedy(record)))
        }
        _ => Ok(()),
    }
}
