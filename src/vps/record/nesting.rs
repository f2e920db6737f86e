//! What a VPS for containers of its own has more of: user ids.

use super::config::VpsConfig;

/// Ranges of user ids of a VPS for containers of its own: what distributions give to the first two users for theirs (65,536 from
/// 100,000 on, and again from 165,536 on) lies within.
pub const NESTING_RANGES: u32 = 4;

impl VpsConfig {
    /// How many ranges of user ids it has.
    pub fn ranges(&self) -> u32 {
        if self.nesting { NESTING_RANGES } else { 1 }
    }
}
