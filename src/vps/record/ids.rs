//! How many user and group ids a VPS has: whole ranges of the machine's, beside each other.

use super::config::VpsConfig;
use crate::error::{Error, Result};
use crate::image::{self, Image};
use crate::namespaces::ranges::SIZE;

/// How many ids a VPS has unless more are asked for.
pub const USUAL: u32 = SIZE;
/// Ranges of user ids of a VPS for containers of its own: what distributions give to the first two users for theirs (65,536 from
/// 100,000 on, and again from 165,536 on) lies within.
pub const NESTING_RANGES: u32 = 4;
/// Most that one VPS may ask for. All VPSs of a machine share 36,860 ranges, of which 4,094 are below 2^31.
const MOST: u32 = 64;
/// The same in ids.
pub const MOST_IDS: u32 = MOST * SIZE;
const _: () = assert!(MOST_IDS == image::OWNERS, "an image's owners are those of a VPS");

impl VpsConfig {
    /// How many ranges of user ids it has: those asked for, or what its use needs.
    pub fn ranges(&self) -> u32 {
        let usual = if self.nesting { NESTING_RANGES } else { 1 };
        self.ids.map_or(usual, |ids| ids / SIZE)
    }

    /// Refuses an image with files of users that this VPS would not have: its own root could not even remove them.
    pub fn check_owners(&self, image: &Image) -> Result<()> {
        let (ids, highest) = (self.ranges() * SIZE, image.manifest.highest_id);
        if highest < ids {
            return Ok(());
        }
        let problem = format!(
            "are too few: image `{}` has files of user or group {highest}; create a VPS with --ids {}",
            image.name,
            enough_for(highest)
        );
        Err(Error::invalid("--ids", ids, problem))
    }
}

/// A number of ids that a VPS can be given: that of whole ranges.
pub fn check(ids: u64) -> Result<u32> {
    let refuse = |problem: String| Err(Error::invalid("--ids", ids, problem));
    match u32::try_from(ids) {
        Ok(ids) if (1..=MOST_IDS).contains(&ids) => match ids.next_multiple_of(SIZE) {
            whole if whole == ids => Ok(ids),
            next => refuse(format!("is no multiple of {SIZE}; the next is {next}")),
        },
        _ => refuse(format!("must be from {SIZE} to {MOST_IDS}")),
    }
}

/// The least number of ids, as `--ids` takes it, among which this one is.
pub fn enough_for(highest: u32) -> u32 {
    (highest / SIZE + 1) * SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(nesting: bool, ids: Option<u32>) -> VpsConfig {
        VpsConfig {
            nesting,
            ids,
            ..VpsConfig::new("busybox")
        }
    }

    #[test]
    fn what_is_asked_for_comes_before_what_is_usual() {
        let ranges = |nesting, ids| with(nesting, ids).ranges();
        assert_eq!((ranges(false, None), ranges(true, None)), (1, NESTING_RANGES));
        assert_eq!((ranges(false, Some(131_072)), ranges(true, Some(65_536))), (2, 1));
    }

    #[test]
    fn only_whole_ranges_are_given() {
        for good in [65_536, 4_194_304] {
            assert_eq!(u64::from(check(good).unwrap()), good);
        }
        for (bad, problem) in [
            (0, "must be from 65536 to 4194304"),
            (4_259_840, "must be from 65536 to 4194304"),
            (u64::MAX, "must be from 65536 to 4194304"),
            (1, "is no multiple of 65536; the next is 65536"),
            (100_000, "is no multiple of 65536; the next is 131072"),
        ] {
            let text = check(bad).unwrap_err().to_string();
            assert_eq!(text, format!("--ids: `{bad}` {problem}"));
        }
    }

    #[test]
    fn as_many_as_reach_the_highest() {
        for (highest, ids) in [
            (0, 65_536),
            (65_535, 65_536),
            (65_536, 131_072),
            (100_000, 131_072),
        ] {
            assert_eq!(enough_for(highest), ids);
        }
    }
}
