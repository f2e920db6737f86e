//! What a VPS has to itself: its claims in the instance's records, and its user ids on the whole machine.

use std::cell::Cell;

use super::name::Name;
use super::store::{IsTaken, NewVps, PickAddress, Picks, Record};
use crate::error::Result;
use crate::namespaces::ranges::Ranges;
use crate::vps::record::instance::Condo;

impl Condo {
    /// Records a new VPS with all that must be its own. What was claimed of the machine is given back if that does not come about.
    pub(in crate::vps) fn claim(&self, new: &NewVps, address: PickAddress<'_>) -> Result<Record> {
        let ranges = Ranges::open()?;
        let owner = self.folders.vps(&new.name);
        let claimed = Cell::new(None);
        let count = new.config.ranges();
        let uids = |id: u32, is_taken: IsTaken<'_>| {
            let base = ranges.claim(&owner, (self.range_of(id, &ranges), count), is_taken)?;
            claimed.set(Some(base));
            Ok(base)
        };
        let picks = Picks { address, uids: &uids };
        self.store.insert(new, &picks).inspect_err(|_| {
            if let Some(base) = claimed.get() {
                let _ = ranges.release(&owner, base, count);
            }
        })
    }

    /// The record of a VPS about to be started, which has its user ids to itself: claims end with the boot, and somebody else may
    /// have been faster since. Files on disk do not have those ids, so that another range is as good.
    pub(in crate::vps) fn hold_uids(&self, record: Record) -> Result<Record> {
        let ranges = Ranges::open()?;
        let owner = self.folders.vps(&record.name);
        let count = record.config.ranges();
        if ranges.keep(&owner, record.uid_base, count)? {
            return Ok(record);
        }
        let pick = |is_taken: IsTaken<'_>| {
            ranges.claim(&owner, (self.range_of(record.id, &ranges), count), is_taken)
        };
        let moved = self.store.move_uids(&record.name, &pick)?;
        ranges.release(&owner, record.uid_base, count)?;
        Ok(moved)
    }

    /// Gives the user ids of a deleted VPS back.
    pub(in crate::vps) fn release_uids(&self, record: &Record) -> Result<()> {
        Ranges::open()?.release(
            &self.folders.vps(&record.name),
            record.uid_base,
            record.config.ranges(),
        )
    }

    /// The same for one without a record, of which nobody knows what they were.
    pub(in crate::vps) fn release_all_uids(&self, name: &Name) -> Result<()> {
        Ranges::open()?.release_all(&self.folders.vps(name))
    }

    /// Which range of user ids a VPS asks for first: those of several instances begin at different places.
    fn range_of(&self, id: u32, ranges: &Ranges) -> u32 {
        let mark = self
            .folders
            .mark()
            .and_then(|mark| u32::from_str_radix(mark, 16).ok());
        let usual = ranges.usual().max(1);
        let first = mark.map_or(0, |hash| hash % usual);
        match id.saturating_sub(1) {
            few if few < usual => (first + few) % usual,
            // So many are there that the usual ones are taken: at once to the others.
            many => many,
        }
    }
}
